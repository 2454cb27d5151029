"""Fill one cell: pictures → corruption → clean verdict → ladder of attacks → rows, a window of shards at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aresbench.attacks import losses
from aresbench.core.budget import format_fraction, parse_fraction
from aresbench.core.errors import DataError, ModelError
from aresbench.core.threat import Adversary
from aresbench.engine.campaign import Campaign
from aresbench.engine.driver import Finished, batch_for
from aresbench.engine.judge import right
from aresbench.engine.ladder import Attempt, Move, breaking_rung, within
from aresbench.engine.pictures import Pictures
from aresbench.engine.plan import SHARD, Planned
from aresbench.engine.prepare import OwnRandomState, Prepared, prepared
from aresbench.engine.transfer import Made, surrogates

WINDOW_VALUES = 40_000_000  # float32 values of images held at once: 160 MB, 8 shards at 224 px
EXAMPLES = 6  # pictures kept per cell, the first of those asked for in published order


def fill(
    plan: Planned,
    pictures: Pictures,
    *,
    device: torch.device,
    batch: int | None,
    on_bad: str,
    advance: Callable[[int, str], None],
) -> list[tuple[str, str]]:
    """Compute the missing rows of a cell and store them; killed at any moment, the next call goes on.

    Returns (id, reason) of the images that could not be read.

    Args:
        plan: what to do.
        pictures: shared decoded images.
        device: where the model runs.
        batch: images in flight; default: what suits the machine.
        on_bad: ``raise`` or ``skip`` images that cannot be read.
        advance: called with the number of images complete in this call and what is being done.

    Raises:
        AresError: an unreadable image (under ``raise``), a model that fails, a store that cannot be written.
    """
    unreadable: list[tuple[str, str]] = []
    done = 0
    places = list(plan.missing)
    window = _window(plan, places)
    with ExitStack() as stack:
        models: _Models | None = None
        while places:
            x, good, bad = pictures.load(plan, window, on_bad)
            unreadable += bad
            places = places[len(window) :]
            done, ended = done + len(window), done
            window = _window(plan, places)
            pictures.read_ahead(plan, window, on_bad)
            if good:
                changed = pictures.changed(plan, x, good)
                models = models or _open_models(plan, changed[:2], device, stack)
                worker = _Worker(plan, models, x, changed, good, device, batch, pictures.made(plan))
                worker.run(partial(_advance_from, advance, ended))
            plan.cell.seal()
            advance(done, "")
    return unreadable


@dataclass(frozen=True)
class _Models:
    """The model of a cell, and of a transfer the one that its attacks see instead; ready for all windows."""

    target: Prepared
    surrogate: Prepared | None


def _open_models(plan: Planned, example: Tensor, device: torch.device, stack: ExitStack) -> _Models:
    attacked = plan.adversary is not None
    target = stack.enter_context(
        prepared(plan.model, example, class_map=plan.class_map, device=device, attacked=attacked)
    )
    seen = None
    if plan.surrogates:
        others, maps = zip(*plan.surrogates, strict=True)
        seen = stack.enter_context(surrogates(others, example, target, maps))
    return _Models(target, seen)


def _advance_from(advance: Callable[[int, str], None], base: int, count: int, what: str) -> None:
    advance(base + count, what)


def _window(plan: Planned, places: list[int]) -> list[int]:
    """The next images to work on: several shards, as many as fit the memory set aside."""
    if plan.preprocessing is not None:
        values = 3 * plan.preprocessing.size[0] * plan.preprocessing.size[1]
    else:
        for place in places:
            try:
                picture = plan.dataset.picture(place)
            except DataError:  # loading says so, or leaves it out where that is asked for
                continue
            values = 3 * picture.width * picture.height
            break
        else:
            return places
    return places[: max(SHARD, WINDOW_VALUES // values // SHARD * SHARD)]


class _Worker:
    """One window of one cell."""

    def __init__(
        self,
        plan: Planned,
        models: _Models,
        x: Tensor,
        changed: Tensor,
        places: list[int],
        device: torch.device,
        batch: int | None,
        made: Made | None,
    ) -> None:
        self.made = made
        self.plan, self.models, self.places, self.device, self.batch = plan, models, places, device, batch
        self.ids = [plan.dataset.ids[k] for k in places]
        self.shown = set(np.sort(plan.dataset.positions)[:EXAMPLES].tolist())
        self.original, self.x = x, changed
        self.y = plan.labels(places)
        self.accepted: list[set[int]] | None = None  # where several labels count as right
        if (accepted := plan.dataset.accepted) is not None:
            self.accepted = [{plan.class_map.target[label] for label in accepted[k]} for k in places]
        self.campaign: Campaign | None = None
        self.breaks: dict[int, dict[str, Finished]] = {}

    def run(self, advance: Callable[[int, str], None]) -> None:
        clean = self._judge_clean(self.models.target)
        if self.plan.adversary is not None:
            self.campaign = self._campaign(self.models.target, self.plan.adversary, self.models.surrogate)
            self._attack(self.campaign, clean["correct"], advance)
        self._write(clean)

    # -- the clean verdict --------------------------------------------------------------------

    def _judge_clean(self, model: Prepared) -> dict[str, np.ndarray]:
        """Prediction, top-5, margin and confidence on the images before any attack, from the model itself."""
        size = self.batch or batch_for(self.x, self.device)
        with OwnRandomState(self.plan.seed, self.device):
            answers = [[part.cpu() for part in model.judge(model.place(part))] for part in self.x.split(size)]
            logits, whole = map(torch.cat, zip(*answers, strict=True))
        if int(self.y.max()) >= logits.shape[1]:
            raise ModelError(
                f"{self.plan.model.name} has {logits.shape[1]} outputs, but labels reach {int(self.y.max())}",
                "check the number of classes of model and data",
            )
        prediction = logits.argmax(1)
        label = self.y if self.accepted is None else torch.where(self._accepts(prediction), prediction, self.y)
        return {
            "prediction": prediction.numpy(),
            "full_prediction": whole.numpy(),
            "top5": logits.topk(min(5, logits.shape[1]), dim=1).indices.numpy(),
            "margin": torch.nan_to_num(losses.margin(logits, label), nan=0.0).numpy(),
            "confidence": torch.nan_to_num(logits.softmax(1).amax(1), nan=0.0).numpy(),
            "correct": right(logits, label).numpy(),
        }

    def _accepts(self, prediction: Tensor) -> Tensor:
        """[N] is the prediction among the labels that count as right?"""
        assert self.accepted is not None
        pairs = zip(prediction.tolist(), self.accepted, strict=True)
        return torch.tensor([choice in labels for choice, labels in pairs])

    # -- the adversary ------------------------------------------------------------------------

    def _campaign(self, model: Prepared, adversary: Adversary, surrogate: Prepared | None) -> Campaign:
        """The adversary's attempts on these images, with those that an interrupted run has journalled."""
        plan = self.plan
        campaign = Campaign(
            model,
            adversary,
            plan.attacks,
            self.x,
            self.y,
            self.ids,
            seed=plan.seed,
            batch=self.batch,
            rounding=True,
            surrogate=surrogate,
            made=self.made,
        )
        place = {image_id: k for k, image_id in enumerate(self.ids)}
        for row in plan.cell.attempts().itertuples():
            if row.id in place:
                broken = row.verdict == "broken"
                distance, seen = (float(row.distance), int(row.adv_prediction)) if broken else (float("inf"), None)
                campaign.attempts[place[row.id]].append(Attempt(row.attack, row.eps, broken, distance, seen))
        return campaign

    def _attack(self, campaign: Campaign, correct: np.ndarray, advance: Callable[[int, str], None]) -> None:
        wrong = int((~correct).sum())
        for group in campaign.run(np.flatnonzero(correct).tolist()):
            rows = [self._record(finished, move, campaign.adversary) for finished, move in group]
            self.plan.cell.append("attempts", rows)
            advance(wrong + campaign.closed, group[-1][1].attack)

    def _record(self, finished: Finished, move: Move, adversary: Adversary) -> dict[str, Any]:
        """An attempt's row for the archive."""
        row = finished.job.row
        place = self.places[row]
        position = int(self.plan.dataset.positions[place])
        if finished.broken and position in self.shown:
            self.breaks.setdefault(row, {})[move.attack + "|" + move.eps] = finished
        timed = finished.broken and move.pinned  # only a cold run at a pinned budget says "step t of a T-step run"
        return {
            "id": self.ids[row],
            "position": position,
            "shard": position // SHARD,
            "attack": move.attack,
            "norm": adversary.ladder.norm,
            "eps": move.eps,
            "start": "cold",
            "pinned": move.pinned,
            "verdict": finished.verdict,
            "distance": finished.distance if finished.broken else None,
            "first_step": finished.first_step if timed else None,
            "first_query": finished.first_query if timed else None,
            "forwards": finished.forwards,
            "backwards": finished.backwards,
            "zero_gradients": finished.zero_gradients,
            "nan_gradients": finished.nan_gradients,
            "rejected": finished.rejected,
            "adv_prediction": finished.prediction if finished.broken else None,
            "survives_rounding": self._survives_rounding(finished, move, adversary.ladder.rungs),
            "seed": self.plan.seed,
        }

    @staticmethod
    def _survives_rounding(finished: Finished, move: Move, rungs: Sequence[Fraction]) -> bool | None:
        """Is the break, in 8-bit values, still one inside the budget it counts for? ``None`` where there is none."""
        rung = breaking_rung(rungs, [Attempt(move.attack, move.eps, finished.broken, finished.distance)])
        return within(finished.rounded, rungs[rung]) if rung < len(rungs) else None

    # -- rows ---------------------------------------------------------------------------------

    def _write(self, clean: dict[str, np.ndarray]) -> None:
        rows, examples = [], []
        for k, place in enumerate(self.places):
            position = int(self.plan.dataset.positions[place])
            row = {
                "id": self.ids[k],
                "position": position,
                "shard": position // SHARD,
                "label": int(self.y[k]),
                "prediction": int(clean["prediction"][k]),
                "top5": [int(c) for c in clean["top5"][k]],
                "margin": float(clean["margin"][k]),
                "confidence": float(clean["confidence"][k]),
                "correct": bool(clean["correct"][k]),
                "full_prediction": int(clean["full_prediction"][k]) if self.plan.class_map.outputs else None,
                **self._verdict(k, bool(clean["correct"][k])),
            }
            rows.append(row)
            if position in self.shown:
                examples.append(self._example(k, row))
        self.plan.cell.add_examples([e for e in examples if e is not None])
        self.plan.cell.append("images", rows)

    def _verdict(self, k: int, correct: bool) -> dict[str, Any]:
        """Breaking budget, distance and attack of one image, from its attempts alone."""
        nothing: dict[str, Any] = {
            "breaking_budget": None,
            "breaking_distance": None,
            "broken_by": None,
            "adv_prediction": None,
        }
        adversary = self.plan.adversary
        if adversary is None or self.campaign is None:
            return nothing
        if not correct:
            return {**nothing, "breaking_budget": "0", "breaking_distance": 0.0}
        attempts = self.campaign.attempts[k]
        rung = breaking_rung(adversary.ladder.rungs, attempts)
        breaks = [a for a in attempts if a.broken]
        if not breaks:
            return nothing
        nearest = min(breaks, key=lambda a: a.distance)
        out = {**nothing, "breaking_distance": nearest.distance}
        if rung < len(adversary.ladder.rungs):
            decided = [a for a in breaks if breaking_rung(adversary.ladder.rungs, [a]) == rung]
            order = (*adversary.attacks, adversary.bound)
            deciding = min(decided, key=lambda a: (order.index(a.attack), a.distance))
            out["breaking_budget"] = format_fraction(adversary.ladder.rungs[rung])
            out["broken_by"], out["adv_prediction"] = deciding.attack, deciding.prediction
        return out

    def _example(self, k: int, row: dict[str, Any]) -> dict[str, Any] | None:
        """Pictures for the gallery: the image, and what the threat made of it."""
        threat = self.plan.task.threat
        example: dict[str, Any] = {
            "id": row["id"],
            "label": row["label"],
            "prediction": row["prediction"],
            "adv_prediction": None,
            "eps": None,
            "attack": None,
            "clean_png": png(self.original[k]),
            "changed_png": None,
        }
        if threat.changes:
            example["changed_png"] = png(self.x[k])
        if self.campaign is None or row["breaking_budget"] in (None, "0"):
            return example
        finished = self._breaking_attempt(self.campaign, k, row)
        if finished is not None:
            example.update(
                adv_prediction=finished.prediction,
                eps=row["breaking_budget"],
                attack=row["broken_by"],
                changed_png=png(finished.x_adv),
            )
        return example

    def _breaking_attempt(self, campaign: Campaign, k: int, row: dict[str, Any]) -> Finished | None:
        """The attempt that decided an image's breaking budget; run again if an earlier process found it."""
        rungs = campaign.adversary.ladder.rungs
        place = rungs.index(parse_fraction(row["breaking_budget"]))
        for attempt in campaign.attempts[k]:
            if attempt.attack != row["broken_by"] or not attempt.broken:
                continue
            if breaking_rung(rungs, [attempt]) > place:
                continue
            kept = self.breaks.get(k, {}).get(attempt.attack + "|" + attempt.eps)
            if kept is not None:
                return kept
            again = campaign.again(k, Move(attempt.attack, parse_fraction(attempt.eps) if attempt.eps else None, False))
            return again if again.broken else None
        return None


def png(image: Tensor) -> bytes:
    """A [3, H, W] image in [0,1] as an 8-bit PNG (rounded to the nearest level)."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()
