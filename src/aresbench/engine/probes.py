"""Second opinions on images that an adversary left standing: other losses, other eyes, other draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from aresbench.attacks import geometry, losses
from aresbench.attacks.base import Attack
from aresbench.attacks.load import describe
from aresbench.attacks.pgd import PGD
from aresbench.attacks.square import Square
from aresbench.engine.driver import Outcome, run_attack
from aresbench.engine.prepare import OwnRandomState, Prepared
from aresbench.engine.problem import EngineProblem
from aresbench.ops.random import Streams

SHORT = PGD(steps=10)
QUERIES = Square(queries=100, rescale_schedule=True)
TRACED = 10  # steps of the adversary's own attack that are watched
LEADS = (1.0, 10.0)  # the typical lead of the true class to which logits are rescaled
SAME_DIRECTION = 0.95  # cosine from which two gradients are one


@dataclass
class Cost:
    """What the probes cost, in passes of single images, and how long they took."""

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count a run of an attack."""
        self.forwards += int(outcome.forwards.sum())
        self.backwards += int(outcome.backwards.sum())


@dataclass(frozen=True)
class Standing:
    """Images that resisted an adversary at one budget, and what it takes to attack them again.

    Args:
        model: the prepared classifier.
        x: [N, C, H, W]; y: [N] labels after the class map; ids: one a row.
        norm, eps: the budget they resisted.
        seed: the run's.
        batch: images in flight.
        cost: counts every pass of every probe.
    """

    model: Prepared
    x: Tensor
    y: Tensor
    ids: list[str]
    norm: str
    eps: float
    seed: int
    batch: int | None
    cost: Cost

    def __len__(self) -> int:
        return len(self.x)

    def part(self, which: Tensor) -> Standing:
        """Only the images ``which`` [N] bool."""
        at = which.nonzero().squeeze(1)
        return replace(self, x=self.x[at], y=self.y[at], ids=[self.ids[k] for k in at.tolist()])

    def broken_by(self, attack: Attack, model: Prepared | None = None, seed: int | None = None) -> Tensor:
        """[N] bool: which images this attack breaks inside their budget (on ``model``'s search copy)."""
        outcome = run_attack(
            model or self.model,
            attack,
            self.x,
            self.y,
            norm=self.norm,
            eps=self.eps,
            ids=self.ids,
            goal="minimise" if attack.kind == "minimal" else "break",
            seed=self.seed if seed is None else seed,
            batch=self.batch,
            component=f"reliability|{describe(attack)}",
        )
        self.cost.add(outcome)
        return outcome.broken


class _Scaled(nn.Module):
    """The same answers with all logits times a factor: other gradients of the cross-entropy, no other argmax."""

    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits * self.factor


def rescaled(images: Standing) -> dict[str, Tensor]:
    """Which images break under PGD on the margin, and on logits rescaled to a typical lead of 1 and of 10."""
    model = images.model
    with torch.no_grad(), OwnRandomState(images.seed, model.device):
        lead = losses.margin(model(model.place(images.x)).float(), images.y.to(model.device))
    images.cost.forwards += len(images)
    typical = lead.abs().median().clamp(1e-30, 1e30).item()
    found = {"margin": images.broken_by(replace(SHORT, loss="margin"))}
    left = ~found["margin"]
    for wanted in LEADS:
        found[f"lead {wanted:g}"] = broken = torch.zeros_like(left)
        if left.any():
            scaled = replace(model, search=_Scaled(model.search, wanted / typical).eval())
            broken[left] = images.part(left).broken_by(SHORT, scaled)
            left = left & ~broken
    return found


def watched(images: Standing, attack: Attack) -> tuple[Tensor, Tensor, Tensor]:
    """How far the attack's first steps and as many random points of the budget take each image.

    Returns the lead of the best wrong class over the true one, in logits, [N] each: at the image, the largest
    among the points that the attack asked about, and the largest among the random points.
    """
    model = images.model
    x, y = model.place(images.x), images.y.to(model.device)
    streams = Streams(images.seed, "reliability|watched", images.ids, x.device)
    eps = torch.full((len(x),), images.eps, device=x.device)
    with torch.no_grad(), OwnRandomState(images.seed, model.device):
        at_start = -losses.margin(model(x).float(), y)
        problem = _Watched(
            model,
            x,
            y,
            eps,
            streams,
            norm=images.norm,
            goal="break",
            num_classes=model.num_classes,
            rows=torch.arange(len(x), device=x.device),
        )
        state = attack.start(problem)
        for _ in range(min(TRACED, attack.steps_for(problem))):
            state = attack.step(problem, state)
            state.t = state.t + 1
            problem.t = state.t
        attack.finish(problem, state)
        points = int(problem.ledger.forwards.max())
        random = torch.full_like(problem.lead, -torch.inf)
        for k in range(points):
            point = geometry.surface_start(x, eps, images.norm, streams, k)
            random = torch.maximum(random, -losses.margin(model(point).float(), y))
    images.cost.forwards += int(problem.ledger.forwards.sum()) + (points + 1) * len(x)
    images.cost.backwards += int(problem.ledger.backwards.sum())
    return at_start.cpu(), problem.lead.cpu(), random.cpu()


