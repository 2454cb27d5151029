"""Batch norms in two: the main ones, and auxiliary ones for attacked images (AdvProp; timm's split batch norm)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

_PARAMETERS, _STATISTICS = ("weight", "bias"), ("running_mean", "running_var", "num_batches_tracked")


@contextmanager
def auxiliary(module: nn.Module) -> Iterator[None]:
    """Let the auxiliary norms answer outside training, where the main ones would; where there are none, nothing."""
    pairs = _pairs(module)
    _swap(pairs)
    try:
        yield
    finally:
        _swap(pairs)


def main_parameters(module: nn.Module) -> list[nn.Parameter]:
    """A module's parameters without those of its auxiliary norms."""
    auxiliaries = {id(parameter) for _, aux in _pairs(module) for parameter in aux.parameters()}
    return [parameter for parameter in module.parameters() if id(parameter) not in auxiliaries]


def main_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's state without its auxiliary norms: it fits the architecture as it was before they were added."""
    inside = [f"{name}.aux_bn." for name, part in module.named_modules() if _is_split(part)]
    return {key: value for key, value in module.state_dict().items() if not key.startswith(tuple(inside))}


def _is_split(part: nn.Module) -> bool:
    from timm.layers.split_batchnorm import SplitBatchNorm2d

    return isinstance(part, SplitBatchNorm2d)


def _pairs(module: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Each main norm with its auxiliary one."""
    pairs = []
    for part in module.modules():
        if _is_split(part):
            assert isinstance(part.aux_bn, nn.ModuleList)
            pairs.append((part, part.aux_bn[0]))
    return pairs


def _swap(pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    """Change the places of parameters and statistics (not their values: optimiser and averages know the tensors)."""
    for main, aux in pairs:
        for name in _PARAMETERS:
            mine, other = getattr(main, name), getattr(aux, name)
            setattr(main, name, other)
            setattr(aux, name, mine)
        for name in _STATISTICS:
            mine, other = getattr(main, name), getattr(aux, name)
            setattr(main, name, other)
            setattr(aux, name, mine)
