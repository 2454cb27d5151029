"""Tensors of a checkpoint under the names that today's modules give them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from aresbench.core.errors import ModelError

# What data-parallel, compiled and wrapped models put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "basic_net.")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How some program names the tensors of its checkpoints.

    Args:
        drop: a pattern; what it finds is no part of the network.
        sign: a name that only this layout has; without it the names are taken for today's.
        rules: pattern and replacement, as ``re.sub`` takes them; each is applied to every name, in order.
    """

    drop: str = r"^$"
    sign: str = ""
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()

    def read(self, tensors: Tensors, module: nn.Module) -> Tensors:
        """The tensors by the names of ``module``, as far as this layout knows them."""
        kept = {k: v for k, v in tensors.items() if not re.search(self.drop, k)}
        kept = without_prefix(kept, {self.sign, *module.state_dict()})
        if self.sign not in kept:
            return kept
        return {self._today(name): value for name, value in kept.items()}

    def _today(self, name: str) -> str:
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name


def _one_less(match: re.Match[str]) -> str:
    return f"stages.{int(match[1]) - 1}."


LAYOUTS = {
    "": Layout(),
    # timm before 0.9: downsampling ends a stage of Swin (today it begins the next), and two fixed tables are stored.
    "timm-0.6-swin": Layout(
        drop=r"(relative_position_index|attn_mask)$",
        sign="layers.0.downsample.reduction.weight",
        rules=(
            (r"^layers\.(\d)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample."),
            (r"^head\.", "head.fc."),
        ),
    ),
    # The library robustness (Engstrom et al., 2019) stores the network twice, the second time inside its attacker.
    "robustness": Layout(drop=r"^(module\.)*(attacker|normalizer)\."),
    # Wide ResNets for CIFAR as usually written; TRADES and its heirs add an unused copy of the first stage.
    "wide-resnet": Layout(
        drop=r"(^|\.)sub_block1\.",
        sign="block1.layer.0.conv1.weight",
        rules=(
            (r"^conv1\.", "stem."),
            (r"^bn1\.", "norm."),
            (r"^fc\.", "head."),
            (r"^block(\d)\.layer\.", _one_less),
            (r"\.bn(\d)\.", r".norm\1."),
            (r"\.convShortcut\.", ".shortcut."),
        ),
    ),
    # PreActResNets for CIFAR as usually written.
    "preact-resnet": Layout(
        sign="layer1.0.conv1.weight",
        rules=(
            (r"^conv1\.", "stem."),
            (r"^bn\.", "norm."),
            (r"^linear\.", "head."),
            (r"^layer(\d)\.", _one_less),
            (r"\.bn(\d)\.", r".norm\1."),
            (r"\.shortcut\.0\.", ".shortcut."),
        ),
    ),
}


def without_prefix(tensors: Tensors, known: Collection[str]) -> Tensors:
    """Names without what wrappers put before every one of them, as long as none of them is a known one."""
    while not set(known) & set(tensors):
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in tensors)), None)
        if not tensors or prefix is None:
            break
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


def fill(path: Path, module: nn.Module, tensors: dict[str, Tensor], arch: str) -> None:
    """Load all tensors into the module, or say which do not fit.

    Raises:
        ModelError: names or shapes differ.
    """
    state = module.state_dict()
    missing = [k for k in state if k not in tensors and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in tensors if k not in state]
    if missing or unexpected:
        parts = [_listing("missing", missing), _listing("unexpected", unexpected)]
        raise ModelError(
            f"{path} does not fit {arch}: {'; '.join(p for p in parts if p)}",
            "name the architecture these weights were trained in",
        )
    wrong = [k for k in tensors if tensors[k].shape != state[k].shape]
    if wrong:
        key = wrong[0]
        got, want = list(tensors[key].shape), list(state[key].shape)
        if all(tensors[k].shape[1:] == state[k].shape[1:] for k in wrong) and len(wrong) <= 4:
            raise ModelError(
                f"{path} has {got[0]} classes and {arch} has {want[0]} ({key} is {got}, not {want})",
                "let the factory make a model with as many outputs as the checkpoint has",
            )
        raise ModelError(
            f"{path} does not fit {arch}: {len(wrong)} tensors differ in shape, first {key} ({got}, not {want})",
            "name the architecture these weights were trained in",
        )
    module.load_state_dict(tensors, strict=False)


def _listing(word: str, names: list[str]) -> str:
    shown = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
    return f"{len(names)} {word} ({shown})" if names else ""