class _Watched(EngineProblem):
    """Nothing is judged: of what the attack offers only the largest lead of a wrong class is kept."""

    @property
    def lead(self) -> Tensor:
        """[N], the largest so far."""
        return self.__dict__.setdefault("_lead", torch.full_like(self.eps, -torch.inf))

    def offer(
        self, x: Tensor, logits: Tensor | None = None, owner: Tensor | None = None, step: Tensor | None = None
    ) -> None:
        if logits is None:
            logits = self.query(x, owner)
        lead = -losses.margin(logits, self._own(self.y, owner))
        lead = torch.nan_to_num(lead, nan=-torch.inf)
        mine = torch.arange(len(lead), device=lead.device) if owner is None else owner
        self.lead.scatter_reduce_(0, mine, lead, "amax")


def transferred(images: Standing) -> tuple[Tensor, float]:
    """Which images break under PGD through a copy whose gradient passes straight by all that comes before its layers.

    That is BPDA (Athalye et al. 2018) on whatever changes an image before the first layer sees it: answers
    stay what they are, gradients take the change for the identity. Where that is the model's own gradient anyway,
    nothing is attacked.

    Returns:
        [N] bool, and the median cosine between both gradients (NaN where there is no such layer).
    """
    nothing = torch.zeros(len(images), dtype=torch.bool)
    with _straight_through(images.model, images.x[:1]) as copy:
        if copy is None:
            return nothing, float("nan")
        cosine = _agreement(images, copy)
        if cosine > SAME_DIRECTION:
            return nothing, cosine
        return images.broken_by(SHORT, copy), cosine


@contextmanager
def _straight_through(model: Prepared, example: Tensor) -> Iterator[Prepared | None]:
    """A copy of the model in which the last module that receives something of an image's shape gets its gradient."""
    layer = _last_image_layer(model, example)
    if layer is None:
        yield None
        return
    outer = _Remembers(model.search)

    def pass_by(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        image = outer.image
        if image is None or inputs[0].shape != image.shape:
            return None
        return (inputs[0].detach() + (image - image.detach()), *inputs[1:])

    handle = layer.register_forward_pre_hook(pass_by)
    try:
        yield replace(model, search=outer.eval())
    finally:
        handle.remove()


class _Remembers(nn.Module):
    """Knows the image while the module looks at it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.image: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.image = x
        try:
            logits: Tensor = self.module(x)
            return logits
        finally:
            self.image = None


def _last_image_layer(model: Prepared, example: Tensor) -> nn.Module | None:
    """The module called last among those that receive a tensor of the image's shape first."""
    found: list[nn.Module] = []
    image = model.place(example)

    def look(module: nn.Module, inputs: tuple[object, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].shape == image.shape:
            found.append(module)

    hooks = [module.register_forward_pre_hook(look) for module in model.search.modules()]
    try:
        with torch.no_grad(), OwnRandomState(0, model.device):
            model.search(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1] if found else None


def _agreement(images: Standing, copy: Prepared) -> float:
    """Median cosine between the gradients of the margin through the model and through its copy; 0 where one is 0."""
    x, y = images.model.place(images.x), images.y.to(images.model.device)
    gradients = []
    for model in (images.model, copy):
        with OwnRandomState(images.seed, model.device):
            problem = EngineProblem(
                model,
                x,
                y,
                torch.zeros(len(x), device=x.device),
                Streams(images.seed, "reliability|cosine", images.ids, x.device),
                norm=images.norm,
                goal="break",
                num_classes=model.num_classes,
                rows=torch.arange(len(x), device=x.device),
            )
            gradients.append(problem.gradient(x, losses.LOSSES["margin"])[2].flatten(1).double())
        images.cost.forwards += len(x)
        images.cost.backwards += len(x)
    own, passed = gradients
    return float(torch.nn.functional.cosine_similarity(own, passed, dim=1).median())


def twice(model: Prepared, x: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
    """Logits [N, K] of two passes over the same images."""
    cost.forwards += 2 * len(x)
    single = replace(model, draws=1)
    with OwnRandomState(0, model.device):
        first, second = (single.confirm(model.place(x)).cpu() for _ in range(2))
    return first, second


def very_large(norm: str, x: Tensor) -> float:
    """A budget in which every image can become grey: half the range in every value."""
    values = x[0].numel()
    return {"linf": 0.5, "l2": 0.5 * values**0.5, "l1": 0.5 * values}.get(norm, float(values))
