"""Tensors set aside in a nameless file, which the system removes with the process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from aresbench.data.cache import cache_folder


class Scratch:
    """Tensors of one shape and type by key.

    A file and not memory: 50,000 images of 224 px are 7.5 GB in 8 bits. Written by plain writes, so that a full disk
    is an error that can be caught (mapped memory would end the process).

    Args:
        shape: of each tensor.
        dtype: of each tensor.
        file: open for reading and writing, unbuffered.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, file: Any) -> None:
        self.shape, self.dtype = tuple(shape), dtype
        self._bytes = torch.empty(self.shape, dtype=dtype).numel() * dtype.itemsize
        self._file = file
        self._slots: dict[Hashable, int] = {}

    @classmethod
    def open(cls, shape: Sequence[int], dtype: torch.dtype) -> Scratch | None:
        """A new file beside the picture cache, else among the temporary files; ``None`` where none can be made."""
        for place in (cache_folder(), None):
            try:
                if place is not None:
                    place.mkdir(parents=True, exist_ok=True)
                return cls(shape, dtype, tempfile.TemporaryFile(dir=place, buffering=0))
            except OSError:
                continue
        return None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._slots

    def read(self, keys: Sequence[Hashable]) -> tuple[Tensor, list[int]]:
        """[N, *shape], and the rows whose key is not there: they hold nothing."""
        found = torch.empty((len(keys), *self.shape), dtype=self.dtype)
        missing = []
        for row, key in enumerate(keys):
            slot = self._slots.get(key)
            if slot is None:
                missing.append(row)
            else:
                os.preadv(self._file.fileno(), [found[row].numpy().reshape(-1).data], slot * self._bytes)
        return found, missing

    def write(self, keys: Sequence[Hashable], tensors: Tensor) -> bool:
        """Keep tensors [N, *shape]; False where the disk is full: what was kept before stays."""
        try:
            for key, values in zip(keys, tensors.contiguous().numpy(), strict=True):
                slot = self._slots.get(key, len(self._slots))
                if os.pwrite(self._file.fileno(), values.tobytes(), slot * self._bytes) != self._bytes:
                    return False
                self._slots[key] = slot
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
