"""What several tests of training learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

RecipeMaker = Callable[[str, int], Path]


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> RecipeMaker:
    """Writes a recipe, and beside it what it names: ``npz:learned.npz`` with n images, ``npz:watched.npz`` with 30.

    The images are noise with a tint, red, green or blue, which is their class.
    """

    def make(text: str, n: int) -> Path:
        folder = tmp_path_factory.mktemp("recipe")
        rng = np.random.default_rng(0)
        for name, count in (("learned", n), ("watched", 30)):
            labels = np.arange(count) % 3
            pictures = rng.integers(0, 100, (count, 32, 32, 3)) + 70 * (labels[:, None, None, None] == np.arange(3))
            np.savez(folder / f"{name}.npz", x=pictures.astype(np.uint8), y=labels)
        path = folder / "tiny.toml"
        path.write_text(text.replace("npz:", f"npz:{folder}/"), "utf-8")
        return path

    return make
