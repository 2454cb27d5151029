"""The small convolutional network behind the committed digits models."""

from __future__ import annotations

from torch import Tensor, nn


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Convolution (3×3, stride 2) without bias, batch norm, ReLU: what every larger network is made of."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SmallCNN(nn.Module):
    """A three-layer CNN for 32×32 pictures, small enough to commit (34 thousand parameters).

    Input [N, 3, 32, 32], already normalised; output logits [N, ``num_classes``]. Three blocks of
    convolution (stride 2), batch norm and ReLU with 16, 32 and 64 channels, then one linear layer.

    Args:
        num_classes: number of logits.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(_block(3, 16), _block(16, 32), _block(32, 64))
        self.head = nn.Linear(64 * 4 * 4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of normalised images [N, 3, 32, 32]."""
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits
