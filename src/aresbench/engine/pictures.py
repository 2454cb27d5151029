"""The images of a run: decoded once for all models, and changed once for all that share a change."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from aresbench.data.cache import PictureCache, cache_folder
from aresbench.engine.plan import SHARD, Planned
from aresbench.ops.random import Streams

Loaded: TypeAlias = tuple[Tensor, list[int], list[tuple[str, str]]]


def change_key(plan: Planned) -> tuple[object, ...] | None:
    """Cells of equal keys ask for the very same changed images; ``None``: nothing is changed."""
    if not plan.changes:
        return None
    return (plan.dataset.name, plan.preprocessing, plan.changes, plan.seed)


def side_by_side(cells: Sequence[Planned]) -> list[Planned]:
    """The cells in their order, but those that ask for the same changed images follow on the first of them."""
    groups: dict[object, list[Planned]] = {}
    for number, cell in enumerate(cells):
        groups.setdefault(change_key(cell) or number, []).append(cell)
    return [cell for group in groups.values() for cell in group]


@dataclass
class Pictures:
    """Images for cells that come one after the other.

    Args:
        limit: bytes of decoded images kept in memory; more are read from the picture cache on disk again.
    """

    limit: int = 2_000_000_000
    cache: PictureCache = field(default_factory=PictureCache)
    _kept: dict[tuple[object, str], Tensor] = field(default_factory=dict)
    _bytes: int = 0
    _awaited: Counter[object] = field(default_factory=Counter)
    _changed: _Scratch | None = None

    def expect(self, cells: Iterable[Planned]) -> None:
        """Say which cells will come, so that changed images are kept where another cell needs them."""
        self._awaited.update(change_key(cell) for cell in cells if cell.missing)

    def load(self, plan: Planned, places: list[int], on_bad: Any) -> Loaded:
        """As ``load_images``, from memory or the picture cache where possible."""
        fresh, kept, bad = self.cache.load(plan.dataset, self._new(plan, places), plan.preprocessing, on_bad)
        found = dict(zip(kept, fresh, strict=True))
        images, good = [], []
        for k in places:
            entry = _entry(plan, k)
            if k in found:
                image = found[k]
                if self._bytes + image.numel() <= self.limit:
                    self._kept[entry] = image
                    self._bytes += image.numel()
            elif entry in self._kept:
                image = self._kept[entry]
            else:
                continue
            images.append(image)
            good.append(k)
        return (torch.stack(images) if images else fresh).to(torch.float32).div_(255), good, bad

    def read_ahead(self, plan: Planned, places: list[int], on_bad: Any) -> None:
        """Begin to decode in the background what the next ``load`` will ask for."""
        if new := self._new(plan, places):
            self.cache.read_ahead(plan.dataset, new, plan.preprocessing, on_bad)

    def _new(self, plan: Planned, places: Sequence[int]) -> list[int]:
        return [k for k in places if _entry(plan, k) not in self._kept]

    def changed(self, plan: Planned, x: Tensor, places: list[int]) -> Tensor:
        """The images after the task's corruptions and filters, in their order: what an adversary starts from.

        Args:
            plan: the cell.
            x: [N, C, H, W] the images at ``places``.
            places: where they stand in the cell's dataset.
        """
        key = change_key(plan)
        if key is None:
            return x
        ids = [plan.dataset.ids[k] for k in places]
        if self._changed is None or self._changed.key != key:
            self._drop()
            if self._awaited[key] > 1:  # this cell and another
                self._changed = _Scratch.open(key, x.shape[1:])
        scratch = self._changed
        result, new = scratch.read(ids) if scratch else (torch.empty_like(x), list(range(len(ids))))
        if new:
            made = _change(plan, x[new], [ids[k] for k in new])
            result[new] = made
            if scratch and not scratch.write([ids[k] for k in new], made):
                self._drop()
        return result

    def finish(self, plan: Planned) -> None:
        """A cell is complete; changed images that no other cell needs are let go."""
        key = change_key(plan)
        self._awaited[key] -= 1
        if self._changed is not None and self._changed.key == key and self._awaited[key] < 1:
            self._drop()

    def _drop(self) -> None:
        if self._changed is not None:
            self._changed.close()
        self._changed = None


def _entry(plan: Planned, place: int) -> tuple[object, str]:
    return (plan.dataset.name, plan.preprocessing), plan.dataset.ids[place]


def _change(plan: Planned, x: Tensor, ids: list[str]) -> Tensor:
    for change in plan.changes:
        parts = []
        for start in range(0, len(x), SHARD):  # many full-size draws at once would only fill the memory
            streams = Streams(plan.seed, change.component, ids[start : start + SHARD])
            parts.append(change(x[start : start + SHARD], streams))
        x = torch.cat(parts)
    return x


class _Scratch:
    """Changed images in 8 bits in a nameless file, which the system removes with the process.

    A file and not memory: 50,000 images of 224 px are 7.5 GB. Written by plain writes, so that a full disk is an
    error that can be caught (mapped memory would end the process).
    """

    def __init__(self, key: object, shape: tuple[int, ...], file: Any) -> None:
        self.key, self.shape, self.bytes = key, shape, int(np.prod(shape))
        self._file = file
        self._slots: dict[str, int] = {}

    @classmethod
    def open(cls, key: object, shape: Sequence[int]) -> _Scratch | None:
        """A new file beside the picture cache, else among the temporary files; ``None`` where none can be made."""
        folder = cache_folder()
        for place in (folder, None):
            try:
                if place is not None:
                    place.mkdir(parents=True, exist_ok=True)
                return cls(key, tuple(shape), tempfile.TemporaryFile(dir=place, buffering=0))
            except OSError:
                continue
        return None

    def read(self, ids: Sequence[str]) -> tuple[Tensor, list[int]]:
        """float32 [N, C, H, W], and the rows that are not there."""
        x = torch.empty((len(ids), *self.shape), dtype=torch.uint8)
        missing = []
        for row, image_id in enumerate(ids):
            slot = self._slots.get(image_id)
            if slot is None:
                missing.append(row)
            else:
                os.preadv(self._file.fileno(), [x[row].numpy().reshape(-1).data], slot * self.bytes)
        return x.to(torch.float32).div_(255), missing

    def write(self, ids: Sequence[str], x: Tensor) -> bool:
        """Keep images; False where they are no 8-bit ones (a filter's) or the disk is full: nothing is lost then."""
        levels = (x * 255).round_()
        if not torch.equal(levels.div(255), x):
            return False
        pixels = levels.to(torch.uint8).contiguous().numpy()
        try:
            for image_id, image in zip(ids, pixels, strict=True):
                slot = self._slots.get(image_id, len(self._slots))
                if os.pwrite(self._file.fileno(), image.tobytes(), slot * self.bytes) != self.bytes:
                    return False
                self._slots[image_id] = slot
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
