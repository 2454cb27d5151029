"""How the model lies on the processes: whole on each of them, or a part on each (FSDP2)."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aresbench.core.errors import ModelError, SpecError
from aresbench.models.classifier import Classifier
from aresbench.training.world import World


class Spread(ABC):
    """What depends on where the weights lie.

    Attributes:
        model: [0,1] images → logits, for training passes: their gradients become those of all processes.
        seen: the same for attacks, which no other process knows of.
    """

    model: nn.Module
    seen: nn.Module

    @abstractmethod
    def exchanging(self, now: bool) -> AbstractContextManager[None]:
        """Training passes whose gradients are exchanged, or kept for later."""

    @abstractmethod
    def gathered(self) -> AbstractContextManager[None]:
        """All weights are at hand for many passes in a row; nothing is sent in between."""

    @abstractmethod
    def whole(self, classifier: Classifier) -> Classifier:
        """A classifier with all of its weights, to be measured and written; good until the next call."""

    @abstractmethod
    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """A module's state, whole, on every process."""

    @abstractmethod
    def fill(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Take over a whole state.

        Raises:
            ModelError: it belongs to a model of other tensors.
        """

    @abstractmethod
    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimiser's state, whole."""

    @abstractmethod
    def fill_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take over a whole state."""


class OnEach(Spread):
    """Every process holds the whole model (DDP); alone, there is nothing around it.

    Args:
        classifier: what learns.
        world: the processes.
        compiled: let torch compile the passes. Those of attacks and of training become graphs of their own, each made
            once: the shapes of a training never change.
    """

    def __init__(self, classifier: Classifier, world: World, compiled: bool) -> None:
        self.model = self.seen = classifier
        if world.size > 1:
            self.model = _distributed(classifier, world)
        self._ddp = self.model if world.size > 1 else None
        if compiled:
            self.model = cast(nn.Module, torch.compile(self.model, dynamic=False))
            self.seen = cast(nn.Module, torch.compile(classifier, dynamic=False))

    def exchanging(self, now: bool) -> AbstractContextManager[None]:
        if now or not isinstance(self._ddp, DistributedDataParallel):
            return nullcontext()
        return cast(AbstractContextManager[None], self._ddp.no_sync())

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def whole(self, classifier: Classifier) -> Classifier:
        return classifier

    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        return module.state_dict()

    def fill(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        _check_names(module, tensors)
        module.load_state_dict(tensors)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return optimizer.state_dict()

    def fill_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        optimizer.load_state_dict(state)


def _distributed(classifier: Classifier, world: World) -> DistributedDataParallel:
    """Torch's wrapping that exchanges gradients.

    Running statistics stay each process's own (they are brought together before measurements): sending them at every
    forward pass would overwrite in place what a second one needs. Where parameters may go without a gradient torch
    looks for them at every pass, instead of waiting for them. On CPUs it always does: then the order in which
    gradients are summed is the same from the first pass on, also of a resumed run.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)  # its successor is too new
        return DistributedDataParallel(
            classifier,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=world.device.type == "cpu" or has_spare_parameters(classifier),
        )


def has_spare_parameters(classifier: Classifier) -> bool:
    """Are there parameters that the logits do not depend on?"""
    modes = [(part, part.training) for part in classifier.modules()]
    parameters = [p for p in classifier.parameters() if p.requires_grad]
    assert classifier.preprocessing is not None
    x = torch.zeros(2, 3, *classifier.preprocessing.size, device=parameters[0].device)
    classifier.eval()
    with torch.enable_grad():
        slopes = torch.autograd.grad(classifier(x).sum(), parameters, allow_unused=True)
    for part, training in modes:
        part.training = training
    return any(slope is None for slope in slopes)


class InParts(Spread):
    """Each process holds a part of every weight, of its average and of the optimiser's state (FSDP2).

    Attacks gather the weights once and keep them until they end.

    Args:
        classifier: what learns.
        average: the moving average's classifier, spread likewise, or None.
        world: the processes.
    """

    def __init__(self, classifier: Classifier, average: Classifier | None, world: World) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._spare = copy.deepcopy(classifier)
        mesh = init_device_mesh(world.device.type, (world.size,))
        for module in filter(None, (classifier, average)):
            for block in [*_blocks(module), module]:
                fully_shard(block, mesh=mesh)
        self.model = self.seen = self._root = classifier

    def _groups(self) -> list[Any]:
        from torch.distributed.fsdp import FSDPModule

        return [part for part in self._root.modules() if isinstance(part, FSDPModule)]

    @contextmanager
    def exchanging(self, now: bool) -> Iterator[None]:
        for group in self._groups():
            group.set_requires_gradient_sync(now, recurse=False)
        yield

    @contextmanager
    def gathered(self) -> Iterator[None]:
        groups = self._groups()
        for group in groups:
            group.set_reshard_after_forward(False, recurse=False)
            group.set_reshard_after_backward(False, recurse=False)
            group.unshard()
        try:
            yield
        finally:
            for group in groups:
                group.reshard()
                group.set_reshard_after_forward(group is not self._root, recurse=False)
                group.set_reshard_after_backward(True, recurse=False)

    def whole(self, classifier: Classifier) -> Classifier:
        self._spare.load_state_dict(self.tensors(classifier))
        self._spare.train(classifier.training)
        return self._spare

    def tensors(self, module: nn.Module) -> dict[str, Tensor]:
        return {name: _full(value) for name, value in module.state_dict().items()}

    def fill(self, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        _check_names(module, tensors)
        set_model_state_dict(module, dict(tensors), options=StateDictOptions(full_state_dict=True))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_optimizer_state_dict(self._root, optimizer, options=whole)

    def fill_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        set_optimizer_state_dict(self._root, optimizer, state, options=StateDictOptions(full_state_dict=True))


def _full(value: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def local(value: Tensor) -> Tensor:
    """This process's part of a tensor that is spread; any other as it is."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def _blocks(module: nn.Module) -> list[nn.Module]:
    """Parts of a model that are gathered one after the other: none above an eighth of it, and no crumbs."""
    total = _size(module)

    def inside(part: nn.Module) -> Iterator[nn.Module]:
        for child in part.children():
            container = isinstance(child, nn.ModuleList | nn.ModuleDict)
            if container or (_size(child) > total / 8 and any(child.children())):
                yield from inside(child)
            elif _size(child) > total / 200:
                yield child

    return list(inside(module))


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _check_names(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """A checkpoint's tensors must be the very same as the module's."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    saved = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in {**own, **saved}:
        if own.get(name) != saved.get(name):
            raise ModelError(
                f"the checkpoint is of another model: {name} is {saved.get(name, 'not there')} in it and "
                f"{own.get(name, 'not there')} here",
                "begin anew in another folder with --out, or install the versions it was made with",
            )


def refuse_in_parts(world: World, compiled: bool, perturbed: bool, plain: bool) -> None:
    """Refuse what does not go with a model in parts.

    Args:
        world: the processes.
        compiled: are passes to be compiled?
        perturbed: are weights perturbed?
        plain: is the method one that derives once, and leaves the model's modules as they are?

    Raises:
        SpecError: it does not.
    """
    told = "engine.parallel = fsdp"
    if world.size == 1:
        raise SpecError(f"{told} spreads the model over processes, and there is one", "set engine.parallel = ddp")
    for wrong, words in (
        (compiled, "machine.compile"),
        (perturbed, "adversarial weight perturbation"),
        (not plain, "a method that derives twice, or changes the model's layers"),
    ):
        if wrong:
            raise SpecError(f"{told} does not go with {words}", "set engine.parallel = ddp")
