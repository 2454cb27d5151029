"""What published corrupted sets have in common: names, doses, and where their folders lie."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from aresbench.core.errors import DataError, did_you_mean
from aresbench.data.base import Dataset
from aresbench.data.local import given_folder, shared_folder

SEVERITIES = (1, 2, 3, 4, 5)

# ImageNet-C's corruptions by the archive that holds them; the last four are for validation and no part of mCE.
ARCHIVES: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
COMMON = tuple(name for names in ARCHIVES.values() for name in names)


class PublishedCorruption(Dataset):
    """Files that bear one corruption at one severity; which, say two settings of each such set."""

    corruption: str
    severity: int

    @property
    def corrupted_by(self) -> tuple[str, int]:
        return self.corruption, self.severity


def check_dose(title: str, corruption: str, severity: int, known: Collection[str]) -> None:
    """Refuse a corruption or severity that a published set does not have.

    Raises:
        DataError: naming the nearest right word.
    """
    if corruption not in known:
        spelling = str(corruption).lower().replace("-", "_").replace(" ", "_")
        raise DataError(
            f"{title} has no corruption {corruption!r}", did_you_mean(spelling, known) or f"it has {', '.join(known)}"
        )
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise DataError(f"{title} has no severity {severity!r}", "severities are 1, 2, 3, 4 and 5")


def root_of(root: str | Path | None, title: str, names: Iterable[str], obtain: str) -> Path:
    """The folder of a set: the one given, or the first of some names in ``$ARESBENCH_DATA``.

    Raises:
        DataError: there is none.
    """
    if root is not None:
        return given_folder(root)
    places = [place for name in names if (place := shared_folder(name)) is not None]
    for place in places:
        if place.is_dir():
            return place
    where = f"there is no folder {places[0]}" if places else "neither root nor ARESBENCH_DATA is set"
    raise DataError(f"{title} is not on this machine: {where}", obtain)


def corruption_folders(root: Path, known: Collection[str]) -> dict[str, Path]:
    """The corruptions whose folders lie in ``root`` or one level below, in the folders of the archives."""
    top = [p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    below = [p for folder in top if folder.name not in known for p in _subfolders(folder, known)]
    return {p.name: p for p in [*below, *top] if p.name in known}


def _subfolders(folder: Path, known: Collection[str]) -> list[Path]:
    return [folder / name for name in known if (folder / name).is_dir()]


def severity_folder(root: Path, title: str, corruption: str, severity: int, known: Collection[str], hint: str) -> Path:
    """``<root>/<corruption>/<severity>``, or the same below an archive's folder.

    Args:
        root: the folder of the set.
        title: the set's name for readers.
        corruption: the corruption.
        severity: 1 to 5.
        known: all corruptions of the set.
        hint: where the missing files come from.

    Raises:
        DataError: there is no such folder; those that are there are named.
    """
    found = corruption_folders(root, known)
    if corruption not in found:
        there = [p.name for p in sorted(root.iterdir()) if p.is_dir()]
        if any(_is_wnid(name) for name in there) or set(there) & {str(s) for s in SEVERITIES}:
            raise DataError(
                f"{root} is a part of {title}, not the whole",
                f"root must be the folder that holds the folder {corruption}",
            )
        near = did_you_mean(corruption, there)
        have = f"; it has {', '.join(found)}" if found else ""
        raise DataError(f"{root} has no folder {corruption}{have}", f"{near} {hint}".strip())
    folder = found[corruption] / str(severity)
    if not folder.is_dir():
        there = [p.name for p in sorted(found[corruption].iterdir()) if p.is_dir()]
        remedy = hint
        if len(there) == len(SEVERITIES) and all(_is_number(name) for name in there):
            # The generator of ImageNet-C̄ names its folders by dose; the published archive by severity.
            dose = sorted(there, key=float)[severity - 1]
            remedy = f"the folders are named by dose, not severity: rename {dose} to {severity}, and the others in turn"
        raise DataError(
            f"{found[corruption]} has no folder {severity}; it has {', '.join(there) or 'no folders'}", remedy
        )
    return folder


def _is_wnid(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
