"""Make a classifier ready for many fast passes, and leave the user's own model as it was.

Attacks work on a private copy: in eval mode, parameters frozen, convolution and batch norm merged,
channels-last where convolutions dominate. Merging is kept only if it changes no logit beyond float
noise on the images at hand.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aresbench.core.classes import ClassMap
from aresbench.core.errors import AresError, ModelError
from aresbench.ops.class_map import Reduction
from aresbench.ops.memory import keep_freed_memory

DRAWS = 20  # answers of a randomised model that judge one image


@dataclass
class Prepared:
    """A classifier as the engine uses it.

    Args:
        search: the fast private copy; attacks query it.
        reference: the user's module itself, in eval mode; breaks are confirmed on it.
        reduce: the class map, or ``None`` where the model's outputs stay as they are.
        device: where it runs.
        memory_format: layout of the images.
        num_classes: number of logits, after the class map.
        merged: number of batch-norm layers merged into convolutions.
        draws: how often the user's module is asked when it judges: 1, or ``DRAWS`` where it answers
            the same images differently each time.
    """

    search: nn.Module
    reference: nn.Module
    reduce: Reduction | None
    device: torch.device
    memory_format: torch.memory_format
    num_classes: int
    merged: int
    draws: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [N, K] of the fast copy, after the class map; of no images without asking: many a model fails."""
        return self._mapped(self.search(x)) if len(x) else x.new_zeros(0, self.num_classes)

    def confirm(self, x: Tensor) -> Tensor:
        """Logits [N, K] of the user's own module, after the class map; no gradient.

        Of a module that draws: the logarithm of its mean probabilities over ``draws`` answers, so that neither
        an attack nor a defence wins by one lucky draw.
        """
        return self.judge(x)[0]

    def judge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As ``confirm``, and [N] the model's choice among all of its outputs, before the class map."""
        if not len(x):
            return x.new_zeros(0, self.num_classes), x.new_zeros(0, dtype=torch.int64)
        with torch.no_grad():
            if self.draws == 1:
                whole = self.reference(x).float()
                return self._mapped(whole), whole.argmax(1)
            answers = [self.reference(x).float() for _ in range(self.draws)]
            mean, whole = (
                torch.stack([part.softmax(1) for part in parts]).mean(0)
                for parts in ([self._mapped(answer) for answer in answers], answers)
            )
            return mean.clamp_min(1e-30).log(), whole.argmax(1)

    def _mapped(self, logits: Tensor) -> Tensor:
        return logits if self.reduce is None else self.reduce(logits)

    def place(self, x: Tensor) -> Tensor:
        """Images on the device in the layout of the model."""
        return x.to(self.device).contiguous(memory_format=self.memory_format)


class OwnRandomState:
    """A random state for models that draw in their forward pass; the user's global state is put back each time.

    The state runs on from phase to phase, so that a stochastic defence does not show the attack the
    same draw at every step.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device if device.type == "cuda" else None
        self._states = self._read()
        with self:  # torch.manual_seed would also reseed every other device
            torch.default_generator.manual_seed(seed)
            if self.device is not None:
                with torch.cuda.device(self.device):
                    torch.cuda.manual_seed(seed)

    def _read(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return states if self.device is None else [*states, torch.cuda.get_rng_state(self.device)]

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device is not None:
            torch.cuda.set_rng_state(states[1], self.device)

    def __enter__(self) -> None:
        self._users = self._read()
        self._write(self._states)

    def __exit__(self, *exc: object) -> None:
        self._states = self._read()
        self._write(self._users)


@contextmanager
def prepared(
    classifier: nn.Module,
    example: Tensor,
    *,
    class_map: ClassMap | None = None,
    device: torch.device | str = "cpu",
    attacked: bool = True,
) -> Iterator[Prepared]:
    """A ``Prepared`` classifier for the length of a ``with`` block; afterwards everything is as before.

    Args:
        classifier: [0,1] images → logits.
        example: [N, C, H, W], a few images of the kind it will see (two are enough).
        class_map: how the outputs answer the labels.
        device: where to run.
        attacked: will attacks search? If not, the user's module itself stands in for the fast copy.
    """
    device = torch.device(device)
    if device.type == "cpu":
        keep_freed_memory()
    modes = {module: module.training for module in classifier.modules()}
    tensors = [*classifier.parameters(), *classifier.buffers()]
    home = tensors[0].device if tensors else device
    frozen: list[nn.Parameter] = []
    classifier.eval()
    if home != device:
        classifier.to(device)
    try:
        search, copied = _private_copy(classifier) if attacked else (classifier, False)
        if attacked:
            frozen = [] if copied else [p for p in search.parameters() if p.requires_grad]
            search.requires_grad_(False)
        layout = torch.channels_last if _mostly_convolutions(search) else torch.contiguous_format
        example = example[:2].to(device).contiguous(memory_format=layout)
        merged = 0
        reduce = Reduction(class_map) if class_map is not None and class_map.outputs else None
        with torch.no_grad(), OwnRandomState(0, device), _first_forward(classifier, example):
            if copied:
                search.to(memory_format=layout)
                merged, search = _merge_batch_norm(search, classifier, example)
            answers = [classifier(example) for _ in range(3)]
            outputs = answers[0].shape[1] if reduce is None else len(reduce)
            # Float noise of a GPU's sums is no draw.
            spread = max((a - answers[0]).abs().amax() for a in answers[1:])
            draws = DRAWS if spread > 1e-4 * answers[0].abs().amax() else 1
        if outputs < 2:
            raise ModelError(
                f"the model has {outputs} output, and nothing to choose between",
                "give one logit per class; for a single score s, return (s, -s)",
            )
        yield Prepared(search, classifier, reduce, device, layout, outputs, merged, draws)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training
        if home != device:
            classifier.to(home)


@contextmanager
def _first_forward(classifier: nn.Module, example: Tensor) -> Iterator[None]:
    """Say of a model that cannot take the images at all that it is the model's fault."""
    try:
        yield
    except (AresError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        name, shape = getattr(classifier, "name", type(classifier).__name__), list(example.shape)
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{name} fails on images of shape {shape}: {type(error).__name__}: {reason}",
            "call it by hand on such a batch; if the size is wrong, set it: Classifier(module, preprocessing=size)",
        ) from error


