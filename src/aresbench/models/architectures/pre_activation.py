"""Residual networks for 32×32 images that normalise before they convolve: Wide ResNets and PreActResNet-18."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from aresbench.core.errors import ModelError

Activation = Callable[[Tensor], Tensor]


class _Block(nn.Module):
    """Two 3×3 convolutions, each after batch norm and ReLU, added to the input.

    Where the shape changes, a 1×1 convolution leads past them: from the input as it is, or (``activated``) after the
    first norm and ReLU. ``activation`` stands in place of ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activated: bool, activation: Activation) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.activated = activated
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        ready = self.activation(self.norm1(x))
        past = x if self.shortcut is None else self.shortcut(ready if self.activated else x)
        added: Tensor = past + self.conv2(self.activation(self.norm2(self.conv1(ready))))
        return added


class _CosineHead(nn.Linear):
    """Logits are the cosines between the feature vector and one vector per class (Pang et al., 2020)."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(functional.normalize(x), functional.normalize(self.weight))


class PreActivationNet(nn.Module):
    """A residual network with pre-activation blocks (He et al., ECCV 2016): RGB [N, 3, H, W] → logits [N, classes].

    Args:
        stem: channels of the first 3×3 convolution.
        widths: channels of each stage; all but the first halve the resolution.
        blocks: residual blocks in each stage.
        activated: whether 1×1 shortcuts start after the norm and ReLU of their block.
        classes: number of outputs.
        hypersphere: features and class vectors of length 1, no bias.
        activation: in place of ReLU.
    """

    def __init__(
        self,
        stem: int,
        widths: Sequence[int],
        blocks: int,
        *,
        activated: bool,
        classes: int = 10,
        hypersphere: bool = False,
        activation: Activation = functional.relu,
    ) -> None:
        super().__init__()
        self.num_classes = classes
        self.activation = activation
        self.stem = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.stages = nn.Sequential()
        for i, (before, width) in enumerate(pairwise([stem, *widths])):
            first = _Block(before, width, 2 if i else 1, activated, activation)
            rest = [_Block(width, width, 1, activated, activation) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(first, *rest))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = _CosineHead(widths[-1], classes) if hypersphere else nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes]; the features are averaged over all places."""
        features = self.activation(self.norm(self.stages(self.stem(x)))).mean((2, 3))
        logits: Tensor = self.head(features)
        return logits

    def extra_repr(self) -> str:
        """Another activation than ReLU: part of the fingerprint, which weights alone do not show."""
        return "" if self.activation is functional.relu else f"activation={self.activation.__name__}"


def wide_resnet(
    depth: int,
    widen: int,
    classes: int = 10,
    hypersphere: bool = False,
    activation: Activation = functional.relu,
) -> PreActivationNet:
    """Wide ResNet WRN-``depth``-``widen`` for CIFAR (Zagoruyko and Komodakis, BMVC 2016).

    Args:
        depth: convolutions in all, 6·n + 4.
        widen: how many times wider than a thin ResNet.
        classes: number of outputs.
        hypersphere: features and class vectors of length 1 (Pang et al., NeurIPS 2020).
        activation: in place of ReLU.

    Raises:
        ModelError: no such depth.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ModelError(f"a Wide ResNet has 6·n + 4 layers, not {depth}", "WRN-28-10 and WRN-34-10 are usual")
    widths = [16 * widen, 32 * widen, 64 * widen]
    return PreActivationNet(
        16,
        widths,
        (depth - 4) // 6,
        activated=True,
        classes=classes,
        hypersphere=hypersphere,
        activation=activation,
    )


def preact_resnet18(classes: int = 10, activation: Activation = functional.relu) -> PreActivationNet:
    """PreActResNet-18 for CIFAR (He et al., ECCV 2016), its shortcuts as in Wong et al. (ICLR 2020).

    Args:
        classes: number of outputs.
        activation: in place of ReLU.
    """
    return PreActivationNet(64, [64, 128, 256, 512], 2, activated=False, classes=classes, activation=activation)
