"""How long a planned cell will take at most, from one timed step."""

from __future__ import annotations

import time

import torch

from aresbench.data.base import load_images
from aresbench.engine.driver import batch_for
from aresbench.engine.plan import Planned
from aresbench.engine.prepare import prepared


class Forecast:
    """Times for cells' full prices: every image, every step, nothing breaking early.

    One forward and one backward pass of each model at each size are timed on the first images, after a warm-up.
    Real runs are shorter by as much as images break early; decoding and corrupting pictures comes on top, and is
    small beside attacks.

    Args:
        device: where the models would run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pass: dict[tuple[object, ...], float] = {}

    def seconds_at_most(self, planned: Planned) -> float:
        """Time for one cell.

        Raises:
            DataError: the first image cannot be read.
        """
        if not planned.missing:
            return 0.0
        same = (planned.fingerprint, planned.preprocessing, planned.class_map)
        if same not in self._pass:
            self._pass[same] = _seconds_a_pass(planned, self.device)
        return self._pass[same] * planned.full_price


def _seconds_a_pass(planned: Planned, device: torch.device) -> float:
    x, _, _ = load_images(planned.dataset, list(planned.missing[:1]), planned.preprocessing, "raise")
    x = x.expand(min(batch_for(x, device), len(planned.missing)), *x.shape[1:])
    with prepared(planned.model, x[:2], class_map=planned.class_map, device=device) as model:
        x = model.place(x.clone()).requires_grad_()
        for _ in range(2):  # the first pass warms up
            began = time.monotonic()
            torch.autograd.grad(model(x).sum(), x)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return (time.monotonic() - began) / (2 * len(x))
