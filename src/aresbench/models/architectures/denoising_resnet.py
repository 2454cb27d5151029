"""A ResNet that denoises its feature maps by non-local means (feature denoising; Xie et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import Conv2dSame, create_pool2d
from torch import Tensor, nn
from torch.nn import functional


class _Denoise(nn.Module):
    """Every place becomes a weighted mean of all places, softmax over embedded similarities; then 1×1 conv, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embedding_theta = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.embedding_phi = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, values = (
            part.flatten(2).transpose(1, 2) for part in (self.embedding_theta(x), self.embedding_phi(x), x)
        )
        means = functional.scaled_dot_product_attention(theta, phi, values, scale=x.shape[1] ** -0.5)
        denoised: Tensor = x + self.bn(self.conv(means.transpose(1, 2).reshape(x.shape)))
        return denoised


class _Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution with batch norm, added to the input; the 3×3 one carries the stride."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = Conv2dSame(width, width, 3, stride, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        past = x if self.downsample is None else self.downsample(x)
        return functional.relu(past + self.bn3(self.conv3(inner)))


class DenoisingResNet(nn.Module):
    """A bottleneck ResNet with one denoising block at the end of each stage: RGB [N, 3, H, W] → logits [N, classes].

    As its TensorFlow original it pads like TensorFlow's "SAME" and turns RGB into BGR. Tensor names are those of
    ARES 2.0's checkpoint.

    Args:
        blocks: bottlenecks of each of the four stages; [3, 8, 36, 3] is ResNet-152.
        classes: number of outputs.
    """

    def __init__(self, blocks: Sequence[int], classes: int = 1000) -> None:
        super().__init__()
        self.num_classes = classes
        self.conv0, self.bn0 = Conv2dSame(3, 64, 7, 2, bias=False), nn.BatchNorm2d(64)
        self.pool0 = create_pool2d("max", 3, 2, padding="same")
        inputs = 64
        for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True)):
            first = _Bottleneck(inputs, width, 2 if stage else 1)
            inputs = 4 * width
            rest = [_Bottleneck(inputs, width, 1) for _ in range(count - 1)]
            self.add_module(f"group{stage}", nn.Sequential(first, *rest, _Denoise(inputs)))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes]."""
        x = self.pool0(functional.relu(self.bn0(self.conv0(x.flip(1)))))
        for stage in range(4):
            x = self.get_submodule(f"group{stage}")(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits
