"""Corruptions by name, and ``corrupt``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from aresbench.core.errors import DataError, SpecError, UnknownName
from aresbench.corruptions.load import corrupt, make_corruption, pixel_ids
from aresbench.corruptions.noise import GaussianNoise
from aresbench.ops.random import Streams

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from aresbench.corruptions.base import Corruption, floor_levels, widen

@dataclass(frozen=True)
class Darker(Corruption):
    """Less light."""
    name: ClassVar[str] = "darker"
    family: ClassVar[str] = "digital"
    paper: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    doses: ClassVar[dict] = {224: (0.9, 0.8, 0.7, 0.6, 0.5)}

    def draws(self, streams, height, width):
        return {}

    def levels(self, x, draws):
        return floor_levels(widen(x) * self.dose(*x.shape[2:]))

NOT_ONE = 3
'''


def test_name_gives_the_corruption() -> None:
    assert make_corruption("gaussian_noise", 2) == GaussianNoise(2, "memory")


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="gausian_noise") as caught:
        make_corruption("gausian_noise", 2)
    assert "'gaussian_noise'" in caught.value.remedy


def test_corruption_of_ones_own_is_one_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    result = corrupt(torch.ones(1, 3, 10, 10), f"{file}:Darker", 5)
    assert torch.equal(result, torch.full((1, 3, 10, 10), 127.0) / 255)
    with pytest.raises(SpecError, match="is not a corruption"):
        make_corruption(f"{file}:NOT_ONE", 1)


def test_corrupt_draws_by_id(photos: Tensor) -> None:
    ids = ["v", "w", "x", "y", "z"]
    expected = GaussianNoise(3)(photos, Streams(7, "gaussian_noise/3", ids))
    assert torch.equal(corrupt(photos, "gaussian_noise", 3, seed=7, ids=ids), expected)


def test_ids_are_hashes_of_the_pixels_by_default(photos: Tensor) -> None:
    ids = pixel_ids(photos)
    assert len(set(ids)) == 5
    assert ids == pixel_ids(photos.double()) == pixel_ids((photos - 1e-4).clamp(min=0))
    assert pixel_ids(torch.zeros(1, 3, 2, 6)) != pixel_ids(torch.zeros(1, 3, 3, 4))
    result = corrupt(photos, "fog", 3)
    assert torch.equal(result, corrupt(photos, "fog", 3, ids=ids))
    assert torch.equal(corrupt(photos[[2]], "fog", 3), result[[2]])


@pytest.mark.parametrize("ids", ["abcde", ["a", "b"], []])
def test_ids_must_be_one_per_image(ids: list[str], photos: Tensor) -> None:
    with pytest.raises(DataError, match="5 images but"):
        corrupt(photos, "fog", 3, ids=ids)


def test_values_between_levels_are_corrupted_too() -> None:
    """Only float32 values that stand for a level are taken to be that level."""
    x = torch.full((1, 3, 8, 8), 100.5 / 255)
    assert torch.equal((corrupt(x, "brightness", 2) * 255).round(), torch.full_like(x, 126.0))  # 100.5 + 25.5
    almost = torch.full((1, 3, 8, 8), 100 / 255).nextafter(torch.zeros(1))
    assert torch.equal((corrupt(almost, "brightness", 1) * 255).round(), torch.full_like(x, 112.0))  # 100 + 12.75
    assert torch.equal((corrupt(almost, "jpeg_compression", 1) * 255).round(), torch.full_like(x, 100.0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gaussian_noise", [0.2400597, 0.5920365, 0.1459911]), ("fog", [0.4649598, 0.3476586, 0.9323454])],
)
def test_draws_stay_what_they_are_from_version_to_version(name: str, expected: list[float]) -> None:
    """Stored results are only comparable while these hold: a change needs a higher revision."""
    corruption = make_corruption(name, 3)
    (draws,) = corruption.draws(Streams(0, corruption.component, ["test/00017"]), 32, 32).values()
    assert corruption.revision == 1
    assert draws.flatten()[:3].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_corruption_of_ones_own_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "\n".join(line for line in PLUGIN.splitlines() if "name:" not in line and "doses:" not in line)
    )
    with pytest.raises(SpecError, match="does not say its name, doses"):
        make_corruption(f"{tmp_path}/own.py:Darker", 1)
