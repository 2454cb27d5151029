"""The card of trained weights: what made them, and what was measured on held-out images."""

from __future__ import annotations

import platform
from typing import Any

import torch

from aresbench import __version__
from aresbench.core.classes import Classes
from aresbench.metrics import wilson
from aresbench.training.learner import Learner
from aresbench.training.overlap import overlaps
from aresbench.training.recipe import Recipe, plain
from aresbench.training.split_norm import main_parameters

FORMAT = 1


def make_card(learner: Learner, best: dict[str, Any] | None, seconds: float, gradients: float) -> dict[str, Any]:
    """Everything a reader of the weights should know, ready for JSON.

    Args:
        learner: at its end.
        best: what was measured of the weights that were kept.
        seconds, gradients: time and image gradients of the whole training.
    """
    recipe = learner.recipe
    return {
        "format": FORMAT,
        "recipe": {"name": recipe.name, "title": recipe.title, "paper": recipe.paper, "hash": recipe.hash},
        "model": {key: value for key, value in plain(recipe.model).items() if key != "initial"},
        "classes": _classes(learner.classifier.classes),
        "parameters": sum(p.numel() for p in main_parameters(learner.classifier)),
        "paradigm": "adversarially trained" if learner.method.attacks else "normally trained",
        "training": {
            "data": recipe.data.train,
            "initial": recipe.model.initial or "random",
            "method": " + ".join(filter(None, (recipe.method, recipe.perturb))),
            "budgets": list(recipe.threat.budgets) if learner.method.attacks else [],
            "attack": recipe.threat.attack if learner.method.attacks else "",
            "epochs": recipe.schedule.epochs,
            "updates": learner.step,
            "batch": recipe.engine.batch,
            "processes": learner.world.size,
            "device": _device(learner.world.device),
            "hours": round(seconds / 3600, 4),
            "image gradients": int(gradients),
        },
        "held out": _with_intervals(best, recipe),
        "contaminated": overlaps(recipe.augment),
        "notes": [*learner.classifier.card["notes"], *learner.notes],
        "made with": {
            "aresbench": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _classes(classes: Classes | None) -> dict[str, list[str]]:
    assert classes is not None
    return {"names": list(classes.names), "ids": list(classes.ids)}


def _with_intervals(best: dict[str, Any] | None, recipe: Recipe) -> dict[str, Any]:
    """The accuracies of the kept weights with 95 % intervals, and the warning that belongs to them."""
    if best is None:
        return {}
    n = best["n"]
    ends = {
        f"{key} interval": [round(end, 4) for end in wilson(round(best[key] * n), n)] for key in ("clean", "robust")
    }
    chosen = "the best of all epochs on these images was kept, so the numbers flatter it a little"
    return {**best, **ends, "images": recipe.data.validation or f"{n} of {recipe.data.train}", "note": chosen}


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
