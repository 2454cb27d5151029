"""What a training leaves: the best weights on held-out images, the last ones, and a card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from aresbench.models.classifier import Classifier
from aresbench.store.files import write_atomic
from aresbench.training.card import make_card
from aresbench.training.journal import Journal
from aresbench.training.learner import Learner
from aresbench.training.split_norm import main_tensors
from aresbench.training.watch import HeldOut

WEIGHTS, LAST, CARD = "weights.safetensors", "last.safetensors", "card.json"
MEASURED = "held out"  # the entry of a weights file that says what was measured of it


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Args:
        folder: with ``weights.safetensors`` (the best on held-out images), ``last.safetensors``, ``card.json``,
            ``recipe.toml`` and ``log.jsonl``; ``load_model(str(folder))`` makes a classifier of it.
        card: what ``card.json`` says.
    """

    folder: Path
    card: dict[str, Any]

    def __repr__(self) -> str:
        held_out = self.card["held out"]
        if not held_out:
            return f"<{self.folder}: never measured>"
        return (
            f"<{self.folder}: clean {held_out['clean']:.1%}, robust {held_out['robust']:.1%} "
            f"({held_out['budget']}, {held_out['attack']}) on {held_out['n']} held-out images>"
        )


class Keeper:
    """Keeps the weights with the best robust accuracy on held-out images (clean accuracy where nothing attacks).

    Args:
        folder: of the training.
        learner: what learns.
    """

    def __init__(self, folder: Path, learner: Learner) -> None:
        self.folder, self.learner = folder, learner
        self.best: dict[str, Any] | None = None

    def judge(self, watched: HeldOut) -> list[dict[str, Any]]:
        """Measure the weights and their average; write those that are the best so far."""
        learner, recipe = self.learner, self.learner.recipe
        candidates: dict[str, Classifier] = {"trained": learner.classifier}
        if learner.average is not None:
            candidates["averaged"] = learner.average.module
        merits = ("robust", "clean") if learner.method.robust else ("clean", "robust")
        lines = []
        for name, spread in candidates.items():
            classifier = learner.spread.whole(spread)
            found = watched.measure(classifier, recipe.watch.attack, recipe.threat.budgets[0])
            line = {
                "weights": name,
                "step": learner.step,
                "epoch": round(learner.epoch, 2),
                "clean": found.clean,
                "robust": found.robust,
                "n": found.n,
                "attack": recipe.watch.attack,
                "budget": recipe.threat.budgets[0],
            }
            lines.append(line)
            if self.best is None or [line[key] for key in merits] > [self.best[key] for key in merits]:
                self.best = line
                self._write(WEIGHTS, classifier, {MEASURED: json.dumps(line)})
        return lines

    def finish(self, journal: Journal) -> Trained:
        """Write the last weights and the card."""
        self._write(LAST, self.learner.spread.whole(self.learner.classifier))
        card = make_card(self.learner, self.best, journal.seconds, journal.gradients)
        text = json.dumps(card, indent=2, ensure_ascii=False)
        self.learner.world.once(lambda: write_atomic(self.folder / CARD, text.encode()))
        return Trained(self.folder, card)

    def _write(self, name: str, classifier: Classifier, facts: dict[str, str] | None = None) -> None:
        path = self.folder / name
        self.learner.world.once(lambda: write_atomic(path, to_safetensors(_tensors(classifier), facts)))

    def load(self) -> None:
        """Go on: the best weights so far are those that lie in the folder, and they say what was measured of them.

        They may be younger than the checkpoint that the run goes on from, and are the best all the same.
        """
        self.best = self.learner.world.once(lambda: _measured(self.folder / WEIGHTS))


def _measured(path: Path) -> dict[str, Any] | None:
    """What kept weights say was measured of them; None where there are none that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            line: dict[str, Any] | None = json.loads((file.metadata() or {}).get(MEASURED, "null"))
    except (OSError, SafetensorError):
        return None
    return line


def _tensors(classifier: Classifier) -> dict[str, Tensor]:
    """The inner module's tensors, each with memory of its own."""
    state = main_tensors(classifier.module)
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
