"""What attacks share that ask about many points around one: questions of a sane size, and slopes from differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Problem
from aresbench.ops.random import Streams

CPU_VALUES = 2_500_000  # asked about at once; more would fall out of the cache
GPU_VALUES = 64_000_000

Draw = Callable[[Streams, torch.Size, Tensor], Tensor]
"""(streams [M], shape of one image, [M] number of the draw) → [M, *shape]."""


def first_point(problem: Problem) -> tuple[Tensor, Tensor]:
    """Where a warm start says, else the image itself, and the model's answer there; it is offered."""
    x = problem.x
    if problem.start_from is not None:
        x = geometry.project(problem.start_from, x, problem.eps, problem.norm)
    logits = problem.query(x)
    problem.offer(x, logits)
    return x, logits


def paired_steps(queries: int, samples: int) -> int:
    """How many steps of ``samples`` points in pairs and one iterate fit into ``queries`` after the first point."""
    whole, rest = divmod(queries - 1, 2 * (samples // 2) + 1)
    return whole + (rest >= 3)


def pairs_at(t: Tensor, queries: int, samples: int) -> Tensor:
    """Pairs of points for step ``t``, [N]: half of ``samples``, fewer in a last step that would not fit."""
    full = samples // 2
    left = queries - 1 - t * (2 * full + 1)  # of which the step's own iterate takes one
    return ((left - 1) // 2).clamp(1, full)


def portions(most: int, x: Tensor, rows: int = 1) -> Iterator[Tensor]:
    """The numbers 0 … ``most`` - 1 in parts for which ``rows`` points each of every image of ``x`` fit one question."""
    values = CPU_VALUES if x.device.type == "cpu" else GPU_VALUES
    numbers = torch.arange(most, device=x.device)
    return iter(numbers.split(max(1, values // max(1, rows * x.numel()))))


def normals(streams: Streams, shape: torch.Size, number: Tensor) -> Tensor:
    """Standard normal values."""
    return streams.normal("sample", shape, number)


def signs(streams: Streams, shape: torch.Size, number: Tensor) -> Tensor:
    """+1 or -1, by the toss of a coin for each value."""
    return streams.signs("sample", shape, number)


def draws(streams: Streams, draw: Draw, shape: torch.Size, numbers: Tensor) -> Tensor:
    """[N, k, *shape], each keyed by its own number ([N, k]): the same whichever are drawn together."""
    rows = Streams.from_keys(streams.keys.repeat_interleave(numbers.shape[1]))
    return draw(rows, shape, numbers.flatten()).unflatten(0, numbers.shape)


def ask(problem: Problem, points: Tensor, wanted: Tensor, x: Tensor, logits: Tensor) -> Tensor:
    """The loss [N, k] at k points of each image, NaN where not ``wanted``; the best admissible one is offered.

    One offer an image is enough: the first break decides, and if any point breaks, the one of highest loss does.

    Args:
        points: [N, k, C, H, W] in the box; they may lie outside the ball.
        wanted: [N, k] bool; only these are asked about, and counted.
        x, logits: a point of each image that was offered before and the answer there; it stands in
            for images none of whose points is admissible.
    """
    n, k = wanted.shape
    rows = wanted.flatten().nonzero().squeeze(1)
    owner = rows // k
    asked = points.flatten(0, 1)[rows] if len(rows) < n * k else points.flatten(0, 1)
    if not problem.x.is_contiguous():
        asked = asked.contiguous(memory_format=torch.channels_last)
    answers = problem.query(asked, owner)
    found = losses.goal_margin(problem, owner)(answers, problem.y[owner])
    loss = torch.full((n * k,), torch.nan, device=found.device).index_copy_(0, rows, found)

    far = geometry.distance(asked, problem.x[owner], problem.norm)
    admissible = (far <= geometry.allowance(problem.eps[owner])) & torch.isfinite(found)
    score = torch.full_like(loss, -torch.inf).index_copy_(0, rows, torch.where(admissible, found, -torch.inf))
    value, best = score.view(n, k).max(1)
    has = value > -torch.inf
    place = torch.zeros(n * k, dtype=torch.int64, device=rows.device)
    place = place.index_copy_(0, rows, torch.arange(len(rows), device=rows.device))
    at = place[torch.arange(n, device=rows.device) * k + best]
    problem.offer(torch.where(geometry.per_image(has, x), asked[at], x), torch.where(has[:, None], answers[at], logits))
    return loss.view(n, k)


def slope(
    problem: Problem, x: Tensor, logits: Tensor, pairs: Tensor, first: Tensor, draw: Draw, radius: float, reach: float
) -> Tensor:
    """An estimate of the loss's gradient from differences between opposite points, the mean of f · v over pairs.

    A pair are the points c ± ``radius`` · v; f is the difference of their losses over 2 ``radius``, 0 where that
    is not finite. Values at the edge of the box would leave it on one side: c is ``x`` moved inwards by so much
    that they do not. The estimate has the gradient as its mean where v has mean 0 and covariance 1.

    Args:
        x, logits: [N, C, H, W], where, and the model's answer there.
        pairs: [N] int64, how many pairs are asked about.
        first: [N] int64, the number of each image's first draw.
        draw: makes v.
        radius: in [0,1] units.
        reach: how large a value of v gets (what little exceeds it is cut by the box).
    """
    total = torch.zeros_like(x)
    edge = min(radius * reach, 0.5)
    centre = x.clamp(edge, 1 - edge).unsqueeze(1)
    for part in portions(int(pairs.max()), x, rows=2):
        noise = draws(problem.streams, draw, x.shape[1:], first[:, None] + part)
        points = torch.cat((centre + radius * noise, centre - radius * noise), dim=1).clamp_(0, 1)
        wanted = part < pairs[:, None]
        up, down = ask(problem, points, torch.cat((wanted, wanted), dim=1), x, logits).chunk(2, dim=1)
        rise = torch.nan_to_num(up - down, nan=0.0, posinf=0.0, neginf=0.0)
        for each, way in zip(rise.unbind(1), noise.unbind(1), strict=True):  # one by one: no sum depends on the parts
            total.addcmul_(way, geometry.per_image(each, total))
    return total.div_(geometry.per_image(2 * radius * pairs, total))
