"""Transfer: an attack searches on surrogates, and the target judges what comes of it, once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack
from aresbench.core.classes import ClassMap
from aresbench.core.errors import ModelError, SpecError
from aresbench.engine.driver import Driver, Finished, Job
from aresbench.engine.judge import fooled
from aresbench.engine.prepare import OwnRandomState, Prepared, prepared
from aresbench.engine.scratch import Scratch


class _Mean(nn.Module):
    """The mean logits of several prepared models: an ensemble in logits (Dong et al., 2018)."""

    def __init__(self, models: Sequence[Prepared]) -> None:
        super().__init__()
        self._models = tuple(models)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        answers = [model(x.contiguous(memory_format=model.memory_format)).float() for model in self._models]
        return torch.stack(answers).mean(0)


@contextmanager
def surrogates(
    models: Sequence[nn.Module],
    example: Tensor,
    target: Prepared,
    class_maps: Sequence[ClassMap | None] | None = None,
) -> Iterator[Prepared]:
    """Surrogates as one ``Prepared`` classifier for the length of a ``with`` block: several are averaged in logits.

    Args:
        models: [0,1] images → logits, of the target's classes; afterwards they are as they were.
        example: [N, C, H, W], a few images (two are enough).
        target: the model they stand for.
        class_maps: which outputs of each take part; default: all.

    Raises:
        SpecError: there is none.
        ModelError: one has another number of classes, or cannot take the images.
    """
    if not models:
        raise SpecError("the list of surrogates is empty", "give a model, or a list of models")
    with ExitStack() as stack:
        ready = [
            stack.enter_context(prepared(model, example, class_map=class_map, device=target.device))
            for model, class_map in zip(models, class_maps or [None] * len(models), strict=True)
        ]
        for model, one in zip(models, ready, strict=True):
            if one.num_classes != target.num_classes:
                name = getattr(model, "name", type(model).__name__)
                raise ModelError(
                    f"the surrogate {name} tells {one.num_classes} classes apart, the model {target.num_classes}",
                    "a surrogate must know the same classes in the same order",
                )
        first = ready[0]
        yield first if len(ready) == 1 else replace(first, search=_Mean(ready), reduce=None, merged=0)


class Made:
    """What attacks made on a surrogate, kept for other targets: to the bit, since images are kept as they are."""

    def __init__(self) -> None:
        self._images: Scratch | None = None
        self._rest: dict[tuple[str, str, str], Finished] = {}
        self._full = False

    def find(self, component: str, job: Job, image_id: str) -> Finished | None:
        """What an attack made of an image at a budget, if it is known; the job becomes the one asked for."""
        key = (component, job.label, image_id)
        rest = self._rest.get(key)
        if rest is None or self._images is None:
            return None
        return replace(rest, job=job, x_adv=self._images.read([key])[0][0])

    def keep(self, component: str, ids: Sequence[str], made: Sequence[Finished]) -> None:
        """Keep what was made of some images; on a full disk nothing more is kept."""
        if self._full or not made:
            return
        if self._images is None:
            self._images = Scratch.open(made[0].x_adv.shape, torch.float32)
        keys = [(component, one.job.label, image_id) for one, image_id in zip(made, ids, strict=True)]
        if self._images is None or not self._images.write(keys, torch.stack([one.x_adv.cpu() for one in made])):
            self._full = True
            return
        nothing = torch.empty(0)
        self._rest.update(zip(keys, (replace(one, x_adv=nothing) for one in made), strict=True))

    def close(self) -> None:
        """Give the room back."""
        if self._images is not None:
            self._images.close()


class Transfer:
    """Stands where a ``Driver`` stands: the same jobs, the same findings, about a model that the attack never sees.

    The attack makes all its steps on the surrogate for every image; which of its points is kept is the attack's to
    say (``keeps``). The target is then asked once. What is counted as forwards was asked of the target; counts of
    bad gradients are the surrogate's.

    Args:
        model: the target, which judges.
        surrogate: what the attack sees instead, on the same device.
        attack: an attack that stays inside a budget.
        made: what the attack made of these images for another target; what is new is added.
        x, y, ids, norm, target, seed, batch, component, rounding: as in ``Driver``.

    Raises:
        SpecError: the attack looks for the nearest break, which on another model is none.
    """

    def __init__(
        self,
        model: Prepared,
        surrogate: Prepared,
        attack: Attack,
        x: Tensor,
        y: Tensor,
        ids: Sequence[str],
        *,
        norm: str,
        target: Tensor | None = None,
        seed: int = 0,
        batch: int | None = None,
        component: str | None = None,
        rounding: bool = False,
        made: Made | None = None,
    ) -> None:
        if attack.kind != "bounded":
            raise SpecError(
                f"{type(attack).__name__} looks for the nearest break, and just beyond it another model sees nothing",
                "take an attack that uses the whole budget, e.g. mim",
            )
        self.model, self.attack, self.norm, self.rounding = model, attack, norm, rounding
        self.x, self.y, self.ids, self.target, self.seed = x, y, ids, target, seed
        self.component, self.made = component or "", made
        self.search = Driver(
            surrogate,
            attack,
            x,
            y,
            ids,
            norm=norm,
            goal="maximise",
            target=target,
            seed=seed,
            batch=batch,
            keep=attack.keeps,
            component=component,
        )

    def run(self, jobs: deque[Job]) -> Iterator[list[Finished]]:
        """Work through ``jobs``, yielding what is finished in groups; the caller may append more meanwhile."""
        random_state = OwnRandomState(self.seed, self.model.device)
        while jobs:
            for group in self._known(jobs) or self._searched(jobs):
                for start in range(0, len(group), self.search.batch):
                    with torch.no_grad(), random_state:
                        judged = self._judge(group[start : start + self.search.batch])
                    yield judged

    def _known(self, jobs: deque[Job]) -> list[list[Finished]]:
        """What is known of these jobs already, taken out of them."""
        if self.made is None:
            return []
        known = [found for job in jobs if (found := self.made.find(self.component, job, self.ids[job.row]))]
        done = {id(found.job) for found in known}
        left = [job for job in jobs if id(job) not in done]
        jobs.clear()
        jobs.extend(left)
        return [known] if known else []

    def _searched(self, jobs: deque[Job]) -> Iterator[list[Finished]]:
        for group in self.search.run(jobs):
            if self.made is not None:
                self.made.keep(self.component, [self.ids[one.job.row] for one in group], group)
            yield group

    def _judge(self, made: list[Finished]) -> list[Finished]:
        rows = torch.tensor([finished.job.row for finished in made])
        x0, x = self.model.place(self.x[rows]), self.model.place(torch.stack([f.x_adv for f in made]))
        eps = torch.tensor([finished.job.eps for finished in made], device=x.device)
        goal = (self.y if self.target is None else self.target)[rows].to(x.device)
        low, high = geometry.extent(x)
        distance = geometry.distance(x, x0, self.norm)
        admissible = (low >= 0) & (high <= 1) & (distance <= geometry.allowance(eps))
        said, margin, reached = self._ask(x, goal)
        broken = reached & admissible
        asked = torch.full_like(goal, self.model.draws)
        rounded = torch.full_like(distance, torch.inf)
        if self.rounding and bool(broken.any()):
            at = broken.nonzero().squeeze(1)
            whole = (x[at] * 255).round_().div_(255)
            survives = self._ask(whole, goal[at])[2]
            rounded[at] = torch.where(survives, geometry.distance(whole, x0[at], self.norm), torch.inf)
            asked[at] += self.model.draws
        columns = zip(
            made,
            broken.tolist(),
            (reached & ~admissible).long().tolist(),
            distance.tolist(),
            said.tolist(),
            margin.tolist(),
            rounded.tolist(),
            asked.tolist(),
            x0,
            strict=True,
        )
        return [
            replace(
                finished,
                verdict="broken" if sure else "resisted",
                x_adv=finished.x_adv if sure else image,
                distance=far if sure else float("inf"),
                prediction=prediction if sure else -1,
                margin=lead,
                rounded=near,
                first_step=self.attack.total_steps if sure else -1,
                first_query=self.model.draws if sure else -1,
                forwards=cost,
                backwards=0,
                rejected=outside,
            )
            for finished, sure, outside, far, prediction, lead, near, cost, image in columns
        ]

    def _ask(self, x: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The target's predictions, margins, and whether it is fooled, [N] each."""
        logits = self.model.confirm(x)
        return logits.argmax(1), losses.margin(logits, goal), fooled(logits, goal, self.target is not None)
