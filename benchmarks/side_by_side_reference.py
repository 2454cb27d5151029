"""Short references from the papers' formulas, where no library at hand has the attack. One image at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Model = Callable[[Tensor], Tensor]


@torch.no_grad()
def nes(model: Model, x: Tensor, y: Tensor, eps: float, steps: int, samples: int, sigma: float = 1e-3) -> Tensor:
    """Sign ascent on antithetic Gaussian estimates of the margin's gradient (Ilyas et al., 2018, eq. 1-3)."""
    found = []
    for clean, label in zip(x, y, strict=True):
        now = clean.clone()
        for _ in range(steps):
            noise = torch.randn(samples // 2, *clean.shape)
            z = model(torch.cat([now + sigma * noise, now - sigma * noise]))
            others = z.clone()
            others[:, label] = -torch.inf
            margin = others.amax(1) - z[:, label]
            weights = (margin[: samples // 2] - margin[samples // 2 :]) / (samples * sigma)
            slope = torch.einsum("k,kchw->chw", weights, noise)
            now = (now + 0.15 * eps * slope.sign()).clamp(clean - eps, clean + eps).clamp(0, 1)
            if model(now[None]).argmax() != label:
                break
        found.append(now)
    return torch.stack(found)


@torch.no_grad()
def rays(model: Model, x: Tensor, y: Tensor, queries: int, tolerance: float = 1e-3) -> Tensor:
    """Flip the signs of dyadic blocks; keep a flip whose ray is adversarial nearer (Chen and Gu, 2020, alg. 1-3)."""
    found = []
    for clean, label in zip(x, y, strict=True):
        asked, size, way = 0, clean.numel(), torch.ones(clean.numel())

        def breaks(direction: Tensor, radius: float, clean: Tensor = clean, label: Tensor = label) -> bool:
            nonlocal asked
            asked += 1
            at = (clean + radius * direction.view_as(clean)).clamp(0, 1)
            return bool(model(at[None]).argmax() != label)

        best, level, block = float("inf"), 0, 0
        while asked < queries:
            width = -(-size // 2**level)
            trial = way.clone()
            trial[block * width : (block + 1) * width] *= -1
            if breaks(trial, min(best, 1.0)):
                low, high = 0.0, min(best, 1.0)
                while high - low > tolerance and asked < queries:
                    middle = (low + high) / 2
                    low, high = (low, middle) if breaks(trial, middle) else (middle, high)
                best, way = high, trial
            block += 1
            if block * width >= size:
                level, block = (level + 1 if width > 1 else 0), 0
        found.append((clean + min(best, 1.0) * way.view_as(clean)).clamp(0, 1))
    return torch.stack(found)


def momentum(
    x: Tensor, y: Tensor, eps: float, steps: int, slope: Callable[[Tensor, Tensor], Tensor], decay: float = 1.0
) -> Tensor:
    """Sign steps of eps / steps along the gathered gradients, each scaled to mean 1 (Dong et al., 2018, eq. 6-7)."""
    now, gathered = x.clone(), torch.zeros_like(x)
    for _ in range(steps):
        g = slope(now, y)
        gathered = decay * gathered + g / g.abs().flatten(1).mean(1).clamp_min(1e-30).view(-1, 1, 1, 1)
        now = (now + eps / steps * gathered.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return now


def gradient(model: Model, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(torch.nn.functional.cross_entropy(model(x), y, reduction="sum"), x)[0]


def vmi(
    model: Model, x: Tensor, y: Tensor, eps: float, steps: int = 10, samples: int = 20, beta: float = 1.5
) -> Tensor:
    """The gradient is corrected by how the last point's neighbourhood differed from it (Wang and He, 2021, alg. 1)."""
    variance = torch.zeros_like(x)

    def slope(now: Tensor, y: Tensor) -> Tensor:
        nonlocal variance
        g = gradient(model, now, y)
        corrected = g + variance
        around = (now + beta * eps * (2 * torch.rand_like(now) - 1) for _ in range(samples))
        variance = sum(gradient(model, point, y) for point in around) / samples - g
        return corrected

    return momentum(x, y, eps, steps, slope)


def di(model: Model, x: Tensor, y: Tensor, eps: float, steps: int = 10, prob: float = 0.5, grow: float = 1.1) -> Tensor:
    """Half the time the images grow by at most a tenth, are padded and taken back to size (Xie et al., 2019)."""
    side = x.shape[-1]
    full, resize = round(side * grow), torch.nn.functional.interpolate

    def changed(now: Tensor) -> Tensor:
        if torch.rand(()) >= prob:
            return now
        small = int(torch.randint(side, full + 1, ()))
        left, top = (int(torch.randint(0, full - small + 1, ())) for _ in range(2))
        resized = resize(now, (small, small), mode="bilinear", align_corners=False)
        padded = torch.nn.functional.pad(resized, (left, full - small - left, top, full - small - top))
        return resize(padded, (side, side), mode="bilinear", align_corners=False)

    return momentum(x, y, eps, steps, lambda now, y: gradient(lambda at: model(changed(at)), now, y))
