"""A curve is doubted where another task broke what it had left standing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from aresbench.report.weak_curves import weak_curves

INF = np.inf


def task(name: str, rungs: tuple[str, ...], breaking: list[float], pinned: tuple[str, ...] = (), norm: str = "l2"):
    """As much of a reading as is asked for."""
    series = pd.Series(breaking, index=[f"i{k}" for k in range(len(breaking))], dtype=float)
    return SimpleNamespace(
        name=name,
        rungs=rungs,
        pinned=pinned,
        norm=norm,
        breaking=series,
        plain_adversary=True,
        images=series.to_frame(),
    )


def curve(breaking: list[float]):
    return task("PGD curve", ("1", "2", "3", "4"), breaking)


def test_breaks_below_a_rung_that_was_resisted_speak_against_the_curve():
    strong = task("AutoAttack", ("2",), [0, 2, 2, 2, 2, INF], ("2",))
    ((model, name, said),) = weak_curves({"m": [curve([0, 1, INF, 4, 3, INF]), strong]})
    assert (model, name) == ("m", "PGD curve")
    assert said.startswith("at L2 2 AutoAttack broke 3 of the 4 images") and "too high" in said


def test_a_budget_between_rungs_is_held_against_the_next_one_only():
    """An image that broke at 3 and stood at 2 says nothing about 2.5."""
    strong = task("AutoAttack", ("2.5",), [2.5] * 6, ("2.5",))
    assert weak_curves({"m": [curve([3] * 6), strong]}) == []
    assert len(weak_curves({"m": [curve([4] * 6), strong]})) == 1


def test_few_images_other_norms_and_larger_budgets_say_nothing():
    stands = curve([INF] * 100)
    two = task("AutoAttack", ("2",), [2] * 2 + [INF] * 98, ("2",))
    four = task("AutoAttack", ("2",), [2] * 4 + [INF] * 96, ("2",))
    assert weak_curves({"m": [stands, two]}) == weak_curves({"m": [stands, four]}) == []
    for pinned, norm in (("2", "linf"), ("5", "l2")):
        other = task("AutoAttack", (pinned,), [float(pinned)] * 100, (pinned,), norm)
        assert weak_curves({"m": [stands, other]}) == []
    assert weak_curves({"m": [stands], "other": [task("AutoAttack", ("2",), [2] * 100, ("2",))]}) == []
