"""SPSA beside torchattacks' on a committed digits model, for as many queries."""

from __future__ import annotations

import torch
import torchattacks

from aresbench.attacks.spsa import SPSA
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.engine.driver import run_attack
from aresbench.engine.prepare import prepared
from aresbench.metrics.paired import non_inferiority
from aresbench.models.load import load_model

EPS, LR, STEPS, PAIRS = 0.08, 0.03, 6, 50


def test_spsa_breaks_as_many_as_torchattacks_for_as_many_queries():
    model = load_model("samples:digits-plain").eval().requires_grad_(False)
    x, _, _ = load_images(load_dataset("digits")[:64], range(64), model.preprocessing)
    with torch.no_grad():
        y = model(x).argmax(1)
    queries = 1 + STEPS * (2 * PAIRS + 1)  # torchattacks does not ask about its iterates
    with prepared(model, x) as ready:
        mine = run_attack(ready, SPSA(queries=queries, samples=2 * PAIRS, lr=LR), x, y, norm="linf", eps=EPS)
    assert mine.forwards[~mine.broken].tolist() == [queries] * int((~mine.broken).sum())
    torch.manual_seed(0)
    peer = torchattacks.SPSA(model, eps=EPS, lr=LR, nb_iter=STEPS, nb_sample=PAIRS, max_batch_size=PAIRS)
    with torch.no_grad():
        theirs = model(peer(x, y)).argmax(1) != y
    verdict = non_inferiority(mine.broken, theirs, 0.01)
    assert 0.2 < theirs.float().mean() < 0.6
    assert verdict.p_inferior > 0.01, verdict
