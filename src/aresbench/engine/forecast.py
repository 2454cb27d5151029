"""How long a planned cell will take at most, from one timed step."""

from __future__ import annotations

import time

import torch

from aresbench.data.base import load_images
from aresbench.engine.driver import batch_for
from aresbench.engine.plan import Planned
from aresbench.engine.prepare import prepared


def seconds_at_most(planned: Planned, device: torch.device) -> float:
    """Time for a cell's full price: every image, every step, nothing breaking early.

    One forward and one backward pass are timed on the first images, after a warm-up. Real runs are
    shorter by as much as images break early; decoding pictures comes on top and is small beside attacks.

    Raises:
        DataError: the first image cannot be read.
    """
    if not planned.missing:
        return 0.0
    x, _, _ = load_images(planned.dataset, list(planned.missing[:1]), planned.preprocessing, "raise")
    x = x.expand(min(batch_for(x, device), len(planned.missing)), *x.shape[1:])
    with prepared(planned.model, x[:2], class_map=planned.class_map, device=device) as model:
        x = model.place(x.clone()).requires_grad_()
        for _ in range(2):  # the first pass warms up
            began = time.monotonic()
            torch.autograd.grad(model(x).sum(), x)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        passes = 2 * len(x)
        return (time.monotonic() - began) / passes * planned.full_price
