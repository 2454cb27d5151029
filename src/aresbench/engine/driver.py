"""The one loop that drives every attack: fills the batch, steps, judges, lets finished images leave.

Images that finish (broken under ``break``, or out of steps) leave the batch and waiting ones take
their place, so that shapes stay nearly constant and nothing is computed for an image whose case is
closed. Because an attack's state is per image and random draws belong to the image, the result does
not depend on who shares the batch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aresbench.attacks import base, geometry, losses
from aresbench.attacks.base import Attack, Loss
from aresbench.core.errors import SpecError, did_you_mean
from aresbench.engine.judge import fooled
from aresbench.engine.prepare import OwnRandomState, Prepared
from aresbench.engine.problem import GOALS, EngineProblem, Ledger, streams_for
from aresbench.ops.memory import values_at_once

GPU_LOOK_EVERY = 4  # steps between two looks at who has finished; each look waits for the GPU

FINDINGS = ("prediction", "first_step", "first_query")  # of a confirmed break; -1 where there is none
COUNTS = ("forwards", "backwards", "zero_gradients", "nan_gradients", "rejected")


@dataclass(frozen=True)
class Job:
    """One image under one budget.

    Args:
        row: the image's place in the driver's ``x``.
        eps: the budget's size; ``inf`` for an unbounded search.
        label: text that keys the random streams besides the image (the rung's exact text).
        start_from: [C, H, W], where a warm start begins.
        enough: under ``minimise``, the distance at which the search ends: a nearer break would tell nothing new.
    """

    row: int
    eps: float
    label: str = ""
    start_from: Tensor | None = None
    enough: float = 0.0


@dataclass(frozen=True)
class Finished:
    """What one attempt came to.

    Args:
        job: the job done.
        verdict: ``broken``, ``resisted``, ``unconfirmed`` (the fast copy of the model was fooled
            and the model itself, asked again, was not, to the last step: a margin below float noise, or a
            model that draws), or ``no-start`` (the search could not begin).
        x_adv: [C, H, W], the offer kept (the image itself where nothing broke it).
        distance: of ``x_adv`` where broken, else ``inf``.
        prediction: the model's own prediction at ``x_adv`` where broken, else -1.
        margin: true logit (targeted: the target's) minus the best other at ``x_adv``
            where it was confirmed, else NaN.
        rounded: distance of ``x_adv`` rounded to 8-bit values where that too fools the model, else ``inf``.
    """

    job: Job
    verdict: str
    x_adv: Tensor
    distance: float
    prediction: int
    margin: float
    rounded: float
    first_step: int
    first_query: int
    forwards: int
    backwards: int
    zero_gradients: int
    nan_gradients: int
    rejected: int

    @property
    def broken(self) -> bool:
        return self.verdict == "broken"


def batch_for(x: Tensor, device: torch.device) -> int:
    """A batch size that suits the machine: memory traffic, not memory, limits a CPU."""
    return max(1, values_at_once(device) // max(1, x[0].numel()))


class Driver:
    """Runs one attack over images of one model.

    Args:
        model: the prepared classifier.
        attack: settings of the attack.
        x: [N, C, H, W] float32 in [0, 1], the images.
        y: [N] int64 labels after the class map.
        ids: one stable id per image.
        norm: ``linf``, ``l2``, ``l1`` or ``l0``.
        goal: ``break`` (stop at the first confirmed break inside the budget), ``minimise`` (look for
            the nearest break at any distance), ``maximise`` (all steps for all images, nothing judged).
        target: [N] int64, for a targeted attack.
        seed: the user's seed.
        batch: images in flight; default: what suits the machine.
        keep: under ``maximise``: the ``last`` or the ``best`` iterate by loss.
        loss: replaces the default loss (cross-entropy).
        component: text that keys the random streams; default: the name of the attack's class.
        rounding: also ask about each confirmed break in 8-bit values (one forward more).

    Raises:
        SpecError: the attack does not know this norm, or an unknown goal.
    """

    def __init__(
        self,
        model: Prepared,
        attack: Attack,
        x: Tensor,
        y: Tensor,
        ids: Sequence[str],
        *,
        norm: str,
        goal: str = "break",
        target: Tensor | None = None,
        seed: int = 0,
        batch: int | None = None,
        keep: str = "last",
        loss: Loss | None = None,
        component: str | None = None,
        rounding: bool = False,
    ) -> None:
        if goal not in GOALS:
            raise SpecError(f"unknown goal {goal!r}", did_you_mean(goal, GOALS) or f"goals are {', '.join(GOALS)}")
        if norm not in attack.norms:
            raise SpecError(
                f"{type(attack).__name__} does not attack under {norm}", f"it knows {', '.join(attack.norms)}"
            )
        self.model, self.attack, self.norm, self.goal, self.seed = model, attack, norm, goal, seed
        self.x, self.y, self.ids, self.target = x, y, ids, target
        self.keep, self.loss, self.rounding = keep, loss, rounding
        self.component = component or type(attack).__name__
        self.batch = batch or batch_for(x, model.device)
        self.look_every = 1 if model.device.type == "cpu" else GPU_LOOK_EVERY
        self.flush_seconds = 20.0

    def run(self, jobs: deque[Job]) -> Iterator[list[Finished]]:
        """Work through ``jobs``, yielding what is finished in groups; the caller may append more meanwhile.

        Nothing global is left changed: random state and gradient mode are put back.
        """
        live: tuple[EngineProblem, Any] | None = None
        flying: dict[int, Job] = {}
        leaving: list[Ledger] = []
        since = time.monotonic()
        serial = steps = 0
        ends: set[int] = set()  # values of ``steps`` at which somebody has made all steps: nobody makes more
        random_state = OwnRandomState(self.seed, self.model.device)
        while jobs or live is not None or leaving:
            taken: list[Job] = []
            try:
                with torch.no_grad(), random_state:
                    room = self.batch - (len(live[0]) if live else 0)
                    if jobs and (live is None or room >= max(1, self.batch // 4)):
                        taken = [jobs.popleft() for _ in range(min(room, len(jobs)))]
                        flying.update({serial + k: job for k, job in enumerate(taken)})
                        live = self._admit(taken, serial, live)
                        serial, taken = serial + len(taken), []
                        ends.add(steps + self.attack.steps_for(live[0]))
                    elif live is not None:
                        live = self._step(*live)
                        steps += 1
                    if live is not None and (steps % self.look_every == 0 or steps in ends):
                        live = self._dismiss(*live, leaving)
            except torch.cuda.OutOfMemoryError:
                if self.batch == 1:
                    raise
                self.batch = max(1, self.batch // 2)
                torch.cuda.empty_cache()
                jobs.extendleft(reversed(taken))  # not admitted yet
                if live is not None:  # begun again later; the same image draws the same numbers
                    jobs.extendleft(reversed([flying[r] for r in live[0].ledger.row.tolist()]))
                    live = None
                continue
            count = sum(len(book.row) for book in leaving)
            late = time.monotonic() - since > self.flush_seconds
            if count and (live is None or count >= self.batch or late):
                with torch.no_grad(), random_state:
                    finished = self._note(leaving, flying)
                leaving, since = [], time.monotonic()
                yield finished

    # -- one phase each -----------------------------------------------------------------------

    def _admit(self, jobs: list[Job], serial: int, live: tuple[EngineProblem, Any] | None) -> tuple[EngineProblem, Any]:
        index = torch.tensor([job.row for job in jobs])
        x = self.model.place(self.x[index])
        device = x.device
        starts = [job.start_from for job in jobs if job.start_from is not None]
        if starts and len(starts) < len(jobs):
            raise ValueError("either all jobs of a run start warm or none does")
        warm = self.model.place(torch.stack(starts)) if starts else None
        problem = EngineProblem(
            self.model,
            x,
            self.y[index].to(device),
            torch.tensor([job.eps for job in jobs], dtype=torch.float32, device=device),
            streams_for(self.seed, self.component, [j.label for j in jobs], [self.ids[j.row] for j in jobs], device),
            norm=self.norm,
            goal=self.goal,
            num_classes=self.model.num_classes,
            rows=torch.arange(serial, serial + len(jobs), device=device),
            target=None if self.target is None else self.target[index].to(device),
            start_from=warm,
            keep=self.keep,
            loss=self.loss,
            enough=torch.tensor([job.enough for job in jobs], dtype=torch.float32, device=device),
        )
        state = self.attack.start(problem)
        if live is None:
            return problem, state
        return live[0].concat(problem), base.concat(live[1], state)

    def _step(self, problem: EngineProblem, state: Any) -> tuple[EngineProblem, Any]:
        state = self.attack.step(problem, state)
        state.t = state.t + 1
        problem.t = state.t
        return problem, state

    def _dismiss(self, problem: EngineProblem, state: Any, leaving: list[Ledger]) -> tuple[EngineProblem, Any] | None:
        """Let finished images leave; those out of steps first offer what they still hold."""
        gone: list[Ledger] = []  # noted at the end: where memory runs out before, nothing has happened
        book = problem.ledger
        spent = (problem.t >= self.attack.steps_for(problem)) | book.lost
        unbroken = spent & ~book.lost
        if self.goal == "break":
            unbroken = unbroken & ~book.broken
        if bool(unbroken.all()):
            self.attack.finish(problem, state)
        elif bool(unbroken.any()):
            at = unbroken.nonzero().squeeze(1)
            part = problem.select(at)
            self.attack.finish(part, base.select(state, at))
            self._confirm(part, part.ledger.broken)
            gone.append(part.ledger)
            stay = (~unbroken).nonzero().squeeze(1)
            problem, state, spent = problem.select(stay), base.select(state, stay), spent[stay]
        done = spent
        if self.goal != "maximise":
            book = problem.ledger
            near = book.broken & ~spent
            if self.goal == "minimise":
                near = near & (book.distance <= geometry.allowance(problem.enough))
            self._confirm(problem, near)
            book.withdraw(near & ~book.confirmed)
            done = spent | (near & book.confirmed)
        left: tuple[EngineProblem, Any] | None = problem, state
        if bool(done.any()):
            out = problem.select(done.nonzero().squeeze(1))
            self._confirm(out, out.ledger.broken & ~out.ledger.confirmed)
            gone.append(out.ledger)
            stay = (~done).nonzero().squeeze(1)
            left = (problem.select(stay), base.select(state, stay)) if len(stay) else None
        leaving += gone
        return left

    def _confirm(self, problem: EngineProblem, claims: Tensor) -> None:
        """Ask the user's own module about claimed breaks, [N] bool."""
        book = problem.ledger
        at = claims.nonzero().squeeze(1)
        if not len(at):
            return
        logits = torch.cat([self.model.confirm(x) for x in book.best[at].split(self.batch)])
        goal = (problem.y if problem.target is None else problem.target)[at]
        sure = fooled(logits, goal, problem.target is not None)
        book.forwards[at] += self.model.draws
        book.prediction[at] = logits.argmax(1)
        book.margin[at] = losses.margin(logits, goal)
        book.confirmed[at] = sure
        book.doubted[at] |= ~sure

    def _round(self, book: Ledger, jobs: Sequence[Job]) -> None:
        """Do the confirmed breaks survive being stored in 8 bits?"""
        rows = torch.tensor([job.row for job in jobs])
        eps = torch.tensor([job.eps for job in jobs], dtype=torch.float32, device=book.best.device)
        for at in book.confirmed.nonzero().squeeze(1).split(self.batch):
            x0 = self.model.place(self.x[rows[at.cpu()]])
            x = _eight_bits(book.best[at], x0, eps[at], self.norm)
            goal = (self.y if self.target is None else self.target)[rows[at.cpu()]].to(x.device)
            logits = self.model.confirm(x)
            distance = geometry.distance(x, x0, self.norm)
            book.rounded[at] = torch.where(fooled(logits, goal, self.target is not None), distance, torch.inf)
            book.forwards[at] += self.model.draws

    def _note(self, leaving: list[Ledger], flying: dict[int, Job]) -> list[Finished]:
        """Write down what became of the images that left."""
        book = leaving[0]
        for other in leaving[1:]:
            book = book.concat(other)
        if self.rounding:
            self._round(book, [flying[serial] for serial in book.row.tolist()])
        facts = {
            name: getattr(book, name).tolist()
            for name in ("confirmed", "doubted", "lost", "margin", "distance", "rounded", *FINDINGS, *COUNTS)
        }
        finished = []
        for k, serial in enumerate(book.row.tolist()):
            sure = facts["confirmed"][k]
            finished.append(
                Finished(
                    job=flying.pop(serial),
                    verdict=_verdict(sure, facts["doubted"][k], facts["lost"][k]),
                    x_adv=book.best[k].detach(),
                    distance=facts["distance"][k] if sure else float("inf"),
                    margin=facts["margin"][k],
                    rounded=facts["rounded"][k],
                    **{name: facts[name][k] if sure else -1 for name in FINDINGS},
                    **{name: facts[name][k] for name in COUNTS},
                )
            )
        return finished


def _eight_bits(x: Tensor, x0: Tensor, eps: Tensor, norm: str) -> Tensor:
    """``x`` in 8-bit values: the nearest, or, where those lie outside the budget, the next ones towards ``x0``.

    A budget that is no whole number of grey levels (0.05 = 12.75/255) has its edge between two values, and under
    L2 half of all nearest images lie a hair outside the ball.
    """
    levels = x * 255
    nearest = levels.round() / 255
    noise = 1e-4  # 3.99999 levels away is 4
    inwards = torch.where(x >= x0, (levels + noise).floor(), (levels - noise).ceil()) / 255
    outside = geometry.distance(nearest, x0, norm) > geometry.allowance(eps)
    return torch.where(geometry.per_image(outside, x), inwards, nearest)


def _verdict(confirmed: bool, doubted: bool, lost: bool) -> str:
    if confirmed:
        return "broken"
    return "unconfirmed" if doubted else "no-start" if lost else "resisted"


@dataclass(frozen=True)
class Outcome:
    """What an attack came to, one entry per image, in the order given.

    Args:
        x_adv: [N, C, H, W], confirmed adversarial images; the image itself where none was found.
        broken: [N] bool.
        distance: [N] float, ``inf`` where not broken.
        prediction: [N] int64, the model's prediction at ``x_adv``; -1 where not broken.
        first_step: [N] int64, updates made when the image first broke; -1 where not.
        first_query: [N] int64, forwards made by then; -1 where not.
        forwards, backwards: [N] int64, what it cost.
        zero_gradients, nan_gradients: [N] int64, how often the gradient was all zero, or not finite.
        rejected: [N] int64, offers outside the budget or the box (a bug of the attack).
    """

    x_adv: Tensor
    broken: Tensor
    distance: Tensor
    prediction: Tensor
    first_step: Tensor
    first_query: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradients: Tensor
    nan_gradients: Tensor
    rejected: Tensor
    verdicts: tuple[str, ...]

    @classmethod
    def of(cls, finished: Sequence[Finished]) -> Outcome:
        """Gather attempts, one per image; they may come in any order."""
        ordered = sorted(finished, key=lambda f: f.job.row)

        def column(name: str, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.tensor([getattr(f, name) for f in ordered], dtype=dtype)

        return cls(
            x_adv=torch.stack([f.x_adv for f in ordered]).contiguous(),
            broken=column("broken", torch.bool),
            distance=column("distance", torch.float32),
            verdicts=tuple(f.verdict for f in ordered),
            **{name: column(name) for name in (*FINDINGS, *COUNTS)},
        )


def run_attack(
    model: Prepared,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    eps: float | Tensor,
    ids: Sequence[str] | None = None,
    label: str = "",
    **options: Any,
) -> Outcome:
    """Drive one attack over a batch of images under one budget (a size, or one per image).

    Args:
        model, attack, x, y, norm: as in ``Driver``; ``options`` are its other settings.
        eps: the budget's size in [0,1] units, a number or [N].
        ids: one per image; default: the images' places.
        label: text that keys the random streams besides the image id.
    """
    n = len(x)
    sizes = torch.as_tensor(eps, dtype=torch.float64).expand(n).tolist()
    driver = Driver(model, attack, x, y, ids or [str(k) for k in range(n)], norm=norm, **options)
    jobs = deque(Job(k, sizes[k], label) for k in range(n))
    return Outcome.of([finished for group in driver.run(jobs) for finished in group])