def _private_copy(classifier: nn.Module) -> tuple[nn.Module, bool]:
    """A deep copy, or the module itself where it cannot be copied (open sessions, generators)."""
    try:
        return copy.deepcopy(classifier), True
    except (TypeError, RuntimeError, NotImplementedError):
        return classifier, False


def _mostly_convolutions(module: nn.Module) -> bool:
    """Channels-last helps convolutional networks and not Transformers."""
    count = {True: 0, False: 0}
    for m in module.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            count[isinstance(m, nn.Conv2d)] += 1
    return count[True] > count[False]


def _merge_batch_norm(search: nn.Module, original: nn.Module, example: Tensor) -> tuple[int, nn.Module]:
    """Merge each batch norm into the convolution that feeds it; (number merged, module).

    Who feeds whom is seen by running the example and watching tensors go from one module to the
    other, so that no assumption about names or order is made. If the logits then differ by more
    than float noise (a convolution also used elsewhere), the merge is undone.
    """
    pairs = _find_pairs(search, example)
    if not pairs:
        return 0, search
    merged = copy.deepcopy(search)
    names = {id(m): name for name, m in search.named_modules()}
    for conv, norm in pairs:
        _merge_one(merged, names[id(conv)], names[id(norm)])
    with torch.no_grad():
        wanted = original(example)
        got = merged(example)
    if not torch.isfinite(got).all() or (got - wanted).abs().amax() > 1e-4 * wanted.abs().amax():
        return 0, search
    return len(pairs), merged


def _find_pairs(module: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.Module]]:
    produced: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []
    calls: dict[int, int] = {}

    def after_conv(conv: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        produced[id(output)] = (conv, output)  # the tensor is kept alive, so its id is not reused
        calls[id(conv)] = calls.get(id(conv), 0) + 1

    def before_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[id(norm)] = calls.get(id(norm), 0) + 1
        hit = produced.get(id(inputs[0]))
        if hit is not None:
            pairs.append((hit[0], norm))

    hooks = []
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            hooks.append(m.register_forward_hook(after_conv))
        elif _replacement(m) is not None:
            hooks.append(m.register_forward_pre_hook(before_norm))
    try:
        with torch.no_grad():
            module(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if calls[id(conv)] == calls[id(norm)] == 1 and _owns_weight(conv)]


def _owns_weight(conv: nn.Conv2d) -> bool:
    """Is the weight a plain parameter (not computed from others, as under weight or spectral norm)?"""
    return isinstance(conv._parameters.get("weight"), nn.Parameter)


def _replacement(norm: nn.Module) -> nn.Module | None:
    """What remains of a batch norm once its affine map is merged, or ``None`` for other modules."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
        return None
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    layers = sys.modules.get("timm.layers")
    if layers is not None and type(norm) is layers.BatchNormAct2d:
        drop, act = norm.drop, norm.act
        assert isinstance(drop, nn.Module)
        assert isinstance(act, nn.Module)
        return nn.Sequential(drop, act)
    return None


def _merge_one(root: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = root.get_submodule(conv_name), root.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * gain
    if norm.affine:
        gain = gain * norm.weight.double()
        shift = shift * norm.weight.double() + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * gain
    weight = (conv.weight.double() * gain[:, None, None, None]).to(conv.weight.dtype)
    layout = torch.channels_last if conv.weight.is_contiguous(memory_format=torch.channels_last) else None
    conv.weight = nn.Parameter(weight.contiguous(memory_format=layout) if layout else weight, requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
    parent, _, leaf = norm_name.rpartition(".")
    rest = _replacement(norm)
    assert rest is not None
    setattr(root.get_submodule(parent), leaf, rest)
