"""``ab.attack``: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from aresbench.attacks.base import Attack, Ensemble
from aresbench.attacks.load import members
from aresbench.core.budget import Ladder, parse_budget
from aresbench.core.errors import DataError, SpecError
from aresbench.core.spec import format_value, parse_call, split_top
from aresbench.core.threat import Adversary
from aresbench.corruptions.load import pixel_ids
from aresbench.engine.campaign import Campaign
from aresbench.engine.driver import COUNTS, FINDINGS, Finished
from aresbench.engine.judge import right
from aresbench.engine.ladder import Attempt, breaking_rung
from aresbench.engine.prepare import OwnRandomState, Prepared, prepared
from aresbench.engine.transfer import surrogates


@dataclass(frozen=True)
class Attacked:
    """What ``attack`` found, one entry per image, in the order given.

    Args:
        x_adv: [N, C, H, W], a confirmed adversarial image inside the smallest budget that broke it;
            the image itself where none was found or the model was wrong from the start.
        broken: [N] bool, broken inside the (largest) budget; never true for an image that the model
            gets wrong without any attack.
        correct: [N] bool, right on the image itself.
        breaking_budget: for each image the exact smallest rung that broke it; 0 for a clean error,
            ``None`` where every rung was resisted.
        distance: [N] float, of ``x_adv`` in the budget's norm; ``inf`` where not broken.
        prediction: [N] int64, at ``x_adv``; -1 where not broken.
        first_step, first_query: [N] int64, updates and forwards made in its attempt when the image
            broke; -1 where not.
        forwards, backwards: [N] int64, what it cost in all.
        zero_gradients, nan_gradients: [N] int64, how often the gradient was all zero or not finite.
        rejected: [N] int64, offers outside the budget (a bug of the attack).
    """

    x_adv: Tensor
    broken: Tensor
    correct: Tensor
    breaking_budget: tuple[Fraction | None, ...]
    distance: Tensor
    prediction: Tensor
    first_step: Tensor
    first_query: Tensor
    forwards: Tensor
    backwards: Tensor
    zero_gradients: Tensor
    nan_gradients: Tensor
    rejected: Tensor

    def __repr__(self) -> str:
        robust = (self.correct & ~self.broken).float().mean().item()
        clean = self.correct.float().mean().item()
        return f"<{len(self.broken)} images: clean accuracy {clean:.1%}, robust accuracy {robust:.1%}>"


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: str | Attack | Ensemble | Sequence[str | Attack | Ensemble] = "apgd-ce",
    budget: str | Ladder = "linf:4/255",
    *,
    target: Tensor | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    device: torch.device | str | None = None,
    batch: int | None = None,
    surrogate: nn.Module | Sequence[nn.Module] | None = None,
    **settings: object,
) -> Attacked:
    """Search the neighbourhood of images for ones that the model gets wrong.

    Images that the model gets wrong to begin with are not attacked. With several budgets, each image is
    attacked from the smallest up until it breaks (a search goes its own way); what breaks at one budget counts
    at all larger ones.
    The model comes back as it was: mode, gradients, buffers and device.

    Args:
        model: [0,1] RGB images → logits; a plain module must do its own normalisation.
        x: [N, C, H, W] float32 in [0, 1].
        y: [N] int64 labels.
        attack: name or spec (``aresbench list attacks``), or an attack object; ``settings`` are its settings.
            Of an ensemble or a list (``["apgd-ce", "square"]``) the worst case counts: each sees what is left.
        budget: ``linf:4/255``, ``l2:[0.25,0.5,1]``, ``linf:search(2/255, doublings=5, bisections=10)``, or a
            ``Ladder``. Minimal-norm attacks search at any distance once and are judged at every rung.
        target: [N] int64: ask for these predictions instead of any wrong one.
        seed: of the random draws; they belong to the image, whatever the batch.
        ids: one text per image that keys its draws; default: a hash of its pixels.
        device: where to run; default: where the model is.
        batch: images in flight; default: what suits the machine.
        surrogate: a transfer attack: the search sees only this model, or the mean logits of several, and makes
            all its steps; ``model`` is asked once at the end. ``forwards`` then counts what ``model`` was asked,
            ``backwards`` is 0, and counts of bad gradients are the surrogate's.

    Raises:
        DataError: images or labels of the wrong shape, type or range.
        SpecError: unknown attack, setting or norm.
        ModelError: a model that cannot take the images, or a surrogate of other classes.

    Example:
        >>> out = aresbench.attack(model, x, y, "pgd(steps=50)", "linf:[1,2,4,8]/255")
        >>> out.breaking_budget[0]
        Fraction(2, 255)
    """
    ladder = parse_budget(budget) if isinstance(budget, str) else budget
    adversary, attacks = _adversary(attack, settings, ladder)
    _check_inputs(x, y, target, ids)
    x = x.detach().cpu()
    y = y.detach().cpu().long()
    target = None if target is None else target.detach().cpu().long()
    names = list(ids) if ids is not None else pixel_ids(x)
    where = torch.device(device) if device is not None else next((p.device for p in model.parameters()), "cpu")
    with ExitStack() as stack:
        ready = stack.enter_context(prepared(model, x, device=where))
        seen = None
        if surrogate is not None:
            others = [surrogate] if isinstance(surrogate, nn.Module) else surrogate
            seen = stack.enter_context(surrogates(others, x, ready))
        correct = _right(ready, x, y, target, batch, seed)
        campaign = Campaign(
            ready, adversary, attacks, x, y, names, target=target, seed=seed, batch=batch, surrogate=seen
        )
        rows = correct.nonzero().squeeze(1).tolist()
        attempts: dict[int, list[Finished]] = {row: [] for row in rows}
        for group in campaign.run(rows):
            for finished, _ in group:
                attempts[finished.job.row].append(finished)
    return _gather(x, correct, ladder, attempts)


def _with_settings(attack: str | Attack | Ensemble, settings: dict[str, object]) -> str | Attack | Ensemble:
    """The spec with further settings written into it; the spec's reader then checks them all."""
    if not settings:
        return attack
    if not isinstance(attack, str):
        raise SpecError("an attack object already has its settings", "use dataclasses.replace, or name the attack")
    call = parse_call(attack)
    twice = [name for name in settings if name in call.kwargs]
    if twice:
        raise SpecError(f"{twice[0]!r} is given twice for {call.name}")
    texts = [*call.args, *(f"{k}={v}" for k, v in call.kwargs.items())]
    return f"{call.name}({', '.join([*texts, *(f'{k}={format_value(v)}' for k, v in settings.items())])})"


