"""Attacks by text, and their text again."""

from __future__ import annotations

import pytest

from aresbench.attacks.apgd import APGDCE
from aresbench.attacks.fgsm import FGSM
from aresbench.attacks.fmn import FMN
from aresbench.attacks.load import describe, make, make_attack
from aresbench.attacks.mim import MIM
from aresbench.attacks.pgd import PGD
from aresbench.attacks.square import Square
from aresbench.core.errors import SpecError, UnknownName
from aresbench.core.registry import TABLES, card, table


@pytest.mark.parametrize(
    ("text", "attack", "canonical"),
    [
        ("fgsm", FGSM(), "fgsm"),
        ("pgd", PGD(), "pgd(steps=20)"),
        ("pgd( rel_step = 1/8 , steps=50)", PGD(steps=50, rel_step=0.125), "pgd(steps=50, rel_step=0.125)"),
        ("pgd(random_start=false)", PGD(random_start=False), "pgd(steps=20, random_start=false)"),
        ("apgd-ce(steps=50)", APGDCE(steps=50), "apgd-ce(steps=50)"),
        ("square", Square(), "square(queries=5000)"),
        ("fmn(alpha=2)", FMN(alpha=2), "fmn(steps=100, alpha=2.0)"),
        ("fmn(alpha=2.0)", FMN(alpha=2.0), "fmn(steps=100, alpha=2.0)"),
        ("fmn(alpha=1)", FMN(), "fmn(steps=100)"),
        ("dim", MIM(parts=("di",)), "dim(steps=10)"),
        ("dim(steps=20)", MIM(steps=20, parts=("di",)), "dim(steps=20)"),
        ("mim(parts=[di(prob=0.5)], steps=20)", MIM(steps=20, parts=("di",)), "dim(steps=20)"),
        ("dim(decay=2)", MIM(decay=2.0, parts=("di",)), "mim(steps=10, decay=2.0, parts=[di])"),
        (
            "mim(parts=[ti,vmi(samples=5, beta=2),di( prob=0.7 )])",
            MIM(parts=("di(prob=0.7)", "vmi(samples=5, beta=2.0)", "ti")),
            "mim(steps=10, parts=[di(prob=0.7), vmi(samples=5, beta=2.0), ti])",
        ),
    ],
)
def test_one_attack_has_one_text(text, attack, canonical):
    assert make_attack(text) == attack
    assert describe(make_attack(text)) == canonical
    assert make_attack(canonical) == attack


def test_the_card_of_an_object_tells_its_own_settings_and_text():
    plain, tuned = card("attacks", "mim"), card("attacks", "tta")
    assert "Targeted transfer" in tuned.summary
    assert "`mim(steps=300" in tuned.doc
    assert tuned.settings == plain.settings | {
        "steps": "300", "rel_step": "0.125", "loss": "'logit'", "parts": "('di(prob=0.7)', 'ti(size=5)')",
    }  # fmt: skip
    assert tuned.facts == plain.facts


def test_a_card_has_no_more_than_its_object_says(tmp_path, monkeypatch):
    (tmp_path / "shelf_of_attacks.py").write_text(
        OWN + "\n\nTWO = Mine(2)\nWHERE = 'nowhere'\nLAST = Mine(3, name='x')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for attribute, settings in (("TWO", 3), ("WHERE", 0), ("LAST", 3), ("nothing", 0)):
        monkeypatch.setitem(TABLES["attacks"], "own", f"shelf_of_attacks:{attribute}")
        seen = card("attacks", "own")
        assert (seen.summary, seen.doc, len(seen.settings)) == ("", "", settings), attribute


NO_DEFAULTS = ["cda"]  # whose generator only the user has


@pytest.mark.parametrize("name", [name for name in table("attacks") if name not in NO_DEFAULTS])
def test_every_registered_attack_has_defaults_and_an_honest_card(name):
    attack = make(name)
    assert make(attack) is attack
    assert make(describe(attack)) == attack
    facts = card("attacks", name).facts
    for fact in ("norms", "access", "kind", "revision", "paper", "choose_when"):
        assert facts[fact] == getattr(attack, fact), fact
    assert "\n" not in facts["choose_when"]


OWN = '''
from dataclasses import dataclass
from typing import ClassVar
from aresbench.attacks.base import Attack, State

@dataclass(frozen=True)
class Mine(Attack):
    """Does nothing."""
    strength: float
    words: tuple = ()
    name: str = "plain"
    norms: ClassVar = ("linf",)
    access: ClassVar = "score"
    kind: ClassVar = "bounded"
    revision: ClassVar = 1
    total_steps = 1
    def start(self, problem): return State(problem.y * 0)
    def step(self, problem, state): return state

not_an_attack = 3
'''


def test_an_attack_of_ones_own_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    attack = make_attack("./mine.py:Mine(strength=1/4, words=[1, 2], name='3')")
    assert (attack.strength, attack.words, attack.name) == (0.25, (1, 2), "3")
    assert describe(attack) == "./mine.py:Mine(strength=0.25, words=[1, 2], name='3')"
    assert make(describe(attack)) == attack
    assert hash(make_attack(describe(attack))) == hash(attack)
    assert make_attack("aresbench.attacks.pgd:PGD(steps=3)") == PGD(steps=3)
    assert make_attack("aresbench.attacks.mim:DIM(steps=3)") == MIM(steps=3, parts=("di",))
    with pytest.raises(SpecError, match="needs strength"):
        make_attack("./mine.py:Mine")
    with pytest.raises(SpecError, match="not an attack"):
        make_attack("./mine.py:not_an_attack")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("pgdd", UnknownName, "did you mean 'pgd'"),
        ("apgd", UnknownName, "'apgd-t'"),
        ("pgd(step=20)", SpecError, "did you mean 'steps'"),
        ("pgd(colour=red)", SpecError, "its settings are steps, rel_step, random_start"),
        ("fgsm(steps=3)", SpecError, "its settings are none"),
        ("pgd(20)", SpecError, r"write pgd\(steps=20\)"),
        ("pgd(steps=many)", SpecError, "whole number"),
        ("pgd(steps=20", SpecError, "never closed"),
        ("./nowhere.py:Mine", UnknownName, "no file"),
    ],
)
def test_mistakes_are_named_with_the_remedy(text, error, says):
    with pytest.raises(error, match=says):
        make_attack(text)
