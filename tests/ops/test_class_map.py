"""Class maps on logits."""

from __future__ import annotations

import torch

from aresbench.core.classes import ClassMap
from aresbench.ops.class_map import Reduction


def test_outputs_are_chosen_merged_and_put_in_order():
    logits = torch.tensor([[1.0, 5.0, 3.0, -2.0], [0.0, -1.0, 7.0, 2.0]])
    reduced = Reduction(ClassMap((0, 1, 2), ((3,), (0, 2), (1,))))(logits)
    assert reduced.tolist() == [[-2.0, 3.0, 5.0], [2.0, 7.0, -1.0]]


def test_a_position_without_outputs_is_below_all():
    logits = torch.tensor([[1.0, 5.0, -3.0], [-4.0, -4.0, -4.0]])
    reduction = Reduction(ClassMap((0, 1), ((), (0, 1))))
    assert reduction(logits).tolist() == [[-4.0, 5.0], [-5.0, -4.0]]
    assert len(reduction) == 2


def test_the_gradient_goes_to_the_largest_of_a_class():
    logits = torch.tensor([[1.0, 5.0, 3.0]], requires_grad=True)
    Reduction(ClassMap((0, 1), ((0, 1), (2,))))(logits)[0, 0].backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 1.0, 0.0]]
