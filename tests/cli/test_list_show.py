"""``list`` and ``show``: quick, complete, kind to wrong words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aresbench.cli import catalogue
from aresbench.core.registry import TABLES

ALL = [(kind, name) for kind in TABLES for name in TABLES[kind]]


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_list_names_everything(command: Any, kind: str) -> None:
    said = command("list", kind)
    assert said.status == 0
    listed = [line.split()[0] for line in said.out.splitlines()]
    assert [name for name in listed if name in catalogue.names(kind)] == catalogue.names(kind)


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_list_json_is_what_show_json_says(command: Any, kind: str) -> None:
    listed = {one["name"]: one for one in json.loads(command("list", kind, "--json").out)}
    for name in catalogue.names(kind):
        assert json.loads(command("show", kind, name, "--json").out) == listed[name]


def test_list_by_part_and_by_pattern(command: Any) -> None:
    named = [name for name in TABLES["attacks"] if "pgd" in name]
    assert [line.split()[0] for line in command("list", "attacks", "pgd").out.splitlines()] == named
    assert [line.split()[0] for line in command("list", "attacks", "pgd*").out.splitlines()] == ["pgd"]


def test_models_that_can_be_named_at_once_are_listed(command: Any) -> None:
    assert "samples:digits-robust" in command("list", "models", "digits").out


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_card_says_what_it_is_and_how_to_call_it(command: Any, kind: str, name: str) -> None:
    card = json.loads(command("show", kind, name, "--json").out)
    assert card["summary"].rstrip().endswith("."), "the first line of the docstring is a sentence"
    assert card["call"]
    assert card["path"].startswith("aresbench.")
    if kind in ("attacks", "corruptions"):
        assert card["facts"]["paper"]
        assert card["facts"]["revision"] >= 1


def test_show_prints_settings_with_defaults_and_the_paper(command: Any) -> None:
    said = command("show", "pgd")
    assert said.status == 0
    for part in ("steps", "= 20", "Madry", "linf, l2", 'ab.attack(model, x, y, "pgd", "linf:4/255")'):
        assert part in said.out


def test_show_takes_a_spec(command: Any) -> None:
    assert command("show", "pgd(steps=50)").out == command("show", "pgd").out


def test_show_of_a_model_shows_its_source_and_its_own_call(command: Any) -> None:
    said = command("show", "timm:resnet50.a1_in1k")
    assert said.out.startswith("timm · model source")
    assert 'ab.load_model("timm:resnet50.a1_in1k")' in said.out


def test_show_suite(command: Any) -> None:
    said = command("show", "quickstart")
    assert "samples:efficientnet-lite0" in said.out
    assert "corruption(fog, 5)" in said.out


def test_a_name_with_two_meanings_is_refused_with_both_spellings(command: Any) -> None:
    said = command("show", "samples")
    assert said.status == 2
    for spelling in ("aresbench show model samples", "aresbench show dataset samples"):
        assert f"`{spelling}`" in said.err
        assert command(*spelling.split()[1:]).status == 0


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (("show", "agpd-ce"), "'apgd-ce'"),
        (("show", "atack", "pgd"), "'attacks'"),
        (("list", "attacks", "squire"), "'square'"),
        (("list", "atacks"), "'attacks'"),
        (("lst", "attacks"), "'list'"),
        (("list", "attacks", "--jsom"), "'--json'"),
        (("show", "quikstart"), "'quickstart'"),
        (("run", "--suite", "quikstart"), "'quickstart'"),
        (("store", "exprt"), "'export'"),
    ],
)
def test_a_wrong_word_names_the_right_one(command: Any, words: tuple[str, ...], right: str) -> None:
    said = command(*words)
    assert said.status == 2
    assert said.out == ""
    assert "did you mean" in said.err
    assert right in said.err


LIGHT = [
    "--help",
    "--version",
    "list models",
    "list attacks --json",
    "list suites",
    "show fmn",
    "show quickstart --json",
]


@pytest.mark.parametrize("words", [*LIGHT, "run --help", "store path", "store status", "cache status", "compare a b"])
def test_light_verbs_never_import_torch(fresh: Any, words: str) -> None:
    said = fresh(
        "import sys\nfrom aresbench.cli.main import main\n"
        f"try:\n    main({words.split()!r})\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', [m for m in ('torch', 'timm') if m in sys.modules])"
    )
    assert said.out.splitlines()[-1:] == ["HEAVY []"], said.err


@pytest.mark.parametrize("words", LIGHT)
def test_the_quickest_verbs_import_no_table_library_either(fresh: Any, words: str) -> None:
    said = fresh(
        "import sys\nfrom aresbench.cli.main import main\n"
        f"try:\n    main({words.split()!r})\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', [m for m in ('numpy', 'pandas', 'pyarrow', 'rich') if m in sys.modules])"
    )
    assert said.out.splitlines()[-1:] == ["HEAVY []"], said.err


@pytest.mark.parametrize("words", [("list", "attacks", "sgm"), ("show", "sgm"), ("show", "attack", "sgm")])
def test_what_is_kept_elsewhere_is_said_to_be_there(command: Any, words: tuple[str, ...]) -> None:
    said = command(*words)
    assert said.status == 2
    assert "+ sgm(gamma=0.2)" in said.err


def test_datasets_for_commercial_use(command: Any) -> None:
    listed = command("list", "datasets", "--commercial").out
    names = [line.split()[0] for line in listed.splitlines()]
    assert {"folder", "digits"} <= set(names)
    assert not {"imagenet", "cifar10"} & set(names)
    assert [one["name"] for one in json.loads(command("list", "datasets", "--commercial", "--json").out)] == names
    refused = command("list", "datasets", "cifar10.1", "--commercial")
    assert refused.status == 2
    assert "cifar10.1 (unclear)" in refused.err
    assert "about datasets" in command("list", "attacks", "--commercial").err
