"""The ladder's plan: pins first, bounds next, then just below the break; the answer is that of trying everything."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aresbench.core.threat import parse_threat
from aresbench.engine.ladder import Attempt, Move, breaking_rung, next_move

RUNGS = "[1, 2, 3, 4, 5, 6, 7, 8]/255"


def adversary(sizes: str = RUNGS, attacks: str = "pgd", bound: str = "fmn(steps=30)"):
    return parse_threat(f"adversary(linf, {sizes}, {attacks}, bound={bound})").adversary


def play(adv, strength: dict[str, float], bound_distance: float) -> tuple[int, list[Move]]:
    """Answer every move for an image that ``attack`` breaks from ``strength[attack]`` on (in 255ths)."""
    attempts: list[Attempt] = []
    moves: list[Move] = []
    while (move := next_move(adv, attempts)) is not None:
        moves.append(move)
        if move.rung is None:
            attempts.append(Attempt(move.attack, "", bound_distance < float("inf"), bound_distance / 255))
        else:
            broken = move.rung * 255 >= strength[move.attack]
            attempts.append(Attempt(move.attack, move.eps, broken, float(move.rung) if broken else float("inf")))
        assert len(moves) < 60, "the plan does not end"
    return breaking_rung(adv.ladder.rungs, attempts), moves


@given(
    strength=st.integers(10, 199).map(lambda k: k / 20 + 0.01),  # clear of the rungs: the tolerance is tested below
    slack=st.floats(0, 4),
    pins=st.sets(st.integers(1, 8)),
    bound=st.sampled_from(["fmn(steps=30)", "none"]),
)
def test_finds_the_breaking_rung_of_a_monotone_image(strength, slack, pins, bound):
    sizes = "[" + ", ".join(f"{k}{'*' if k in pins else ''}" for k in range(1, 9)) + "]/255"
    adv = adversary(sizes, bound=bound)
    found, moves = play(adv, {"pgd": strength}, strength + slack)
    expected = sum(k < strength for k in range(1, 9))
    assert found == expected
    tried = {m.rung for m in moves}
    for pin in pins:  # a pin at or below the break is never inferred
        if pin <= strength:
            assert Fraction(pin, 255) in tried
    assert len(moves) == len({(m.attack, m.rung) for m in moves}), "nothing is tried twice"


def test_a_tight_bound_costs_one_run():
    _, moves = play(adversary(), {"pgd": 4.5}, 4.6)
    assert [m.rung and m.rung * 255 for m in moves] == [None, 4]


def test_without_a_bound_the_open_stretch_is_halved():
    _, moves = play(adversary(bound="none"), {"pgd": 4.5}, float("inf"))
    assert len(moves) <= 4
    assert all(m.rung is not None for m in moves)


def test_every_attack_must_resist_before_a_rung_counts_as_resisted():
    found, _ = play(adversary(attacks="[pgd, square]"), {"pgd": 6, "square": 3}, 9)
    assert found == 2


def test_an_image_broken_below_a_pin_is_not_attacked_there():
    _, moves = play(adversary("[1*, 2, 4*]/255"), {"pgd": 0.5}, 1)
    assert [m.rung * 255 for m in moves] == [1]


def test_a_resumed_plan_goes_on_where_it_stopped():
    adv = adversary("[1, 2*, 3, 4, 5*, 6]/255")
    _, moves = play(adv, {"pgd": 3.5}, 3.9)
    attempts: list[Attempt] = []
    for move in moves:
        assert next_move(adv, list(attempts)) == move
        broken = move.rung is None or move.rung * 255 >= 3.5
        distance = 3.9 / 255 if move.rung is None else float(move.rung) if broken else float("inf")
        attempts.append(Attempt(move.attack, move.eps, broken, distance))


@pytest.mark.parametrize(("distance", "place"), [(2.0, 1), (2.0001, 2), (0.0, 0), (8.0, 7), (8.1, 8)])
def test_a_measured_distance_counts_for_the_rungs_at_or_above_it(distance, place):
    rungs = adversary().ladder.rungs
    assert breaking_rung(rungs, [Attempt("fmn", "", True, distance / 255)]) == place


SEARCH = "search(2/255, doublings=5, bisections=10)"


def by_the_book(strength: float) -> tuple[Fraction | None, list[Fraction]]:
    """The paper's search written out: double until it breaks, then ten bisections; (result, sizes tried)."""
    tried, low, high = [], Fraction(0), Fraction(2, 255)
    for _ in range(6):
        tried.append(high)
        if high * 255 >= strength:
            break
        low, high = high, high * 2
    else:
        return None, tried
    for _ in range(10):
        middle = (low + high) / 2
        tried.append(middle)
        low, high = (low, middle) if middle * 255 >= strength else (middle, high)
    return high, tried


@given(strength=st.floats(0.001, 80))
def test_a_search_goes_the_papers_way(strength):
    adv = adversary(SEARCH)
    assert adv.bound == "none"
    place, moves = play(adv, {"pgd": strength}, float("inf"))
    result, tried = by_the_book(strength)
    assert [m.rung for m in moves] == tried
    assert not any(m.pinned for m in moves)
    assert (adv.ladder.rungs[place] if place < len(adv.ladder.rungs) else None) == result


def test_a_search_asks_every_attack_and_does_not_prove_a_known_break_again():
    adv = adversary("search(2/255, doublings=2, bisections=2)", attacks="[pgd, square]")
    place, moves = play(adv, {"pgd": 99, "square": 5}, float("inf"))
    assert adv.ladder.rungs[place] * 255 == 5
    assert [(m.attack, m.rung * 255) for m in moves[:4]] == [("pgd", 2), ("square", 2), ("pgd", 4), ("square", 4)]
    near = [Attempt("pgd", "2/255", False, float("inf")), Attempt("square", "2/255", False, float("inf")),
            Attempt("pgd", "4/255", True, 2.9 / 255)]  # fmt: skip
    assert next_move(adv, near) == Move("pgd", Fraction(5, 2 * 255), False)  # 3/255 is known to break


def test_multiples_are_climbed_one_by_one():
    _, moves = play(adversary("search(1/255, multiples=32, bisections=1)"), {"pgd": 2.2}, float("inf"))
    assert [m.rung * 255 for m in moves] == [1, 2, 3, Fraction(5, 2)]


def test_an_attack_that_looks_for_the_nearest_break_runs_once_and_counts_for_every_rung():
    adv = adversary("[1*, 2*, 4*, 8*]/255", "[pgd, ddn]")
    minimal = frozenset({"ddn"})
    attempts: list[Attempt] = []
    moves: list[Move] = []
    while (move := next_move(adv, attempts, minimal)) is not None:
        moves.append(move)
        near = move.rung is None
        attempts.append(Attempt(move.attack, move.eps, near, 3 / 255 if near else float("inf")))
    assert [(m.attack, m.rung and m.rung * 255) for m in moves] == [("pgd", 1), ("ddn", None), ("pgd", 2)]
    assert moves[1].enough == pytest.approx(1 / 255), "beside others it may end inside the smallest rung"
    assert breaking_rung(adv.ladder.rungs, attempts) == 2
    alone = next_move(adversary("[1, 2]/255", "ddn", bound="none"), [], minimal)
    assert alone == Move("ddn", None, False, 0.0), "alone it is asked for distances"
