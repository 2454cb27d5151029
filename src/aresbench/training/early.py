"""What can be known to be wrong with a recipe before data are read and a model is built."""

from __future__ import annotations

from aresbench.attacks.load import make_attack, members
from aresbench.core.errors import AresError, SpecError, did_you_mean
from aresbench.training.learner import training_attack
from aresbench.training.methods.load import fitting_method
from aresbench.training.perturbation import make_perturbation
from aresbench.training.recipe import Recipe


def check(recipe: Recipe) -> None:
    """Make every component that a recipe names, and throw it away.

    Raises:
        SpecError, UnknownName: one of them does not exist, refuses a setting, or does not fit the rest.
    """
    from timm.optim import list_optimizers

    fitting_method(recipe)
    training_attack(recipe)
    make_perturbation(recipe.perturb)
    name, known = recipe.optimizer.name, [str(one) for one in list_optimizers()]
    if name not in known:
        raise SpecError(
            f"optimizer.name = {name!r} is no optimiser of timm", did_you_mean(name, known) or "write e.g. sgd or adamw"
        )
    for key, text in (("watch.attack", recipe.watch.attack), ("watch.rescue", recipe.watch.rescue)):
        try:
            members(text, recipe.threat.parsed[0].norm)
        except AresError as error:
            raise SpecError(f"{key}: {error.problem}", error.remedy) from None
    make_attack(recipe.watch.rescue)
