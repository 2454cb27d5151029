"""Files compared with the checksums under which they were published."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from aresbench.core.flag import Flag


def md5_of(path: Path) -> str:
    """The file's MD5, as 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unlike_published(published: Mapping[Path, str], title: str, restore: str) -> list[Flag]:
    """A flag about files whose contents are not those that were published.

    Args:
        published: file → its published MD5.
        title: the set's name for readers.
        restore: where the published files come from.
    """
    changed = [path.name for path, digest in published.items() if md5_of(path) != digest]
    if not changed:
        return []
    return [
        Flag(
            "not-as-published",
            "error",
            "data",
            f"the contents of {', '.join(changed)} are not those of {title} as published (the MD5 differs)",
            f"{restore}; numbers on changed files are not {title}'s",
            {"files": changed},
        )
    ]
