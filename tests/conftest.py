"""What all tests share: the plugins below; fixtures of one room live in that room's own conftest.py."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# under --import-mode=importlib the tests' folder is on no path of its own
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["plugins.browser", "plugins.forked", "plugins.skips"]


@pytest.fixture(scope="session", autouse=True)
def picture_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded pictures are kept apart from those of the user who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ARESBENCH_CACHE", str(folder))
        yield folder
