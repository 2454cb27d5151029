"""T2T-ViT: a Vision Transformer whose tokens are merged from overlapping neighbours (Yuan et al., ICCV 2021)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

_TOKEN = 64  # channels of the tokens while they are being merged


class _TokenAttention(nn.Module):
    """One head of self-attention from wide tokens to narrow ones; the values take the place of the skipped input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(inputs, 3 * outputs, bias=False)
        self.proj = nn.Linear(outputs, outputs)
        self.scale = inputs**-0.5

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mixed: Tensor = v + self.proj(functional.scaled_dot_product_attention(q, k, v, scale=self.scale))
        return mixed


class _TokenTransformer(nn.Module):
    """The transformer layer of a tokens-to-token step: attention, then an MLP of the same width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(inputs)
        self.attn = _TokenAttention(inputs, outputs)
        self.norm2 = nn.LayerNorm(outputs)
        self.mlp = Mlp(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.norm1(x))
        merged: Tensor = x + self.mlp(self.norm2(x))
        return merged


class _TokensToToken(nn.Module):
    """An image as tokens: cut into overlapping patches, mixed, put together again, three times over."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention1 = _TokenTransformer(3 * 7 * 7, _TOKEN)
        self.attention2 = _TokenTransformer(_TOKEN * 3 * 3, _TOKEN)
        self.project = nn.Linear(_TOKEN * 3 * 3, width)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        tokens = functional.unfold(x, 7, stride=4, padding=2).transpose(1, 2)
        for attention, side in ((self.attention1, 4), (self.attention2, 8)):
            image = attention(tokens).transpose(1, 2).unflatten(2, (height // side, width // side))
            tokens = functional.unfold(image, 3, stride=2, padding=1).transpose(1, 2)
        projected: Tensor = self.project(tokens)
        return projected


def _sinusoids(places: int, width: int) -> Tensor:
    """Fixed position codes [1, places, width] (Vaswani et al., 2017): sines at even channels, cosines at odd ones."""
    channel = torch.arange(width)
    angle = torch.arange(places)[:, None] / 10000.0 ** (2 * (channel // 2) / width).double()
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())[None].float()


class T2TViT(nn.Module):
    """T2T-ViT with transformer layers in its tokens-to-token steps: RGB [N, 3, 224, 224] → logits [N, classes].

    Tensor names are those of the authors' checkpoints.

    Args:
        width: channels of a token.
        depth: transformer blocks.
        heads: attention heads of each block.
        classes: number of outputs.
        size: side of the input image in pixels, a multiple of 16.
    """

    pos_embed: Tensor

    def __init__(self, width: int, depth: int, heads: int, classes: int = 1000, size: int = 224) -> None:
        super().__init__()
        self.num_classes = classes
        self.tokens_to_token = _TokensToToken(width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", _sinusoids((size // 16) ** 2 + 1, width))
        norm: Any = partial(nn.LayerNorm, eps=1e-5)  # timm's own default is 1e-6
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_ratio=3, norm_layer=norm) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes], read from the class token."""
        tokens = self.tokens_to_token(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits
