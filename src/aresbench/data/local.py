"""Where datasets lie on this machine, and which files are pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from aresbench.core.errors import DataError

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def is_picture(name: str) -> bool:
    """Whether a file counts as a picture: by its ending, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURES


def relative_hint(path: Path) -> str:
    """Where a relative path starts; an absolute one needs no hint."""
    return "" if path.is_absolute() else f"a relative path starts at {Path.cwd()}"


def given_folder(root: str | Path) -> Path:
    """A folder that the user named.

    Raises:
        DataError: there is none.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"the folder {folder} {what}", relative_hint(folder))
    return folder


def shared_folder(name: str) -> Path | None:
    """``$ARESBENCH_DATA/name``, or None where the variable is not set."""
    base = os.environ.get("ARESBENCH_DATA")
    return Path(base).expanduser() / name if base else None


def download_folder(name: str) -> Path:
    """Where a download goes when the user named no folder: ``$ARESBENCH_DATA``, else the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return shared_folder(name) or cache / "aresbench" / name


def download(title: str, folder: Path, fetch: Callable[[Path], object]) -> None:
    """Run a download into ``folder``.

    Raises:
        DataError: it failed: no network, a full disk, a broken file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torchvision raises RuntimeError
        raise DataError(
            f"{title} is not on this machine and could not be downloaded to {folder}: {error}",
            "download it where there is a network, then name its folder with root=… or set ARESBENCH_DATA",
        ) from error