def _adversary(
    attack: str | Attack | Ensemble | Sequence[str | Attack | Ensemble], settings: dict[str, object], ladder: Ladder
) -> tuple[Adversary, dict[str, Attack]]:
    """Every rung in turn, from the smallest up (a search goes its own way), and the attacks by their texts."""
    if isinstance(attack, str) and attack.startswith("["):
        attack = split_top(attack[1:-1], ",")
    if isinstance(attack, str | Attack | Ensemble):
        parts = [_with_settings(attack, settings)]
    elif settings:
        raise SpecError("settings beside a list of attacks belong to none of them", "write them into the list's specs")
    else:
        parts = list(attack)
    attacks = {text: made for part in parts for text, made in members(part, ladder.norm).items()}
    if not attacks:
        raise SpecError("the list of attacks is empty", "name one, e.g. apgd-ce")
    if ladder.search is None:
        ladder = replace(ladder, pinned=frozenset(ladder.rungs))
    return Adversary(ladder, tuple(attacks), bound="none"), attacks


def _gather(x: Tensor, correct: Tensor, ladder: Ladder, attempts: dict[int, list[Finished]]) -> Attacked:
    blank = {"x_adv": None, "broken": False, "distance": float("inf"), **dict.fromkeys(FINDINGS, -1)}
    columns: dict[str, list] = {name: [] for name in (*blank, *COUNTS)}
    budgets: list[Fraction | None] = []
    for row in range(len(x)):
        done = attempts.get(row, [])
        last = min((f for f in done if f.broken), key=lambda f: f.distance, default=None)
        place = (
            len(ladder.rungs)
            if last is None
            else breaking_rung(ladder.rungs, [Attempt("", last.job.label, True, last.distance)])
        )
        rung = ladder.rungs[place] if place < len(ladder.rungs) else None
        budgets.append(rung if correct[row] else Fraction(0))
        for name, default in blank.items():
            columns[name].append(default if last is None or rung is None else getattr(last, name))
        for name in COUNTS:
            columns[name].append(sum(getattr(f, name) for f in done))
    pictures = [x[row] if found is None else found.cpu() for row, found in enumerate(columns.pop("x_adv"))]
    return Attacked(
        x_adv=torch.stack(pictures),
        correct=correct,
        breaking_budget=tuple(budgets),
        **{name: torch.tensor(values) for name, values in columns.items()},
    )


def _right(model: Prepared, x: Tensor, y: Tensor, target: Tensor | None, batch: int | None, seed: int) -> Tensor:
    """Which images the model gets right without any attack; labels it does not know are refused."""
    with OwnRandomState(seed, model.device):
        logits = torch.cat([model.confirm(model.place(part)).cpu() for part in x.split(batch or 64)])
    for name, labels in (("labels", y), ("targets", target)):
        if labels is not None and (int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]):
            raise DataError(
                f"{name} run from {int(labels.min())} to {int(labels.max())}, the model has {logits.shape[1]} outputs",
                "labels count from 0; check that data and model name the same classes",
            )
    return right(logits, y)


def _check_inputs(x: Tensor, y: Tensor, target: Tensor | None, ids: Sequence[str] | None) -> None:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise DataError("images and labels must be tensors", "for arrays write torch.from_numpy(x)")
    if x.ndim != 4 or not x.is_floating_point():
        raise DataError(
            f"images must be a float tensor [N, C, H, W], got {x.dtype} {tuple(x.shape)}",
            "divide 8-bit images by 255; add a batch dimension with x[None]",
        )
    if len(x) == 0:
        raise DataError("there are no images to attack")
    low, high = x.min().item(), x.max().item()
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"images must lie in [0, 1], these run from {low:.3g} to {high:.3g}",
            "divide 8-bit images by 255, and leave normalisation to the model: Classifier(module, mean=…, std=…)",
        )
    for name, labels in (("labels", y), ("targets", target)):
        if labels is None:
            continue
        if labels.shape != (len(x),) or labels.is_floating_point():
            raise DataError(f"{name} must be integers of shape [{len(x)}], got {labels.dtype} {tuple(labels.shape)}")
    if target is not None and bool((target.cpu() == y.cpu()).any()):
        raise DataError(
            f"{int((target.cpu() == y.cpu()).sum())} targets are the images' own labels",
            "ask for a class other than the label",
        )
    if ids is not None and len(ids) != len(x):
        raise DataError(f"{len(x)} images but {len(ids)} ids")
