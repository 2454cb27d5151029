"""The images of a run: decoded once for all models, changed once for all that share a change, attacked once on a
surrogate for all models that the result is tried on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from aresbench.data.cache import PictureCache
from aresbench.engine.plan import SHARD, Planned
from aresbench.engine.scratch import Scratch
from aresbench.engine.transfer import Made
from aresbench.ops.random import Streams

Loaded: TypeAlias = tuple[Tensor, list[int], list[tuple[str, str]]]


def change_key(plan: Planned) -> tuple[object, ...] | None:
    """Cells of equal keys ask for the very same changed images; ``None``: nothing is changed."""
    if not plan.changes:
        return None
    return (plan.dataset.name, plan.preprocessing, plan.changes, plan.seed)


def transfer_key(plan: Planned) -> tuple[object, ...] | None:
    """Cells of equal keys try the very same adversarial images of a surrogate; ``None``: no surrogate."""
    if not plan.surrogates or plan.adversary is None:
        return None
    searched = tuple((model.fingerprint, class_map) for model, class_map in plan.surrogates)
    attacks = tuple(plan.attacks.values())
    return (plan.dataset.name, plan.preprocessing, plan.changes, plan.seed, searched, attacks, plan.adversary.ladder)


def side_by_side(cells: Sequence[Planned]) -> list[Planned]:
    """The cells in their order, but those that ask for the same images follow on the first of them."""
    groups: dict[object, list[Planned]] = {}
    for number, cell in enumerate(cells):
        groups.setdefault(transfer_key(cell) or change_key(cell) or number, []).append(cell)
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
    _changed: tuple[object, Scratch] | None = None
    _made: tuple[object, Made] | None = None

    def expect(self, cells: Iterable[Planned]) -> None:
        """Say which cells will come, so that images are kept where another cell needs them."""
        for cell in cells:
            if cell.missing:
                self._awaited.update((change_key(cell), transfer_key(cell)))

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
        if self._changed is None or self._changed[0] != key:
            self._drop()
            another = self._awaited[key] > 1 and plan.changes[-1].eight_bits  # others would not be kept to the bit
            if another and (room := Scratch.open(x.shape[1:], torch.uint8)):
                self._changed = key, room
        scratch = self._changed[1] if self._changed else None
        if scratch is None:
            return _change(plan, x, ids)
        levels, new = scratch.read(ids)
        result = levels.to(torch.float32).div_(255)
        if new:
            made = _change(plan, x[new], [ids[k] for k in new])
            result[new] = made
            if not scratch.write([ids[k] for k in new], (made * 255).round_().to(torch.uint8)):
                self._drop()
        return result

    def made(self, plan: Planned) -> Made | None:
        """Where a transfer's adversarial images are kept for other targets; ``None``: there are no others."""
        key = transfer_key(plan)
        if key is None or self._awaited[key] < 1:
            return None
        if self._made is None or self._made[0] != key:
            self._forget()
            if self._awaited[key] > 1:
                self._made = key, Made()
        return self._made[1] if self._made else None

    def finish(self, plan: Planned) -> None:
        """A cell is complete; images that no other cell needs are let go."""
        change, transfer = change_key(plan), transfer_key(plan)
        self._awaited.subtract((change, transfer))
        if self._changed is not None and self._changed[0] == change and self._awaited[change] < 1:
            self._drop()
        if self._made is not None and self._made[0] == transfer and self._awaited[transfer] < 1:
            self._forget()

    def _drop(self) -> None:
        if self._changed is not None:
            self._changed[1].close()
        self._changed = None

    def _forget(self) -> None:
        if self._made is not None:
            self._made[1].close()
        self._made = None


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
