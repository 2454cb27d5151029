"""The processes of one training: who is who, and the few things they tell one another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from aresbench.core.errors import SpecError


@dataclass(frozen=True)
class World:
    """One process among ``size``; alone, nothing is ever sent.

    Args:
        rank: 0 … size - 1; process 0 writes the files.
        size: how many there are.
        device: where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.size > 1:
            values = values.to(self.device, copy=True)
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """Every process's tensor of the same shape, in the order of ranks, on each of them."""
        if self.size == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return parts

    def any(self, value: bool) -> bool:
        """Does any process say so?"""
        return value if self.size == 1 else bool(self.sum(torch.tensor(float(value))) > 0)

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(device: str | torch.device | None = None) -> Iterator[World]:
    """This process's place among those that torchrun or Slurm started; alone where neither did.

    torchrun sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``; ``srun`` sets ``SLURM_PROCID``, ``SLURM_NTASKS`` and
    ``SLURM_LOCALID`` (and needs ``MASTER_ADDR`` and ``MASTER_PORT``).

    Raises:
        SpecError: several processes, and no address at which they meet.
    """
    rank, size, local = _place()
    chosen = torch.device(device) if device is not None else _own_device(local)
    if size == 1:
        yield World(0, 1, chosen)
        return
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise SpecError(
                f"{size} processes were started, and {name} does not say where they meet",
                "start them with torchrun, or export MASTER_ADDR (the first node) and MASTER_PORT in the job's script",
            )
    mine = not dist.is_initialized()
    if mine:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        yield World(rank, size, chosen)
    finally:
        if mine:
            dist.destroy_process_group()


def _place() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as the launcher says."""
    for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")):
        if all(name in os.environ for name in names):
            rank, size, local = (int(os.environ[name]) for name in names)
            return rank, size, local
    return 0, 1, 0


def _own_device(local: int) -> torch.device:
    return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
