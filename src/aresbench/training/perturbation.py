"""Adversarial weight perturbation: learn where the weights themselves were moved to a worse place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from aresbench.attacks.settings import check_number
from aresbench.core.errors import SpecError
from aresbench.core.spec import parse_call, settings_of


@dataclass(frozen=True)
class AWP:
    """Before an update every layer's weights go γ · ‖w‖ up the slope of the objective (Wu, Xia and Wang, 2020).

    min_w max_v L(w + v) with ‖v_l‖ ≤ γ · ‖w_l‖ in each layer l: v is one step along the gradient of the method's
    very objective, of full length; the gradient at w + v then updates w. It flattens the loss around the weights,
    against robust overfitting. Weights of convolutions, linear layers and embeddings move; biases and
    normalisation layers do not.

    An update costs one training pass more. Where an update is worked through in parts, each part is perturbed by its
    own slope; of several processes, all move the weights the same way, by the mean of their slopes. (The authors'
    code updates the moved weights and takes v away afterwards; without weight decay that is the same.)

    Args:
        gamma: length of the move relative to the weights': 0.005 as with TRADES, 0.01 as with plain adversarial
            training.
        from_epoch: epochs of training before it begins.
    """

    gamma: float = 0.005
    from_epoch: float = 0.0

    paper: ClassVar[str] = (
        "D. Wu, S.-T. Xia and Y. Wang. Adversarial Weight Perturbation Helps Robust Generalization. NeurIPS 2020. "
        "arXiv:2004.05884"
    )
    choose_when: ClassVar[str] = "robust accuracy on held-out images falls while that on training images still rises"

    def __post_init__(self) -> None:
        check_number(self, "gamma")
        if not self.from_epoch >= 0:
            raise SpecError(f"from_epoch={self.from_epoch} of AWP", "from_epoch must be 0 or more")

    @contextmanager
    def applied(self, weights: Sequence[Tensor], slopes: Sequence[Tensor]) -> Iterator[None]:
        """Weights moved up their slopes; afterwards they are as before, to the bit.

        Args:
            weights: changed in place.
            slopes: as many, of the same shapes; a weight whose slope is 0 or no number stays.
        """
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                length = slope.norm()
                scale = torch.where(length > 0, self.gamma * weight.norm() / length, 0.0)
                weight.add_(torch.where(torch.isfinite(scale), scale, 0.0) * torch.nan_to_num(slope))
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, before in zip(weights, kept, strict=True):
                    weight.copy_(before)


def movable(module: nn.Module) -> list[nn.Parameter]:
    """The weights that are perturbed: those of more than one dimension that are called weights."""
    return [
        parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.ndim > 1 and name.rpartition(".")[2] == "weight"
    ]


@contextmanager
def unrecorded(module: nn.Module) -> Iterator[None]:
    """A training pass that leaves running statistics of batch norm as they are; it still uses the batch's own."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def make_perturbation(spec: str) -> AWP | None:
    """What a text such as ``awp(gamma=0.005)`` describes; ``None`` of an empty one.

    Raises:
        SpecError: it is no weight perturbation, or has a setting that is not known.
    """
    if not spec:
        return None
    call = parse_call(spec)
    if call.name != "awp":
        raise SpecError(f"perturb = {spec!r} is no weight perturbation", 'write perturb = "awp(gamma=0.005)"')
    return AWP(**settings_of(call, AWP, spec))
