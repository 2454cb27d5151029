"""The processes of one training: who is who, and the few things they tell one another."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from aresbench.core.errors import AresError, SpecError

T = TypeVar("T")
_PORTS = 15_000, 20_000  # the lowest, and how many: below what systems hand out by themselves


@dataclass(frozen=True)
class World:
    """One process among ``size``; alone, nothing is ever sent.

    What lies in main memory is told over the network by the processors, so that a word between two updates does not
    wait for a GPU.

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
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """Every process's tensor of the same shape, in the order of ranks, on each of them."""
        if self.size == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return parts

    def any(self, *values: bool) -> tuple[bool, ...]:
        """For each question: does any process say yes?"""
        if self.size == 1:
            return values
        return tuple((self.sum(torch.tensor(values, dtype=torch.int32)) > 0).tolist())

    def once(self, work: Callable[[], T]) -> T:
        """What process 0 makes of ``work``, on every process, after it is done; its error is everybody's error.

        Nobody goes on, or away, while process 0 still writes a file.
        """
        if self.size == 1:
            return work()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = work()
            except AresError as error:
                told[1] = type(error), error.problem, error.remedy
                dist.broadcast_object_list(told, device=torch.device("cpu"))
                raise
        dist.broadcast_object_list(told, device=torch.device("cpu"))
        if told[1] is not None:
            kind, problem, remedy = told[1]
            raise kind(problem, remedy)
        result: T = told[0]
        return result


@contextmanager
def joined(device: str | torch.device | None = None) -> Iterator[World]:
    """This process's place among those that torchrun or Slurm started; alone where neither did.

    torchrun sets ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``; ``srun`` sets ``SLURM_PROCID``,
    ``SLURM_STEP_NUM_TASKS`` and ``SLURM_LOCALID``, from whose job the meeting point follows.

    Raises:
        SpecError: several processes, and no address at which they meet.
    """
    rank, size, local = _place()
    chosen = _own_device(device, local)
    if size == 1:
        yield World(0, 1, chosen)
        return
    meeting = _meeting_point(size)
    mine = not dist.is_initialized()
    if mine:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo",
            init_method=meeting,
            rank=rank,
            world_size=size,
        )
    try:
        yield World(rank, size, chosen)
    finally:
        if mine:
            dist.destroy_process_group()


def _place() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this machine, as the launcher says.

    ``SLURM_NTASKS`` is no sign: Slurm sets it in a batch script too, where a single process runs.
    """
    for names in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")):
        if all(name in os.environ for name in names):
            rank, size, local = (int(os.environ[name]) for name in names)
            return rank, size, local
    return 0, 1, 0


def _meeting_point(size: int) -> str:
    """Where process 0 waits for the others: as the environment says, or on the first node of the Slurm job."""
    given = os.environ
    if "MASTER_ADDR" in given and "MASTER_PORT" in given:
        return "env://"  # torchrun's own meeting place among others, which is open already
    # Process 0 runs on the step's first node. The launching node comes last: srun may be called from elsewhere.
    nodes = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST") or ""
    address = given.get("MASTER_ADDR") or first_host(nodes) or given.get("SLURM_LAUNCH_NODE_IPADDR")
    port = given.get("MASTER_PORT") or _port(given.get("SLURM_JOB_ID", ""), given.get("SLURM_STEP_ID", "0"))
    if address and port:
        return f"tcp://{address}:{port}"
    missing = "MASTER_PORT" if address else "MASTER_ADDR"
    raise SpecError(
        f"{size} processes were started, and {missing} does not say where they meet",
        "start them with torchrun or srun, or export MASTER_ADDR (the first node) and MASTER_PORT",
    )


def _port(job: str, step: str) -> int | None:
    """One port for all processes of a job's step, another for the next: they cannot ask one another yet."""
    lowest, count = _PORTS
    return lowest + (int(job) + 7919 * int(step)) % count if job.isdigit() and step.isdigit() else None


def first_host(nodes: str) -> str:
    """The first name of a Slurm list of nodes: ``gpu[007-010,12],login1`` begins with ``gpu007``."""
    found = re.match(r"([^,\[]*)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes.strip())
    return "".join(part or "" for part in found.groups()) if found else ""


def _own_device(device: str | torch.device | None, local: int) -> torch.device:
    """The device asked for; of several GPUs each process of a machine takes its own."""
    chosen = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    if chosen.type != "cuda" or chosen.index is not None:
        return chosen
    # Slurm may show each process a single GPU, which is then number 0 to all of them.
    return torch.device("cuda", local % max(1, torch.cuda.device_count()))
