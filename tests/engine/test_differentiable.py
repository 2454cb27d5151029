"""Logits with a graph: every way forth and back is counted, and what comes back is what ``gradient`` gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aresbench.attacks.losses import margin
from aresbench.engine.problem import EngineProblem
from aresbench.ops.random import Streams


def problem_of(model, n=3):
    x = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return EngineProblem(
        model, x, torch.zeros(n, dtype=torch.int64), torch.full((n,), 0.1), Streams(0, "test", list("abcdef")[:n]),
        norm="linf", goal="break", num_classes=4, rows=torch.arange(n),
    )  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 4)).requires_grad_(False)


def test_it_gives_the_gradients_of_gradient_one_forward_for_many_ways_back(model):
    problem, other = problem_of(model), problem_of(model)
    with torch.no_grad():  # as the driver calls it
        x = problem.x.clone().requires_grad_(True)
        logits = problem.differentiable(x)
        for k in range(1, 4):
            seed = torch.zeros_like(logits).index_fill_(1, torch.tensor([k]), 1.0)
            (mine,) = torch.autograd.grad(logits, x, seed, retain_graph=True)
            theirs = other.gradient(other.x, lambda z, y, k=k: z[:, k])[2]
            torch.testing.assert_close(mine, theirs)
    assert problem.ledger.forwards.tolist() == [1, 1, 1]
    assert problem.ledger.backwards.tolist() == [3, 3, 3]
    assert other.ledger.forwards.tolist() == [3, 3, 3]


def test_rows_count_for_their_owners_and_only_when_they_go_back(model):
    problem = problem_of(model)
    owner = torch.tensor([0, 0, 2])
    start = problem.x[owner].clone().requires_grad_(True)
    logits = problem.differentiable((start * 0.5 + 0.1).clamp(0, 1), owner)  # made of other things
    assert problem.ledger.forwards.tolist() == [2, 0, 1]
    assert problem.ledger.backwards.tolist() == [0, 0, 0]
    margin(logits, problem.y).sum().backward()
    assert problem.ledger.backwards.tolist() == [2, 0, 1]
    assert start.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())


class Blind(nn.Module):
    def forward(self, x):
        return torch.tensor([[2.0, 1.0, 0.0, 0.0]]).expand(len(x), 4)


class NaNSlope(nn.Module):
    def forward(self, x):
        u = (x - x.detach()).flatten(1).sum(1, keepdim=True).abs().sqrt()
        return torch.cat((u, u, u, u), dim=1)


class NaNAnswers(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 4), torch.nan) + 0 * x.sum()


@pytest.mark.parametrize(("kind", "column"), [(Blind, "zero"), (NaNSlope, "nan"), (NaNAnswers, "nan")])
def test_gradients_that_say_nothing_are_counted_and_come_back_as_zeros(kind, column):
    problem = problem_of(kind())
    x = problem.x.clone().requires_grad_(True)
    problem.differentiable(x)[:, 0].sum().backward()
    assert (x.grad == 0).all()
    other = {"zero": "nan", "nan": "zero"}[column]
    assert getattr(problem.ledger, f"{column}_gradients").tolist() == [1, 1, 1]
    assert getattr(problem.ledger, f"{other}_gradients").tolist() == [0, 0, 0]
