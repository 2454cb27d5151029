"""Models trained by this package, from the folder that the training left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.classes import Classes
from aresbench.core.errors import ModelError, SpecError, UnknownName, did_you_mean
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from aresbench.models.classifier import Classifier

CARD = "card.json"
FORMAT = 1
_FILES = {"best": "weights.safetensors", "last": "last.safetensors"}


class TrainedSource(Source):
    """The folder of a training: ``models/mine``, or ``trained:models/mine``.

    Architecture, preprocessing and class names are those of its card. ``?weights=last`` takes the weights of the last
    update instead of those that were best on held-out images.
    """

    example: ClassVar[str] = "models/mine"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("weights",)

    def names(self) -> list[str]:
        """Nothing: the folders are the user's."""
        return []

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Build the architecture of the card and fill in the weights."""
        from aresbench.models.checkpoint import read_checkpoint
        from aresbench.models.classifier import Classifier
        from aresbench.models.state_dicts import fill
        from aresbench.models.trainable import build

        which = options.get("weights", "best")
        if which not in _FILES:
            raise SpecError(
                f"weights={which!r} of {rest}", did_you_mean(str(which), _FILES) or "write weights=best or weights=last"
            )
        folder = Path(rest).expanduser()
        card = _read_card(folder)
        made = build(Classes(*(tuple(card["classes"][key]) for key in ("names", "ids"))), **card["model"], initial="")
        path = folder / _FILES[which]
        fill(path, made.module, read_checkpoint(path).tensors, card["model"]["architecture"])
        name = folder.resolve().name + ("" if which == "best" else f"?weights={which}")
        mean, std = card["model"]["mean"], card["model"]["std"]
        facts = {**made.card, **_facts(card)}
        return Classifier(made.module, mean, std, made.classes, made.preprocessing, name, card=facts).eval()


def is_trained(folder: str) -> bool:
    """Did a training leave this folder?"""
    path = Path(folder).expanduser()
    return (path / CARD).is_file() or (path / "recipe.toml").is_file()


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        if (folder / "recipe.toml").is_file():
            raise ModelError(
                f"the training in {folder} has not ended: there is no {CARD} yet",
                f"aresbench train {folder / 'recipe.toml'} --out {folder} goes on with it",
            )
        raise UnknownName(f"no training has left its card in {folder}", "name the folder that `aresbench train` wrote")
    try:
        card: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if card["format"] != FORMAT:
            raise ModelError(f"{path} has format {card['format']}, this version reads {FORMAT}", "update aresbench")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no card of a training: {error!r}", "restore the file") from error
    return card


def _facts(card: Mapping[str, Any]) -> dict[str, Any]:
    """What reports show of a trained model."""
    training, held_out = card["training"], card["held out"]
    against = f" against {', '.join(training['budgets'])} ({training['attack']})" if training["budgets"] else ""
    notes = list(card["notes"])
    if held_out:
        notes.append(
            f"on {held_out['n']} held-out images: clean {held_out['clean']:.1%}, robust {held_out['robust']:.1%} "
            f"({held_out['budget']}, {held_out['attack']}); {held_out['note']}"
        )
    return {
        "paradigm": card["paradigm"],
        "training": f"{training['method']}{against} on {training['data']}, {training['epochs']} epochs",
        "recipe": f"{card['recipe']['name']} ({card['recipe']['hash']})",
        "paper": card["recipe"]["paper"],
        "contaminated": card.get("contaminated", {}),
        "notes": notes,
    }
