"""The archive: every row ever measured, per image, safe against kills and merged by copying."""

from aresbench.store.archive import Status, Store
from aresbench.store.bundle import read_manifest, unpacked, write_bundle
from aresbench.store.cell import Cell

__all__ = ["Cell", "Status", "Store", "read_manifest", "unpacked", "write_bundle"]
