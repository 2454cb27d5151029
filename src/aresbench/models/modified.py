"""Changes to an architecture before it is trained: smooth activations, a convolutional stem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from aresbench.core.errors import SpecError

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "silu": functional.silu}
_MODULES: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "silu": nn.SiLU}


def relu_to_smooth(module: nn.Module, kind: str) -> int:
    """Put a smooth activation in place of every ReLU and ReLU6; how many there were.

    Attacks find better points where the slope does not jump (Xie et al., "Smooth Adversarial Training", 2020.
    arXiv:2006.14536).

    Args:
        module: changed in place.
        kind: ``gelu`` or ``silu``.
    """
    count = 0
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU | nn.ReLU6):
            setattr(module, name, _MODULES[kind]())
            count += 1
        else:
            count += relu_to_smooth(child, kind)
    return count


@dataclass
class Watched:
    """How many ReLUs were applied while somebody watched."""

    count: int = 0


class _Relus(TorchDispatchMode):
    """Counts the ReLUs among the operations that torch carries out, whoever calls them."""

    NAMES = ("relu", "relu6", "hardtanh", "threshold")

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self.watched = watched

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.watched.count += func.overloadpacket.__name__.removesuffix("_") in self.NAMES
        return func(*args, **(kwargs or {}))


@contextmanager
def watched_relus() -> Iterator[Watched]:
    """Counts every ReLU applied inside, also where a forward calls it as a function."""
    watched = Watched()
    with _Relus(watched):
        yield watched


def put_convolutional_stem(module: nn.Module, name: str) -> str:
    """Let strided 3×3 convolutions cut an image into patches, instead of one wide one; the stem's place in ``module``.

    Each halves the resolution and is followed by layer norm and GELU; their widths double up to the patches' own.
    Shape and number of patches stay. In a ViT a 1×1 convolution follows, so that patches are linear in what they see
    last, as before (Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021. arXiv:2106.14881;
    for robustness: Singh, Croce and Hein, "Revisiting Adversarial Training for ImageNet", NeurIPS 2023.
    arXiv:2303.01870).

    Args:
        module: a ``VisionTransformer`` or ``ConvNeXt`` of timm, changed in place.
        name: for errors.

    Raises:
        SpecError: another architecture, or patches whose side is no power of 2.
    """
    from timm.models.convnext import ConvNeXt
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(module, VisionTransformer) and isinstance(old := module.patch_embed.proj, nn.Conv2d):
        layers = _halvings(old, name)
        module.patch_embed.proj = nn.Sequential(*layers, nn.Conv2d(old.out_channels, old.out_channels, 1))
        return "patch_embed.proj."
    if isinstance(module, ConvNeXt) and len(module.stem) == 2:
        module.stem = nn.Sequential(*_halvings(module.stem[0], name))
        return "stem."
    raise SpecError(
        f"model.stem = 'convolutional': {name} has no patch embedding that could be replaced",
        "it is for the ViT and ConvNeXt of timm; leave it empty",
    )


def _halvings(patchify: nn.Module, name: str) -> list[nn.Module]:
    """Convolutions that together do what ``patchify`` does at once."""
    from timm.layers import LayerNorm2d

    assert isinstance(patchify, nn.Conv2d)
    side, width = patchify.stride[0], patchify.out_channels
    count = side.bit_length() - 1
    if side != 2**count or count == 0:
        raise SpecError(
            f"model.stem = 'convolutional': {name} has patches of {side} pixels, which is no power of 2",
            "choose an architecture with patches of 4, 8, 16 or 32 pixels",
        )
    layers: list[nn.Module] = []
    before = patchify.in_channels
    for left in reversed(range(count)):
        after = max(1, width >> left)
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), LayerNorm2d(after), nn.GELU()]
        before = after
    return layers
