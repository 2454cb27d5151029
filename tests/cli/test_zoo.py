"""The zoo on the command line: found by pattern, shown with its card, at once."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_a_pattern_finds_models_without_their_source(command: Any) -> None:
    listed = json.loads(command("list", "models", "swin*", "--json").out)
    assert len(listed) == 8
    assert {"zoo:swins_normal", "zoo:swinb_at", "zoo:swinl_21k"} < {one["name"] for one in listed}
    assert {one["facts"]["family"] for one in listed} == {"Swin"}


def test_a_model_is_shown_as_it_is_listed(command: Any) -> None:
    (listed,) = json.loads(command("list", "models", "zoo:swinb_at", "--json").out)
    assert json.loads(command("show", "zoo:swinb_at", "--json").out) == listed
    assert listed["facts"]["published"]["robustbench"]["autoattack"] == 56.16


def test_the_card_says_what_one_must_know(command: Any) -> None:
    said = command("show", "zoo:resnet152_fd").out
    for part in ("adversarially trained", "Feature Denoising", "verified       False", "never run with", "unclear"):
        assert part in said
    assert "RobustBench leaderboard" in command("show", "zoo:cifar10/trades").out


def test_an_unknown_model_is_refused_with_the_nearest(command: Any) -> None:
    said = command("show", "zoo:swinbat")
    assert said.status != 0
    assert "swinb_at" in said.err


def test_robustbenchs_models_are_listed_and_shown_without_its_package(command: Any) -> None:
    listed = json.loads(command("list", "models", "robustbench:*", "--json").out)
    assert len(listed) == 206
    shown = json.loads(command("show", "robustbench:imagenet/linf/Peng2023Robust", "--json").out)
    assert shown in listed and shown["facts"]["published"]["robustbench"]["clean"] == 73.44
    assert shown["facts"]["preprocessing"]["resize"] == 256
    assert "206 robust models" in command("show", "robustbench").out


@pytest.mark.parametrize("words", ["show zoo:swinb_at", "list models swin* --json", "list models robustbench:*"])
def test_cards_of_the_zoo_never_import_torch(fresh: Any, words: str) -> None:
    said = fresh(
        "import sys\nfrom aresbench.cli.main import main\n"
        f"try:\n    main({words.split()!r})\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', [m for m in ('torch', 'timm', 'pandas') if m in sys.modules])"
    )
    assert said.out.splitlines()[-1:] == ["HEAVY []"], said.err
