"""Random numbers that belong to the image: keyed by (seed, purpose, image), counted, never a global state.

Each value is a pure function of its key and its place, so that the same image gets the same
numbers in any batch, order, shard or process. The mixing function is SplitMix64 (Steele, Lea
and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) on int64 tensors,
whose wrap-around arithmetic is equal to the bit on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that holds it."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def key_of(*words: object) -> int:
    """A signed 64-bit key of some words (BLAKE2b): stable across runs, machines and versions."""
    text = "\x1f".join(map(str, words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch shifts arithmetically)."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser; works in place on ``z``."""
    z ^= _shift(z, 30)
    z *= _MIX1
    z ^= _shift(z, 27)
    z *= _MIX2
    z ^= _shift(z, 31)
    return z


class Streams:
    """One random stream per image.

    Args:
        seed: the user's seed.
        component: who draws, e.g. ``"pgd"`` or ``"fog/3"``; streams of different components are independent.
        ids: one id per image.
        device: where the draws are made.

    All draws take ``purpose`` (a word), ``shape`` (without the image dimension) and ``step`` (an int,
    or an int64 tensor of shape [N] when images stand at different steps) and return [N, *shape].
    """

    def __init__(self, seed: int, component: str, ids: Sequence[str], device: torch.device | str = "cpu") -> None:
        keys = [key_of(seed, component, image_id) for image_id in ids]
        self.keys = torch.tensor(keys, dtype=torch.int64, device=device)

    @classmethod
    def from_keys(cls, keys: Tensor) -> Streams:
        """Streams of images whose keys are already known (a selection or a concatenation of others)."""
        streams = cls.__new__(cls)
        streams.keys = keys
        return streams

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, index: Tensor) -> Streams:
        """The streams of some of the images."""
        return Streams.from_keys(self.keys[index])

    def bits(self, purpose: str, count: int, step: int | Tensor = 0) -> Tensor:
        """[N, count] int64 of 64 random bits each."""
        base = self.keys ^ key_of("purpose", purpose)
        base = _mix(base + torch.as_tensor(step, device=base.device) * _MIX1)
        counter = torch.arange(1, count + 1, dtype=torch.int64, device=base.device) * _GOLDEN
        return _mix(base[:, None] + counter)

    def _halves(self, purpose: str, shape: Sequence[int], step: int | Tensor) -> Tensor:
        """[N, *shape] int64 in [0, 2^32): both halves of each 64-bit word are used."""
        count = math.prod(shape)
        words = self.bits(purpose, (count + 1) // 2, step)
        both = torch.stack((words & 0xFFFFFFFF, _shift(words, 32)), dim=2).flatten(1)
        return both[:, :count].reshape(len(self), *shape)

    def uniform(
        self, purpose: str, shape: Sequence[int], step: int | Tensor = 0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Uniform in [0, 1): multiples of 2^-24 (float32) or 2^-53 (float64)."""
        if dtype == torch.float64:
            words = self.bits(purpose, math.prod(shape), step)
            return (_shift(words, 11).to(torch.float64) * 2.0**-53).reshape(len(self), *shape)
        return (self._halves(purpose, shape, step) >> 8).to(torch.float32).mul_(2.0**-24)

    def normal(
        self, purpose: str, shape: Sequence[int], step: int | Tensor = 0, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Standard normal (Box and Muller 1958), computed in float64 and rounded to ``dtype``."""
        count = math.prod(shape)
        pairs = (count + 1) // 2
        if dtype == torch.float64:
            u = self.uniform(purpose, (2, pairs), step, torch.float64)
        else:  # one 64-bit word makes a pair: 32 bits reach 6.7 standard deviations, enough for float32
            u = self._halves(purpose, (2, pairs), step).to(torch.float64).mul_(2.0**-32)
        radius = (-2 * torch.log1p(-u[:, 0])).sqrt_()
        angle = u[:, 1] * (2 * math.pi)
        both = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)
        return both[:, :count].reshape(len(self), *shape).to(dtype)

    def integers(self, purpose: str, high: int | Tensor, shape: Sequence[int] = (), step: int | Tensor = 0) -> Tensor:
        """Uniform integers in [0, high), equal to the bit everywhere; ``high`` may be an int64 tensor [N].

        The multiply-shift map from 32 bits has a bias below high/2^32.
        """
        words = self._halves(purpose, shape, step)
        if isinstance(high, Tensor):
            high = high.reshape(-1, *([1] * len(shape)))
        return (words * high) >> 32

    def signs(self, purpose: str, shape: Sequence[int], step: int | Tensor = 0) -> Tensor:
        """Random signs as float32."""
        return (self.integers(purpose, 2, shape, step) * 2 - 1).to(torch.float32)
