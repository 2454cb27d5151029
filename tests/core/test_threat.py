"""Threats and suites are texts that read back, and refuse what they do not know with the nearest right word."""

from __future__ import annotations

import pytest

from aresbench.core.errors import AresError, SpecError
from aresbench.core.suite import DERIVED, Task, load_suite, parse_datasets, read_suite, suite_names
from aresbench.core.threat import parse_threat, parse_threats


@pytest.mark.parametrize(
    "text",
    [
        "clean",
        "corruption(fog, 3)",
        "adversary(linf, 4/255, apgd-ce)",
        "adversary(linf, [0.25/255*, 1/255, 2/255], [apgd-ce(steps=50), square])",
        "adversary(l2, [0.25, 0.5], pgd(steps=20), bound=none)",
        "corruption(fog, 3) + adversary(linf, 4/255, pgd)",
    ],
)
def test_threats_read_back(text):
    assert str(parse_threat(text)) == text


def test_spacing_and_spelling_do_not_make_another_threat():
    loose = parse_threat("corruption(fog,severity=3)+adversary(linf,[4*]/255,[ pgd( steps=20 ) ])")
    assert str(loose) == "corruption(fog, 3) + adversary(linf, 4/255, pgd(steps=20))"
    nested = parse_threat("adversary(linf,4/255,[mim(steps=3,parts=[ di(prob=0.5,grow=1.2),ti ]), square])")
    assert str(nested) == "adversary(linf, 4/255, [mim(steps=3, parts=[di(prob=0.5, grow=1.2), ti]), square])"
    assert parse_threat(str(nested)) == nested


def test_a_bound_is_dropped_where_nothing_is_searched():
    assert parse_threat("adversary(linf, 4/255, pgd, bound=fmn)") == parse_threat("adversary(linf, 4/255, pgd)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adversry(linf, 1, pgd)", "adversary"),
        ("corruption(fgo, 3)", "fog"),
        ("corruption(fog, 6)", "1 to 5"),
        ("corruption(fog)", "1 to 5"),
        ("corruption(fog, 3, severity=5)", "given twice"),
        ("adversary(linf, 4/255, pgd, attacks=fgsm)", "given twice"),
        ("corruption(fog, 3, mod=memory)", "mode"),
        ("adversary(linf, 4/255, pdg)", "pgd"),
        ("adversary(linf, 4/255)", "at least one attack"),
        ("adversary(linf)", "needs a norm"),
        ("adversary(linf, 4/255, [])", "at least one attack"),
        ("adversary(linf, 4/255, pgd) + corruption(fog, 3)", "comes last"),
        ("corruption(fog, 3", "never closed"),
        ("", "name is missing"),
    ],
)
def test_bad_threats_say_what_is_wrong(text, words):
    with pytest.raises(AresError, match=words):
        parse_threat(text)


@pytest.mark.parametrize("name", suite_names())
def test_every_built_in_suite_loads(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.headline in {*DERIVED, *(t.name for t in suite.tasks)}


def test_the_quickstart_is_what_it_says():
    suite = load_suite("quickstart")
    for dataset in ("samples", "digits"):
        threats = [t.threat for t in suite.tasks if t.dataset == dataset]
        ladders = [t.adversary.ladder for t in threats if t.adversary and not t.adversary.all_pinned]
        pinned = [t.adversary.ladder for t in threats if t.adversary and t.adversary.all_pinned]
        assert [len(ladder.rungs) for ladder in ladders] == [12]
        assert [len(ladder.pinned) for ladder in pinned] == [2]
        cells = {(c.name, c.severity) for t in threats for c in t.changes}
        assert len({name for name, _ in cells}) == 5
        assert len(cells) == 15


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"tasks": [{"dat": "digits", "threats": ["clean"]}]}, "data"),
        ({"task": []}, "tasks"),
        ({"tasks": [{"threats": ["clean"]}]}, "no dataset"),
        ({"tasks": []}, "no tasks"),
        ({"tasks": [{"data": "digits", "threats": ["clean", "clean"]}]}, "twice"),
        ({"tasks": [{"data": "digits", "threats": [{"name": "x"}]}]}, "no threat"),
    ],
)
def test_bad_suites_name_the_key(raw, words):
    with pytest.raises(SpecError, match=words):
        read_suite(raw, "mine.toml")


def test_a_task_parses_its_threat_and_names_itself():
    task = Task("digits", "corruption(fog, 3) + adversary(linf, 4/255, pgd)")
    assert task.threat.kind == "adversary"
    assert task.name == "fog 3 + pgd linf 4/255"


def test_a_transfer_reads_back_and_names_its_surrogates():
    for text in (
        "transfer(linf, 16/255, mim(parts=[di(prob=0.7), ti]), from=timm:resnet50.a1_in1k)",
        "corruption(fog, 3) + transfer(linf, [4/255*, 8/255], [mim, pgd], from=[samples:digits-plain, ./mine.py:make])",
    ):
        threat = parse_threat(text)
        assert str(threat) == text
        assert threat.kind == "adversary"
        assert threat.adversary.bound == "none"
    assert "from samples:digits-plain + ./mine.py:make" in threat.title
    with pytest.raises(SpecError, match="surrogate"):
        parse_threat("transfer(linf, 16/255, mim)")


def test_filters_are_threats():
    threat = parse_threat("lowpass(r=40)+corruption(fog, 3, mode=disk)")
    assert str(threat) == "lowpass(40) + corruption(fog, 3, mode=disk)"
    assert parse_threat(str(threat)) == threat
    assert threat.kind == "corruption"
    assert parse_threat("highpass(8)").kind == "filter"
    assert parse_threat("highpass(8) + adversary(linf, 4/255, pgd)").kind == "adversary"


@pytest.mark.parametrize("text", ["lowpass", "lowpass(0)", "lowpass(1.5)", "lowpass(4, r=4)", "lowpass(x)"])
def test_a_filter_needs_one_whole_radius(text):
    with pytest.raises(SpecError, match=r"radius.*\n?.*|write e.g. lowpass\(40\)"):
        parse_threat(text)


@pytest.mark.parametrize(
    ("text", "count", "first", "last"),
    [
        ("clean", 1, "clean", "clean"),
        ("corruption([fog, brightness], [1, 3])", 4, "corruption(fog, 1)", "corruption(brightness, 3)"),
        ("corruption(fog, all, mode=disk)", 5, "corruption(fog, 1, mode=disk)", "corruption(fog, 5, mode=disk)"),
        ("corruption(fog, severity=[2, 4])", 2, "corruption(fog, 2)", "corruption(fog, 4)"),
        ("lowpass([110, 4])", 2, "lowpass(110)", "lowpass(4)"),
        (
            "corruption(fog, [1, 2]) + adversary(linf, [1, 2*]/255, [pgd, square])",
            2,
            "corruption(fog, 1) + adversary(linf, [1/255, 2/255*], [pgd, square])",
            "corruption(fog, 2) + adversary(linf, [1/255, 2/255*], [pgd, square])",
        ),
    ],
)
def test_lists_are_taken_apart(text, count, first, last):
    found = [str(threat) for threat in parse_threats(text)]
    assert len(found) == len(set(found)) == count
    assert (found[0], found[-1]) == (first, last)


def test_datasets_are_taken_apart():
    found = parse_datasets("imagenet-c(corruption=[fog, snow], severity=all)")
    assert len(found) == 10 and found[0] == "imagenet-c(corruption=fog, severity=1)"
    assert len(parse_datasets("imagenet-c(corruption=imagenet-c, severity=[1, 3])")) == 30
    assert parse_datasets("digits(split=train)") == ["digits(split=train)"]
    assert parse_datasets("folder:/a (b, c)") == ["folder:/a (b, c)"]
    assert parse_datasets("imagenet-c(corruption=fog, severity=[1, 3]):/data (c)") == [
        f"imagenet-c(corruption=fog, severity={severity}):/data (c)" for severity in (1, 3)
    ]
    assert parse_datasets("folder:/a(b):c") == ["folder:/a(b):c"]


def test_one_threat_is_not_several():
    for text in ("corruption([fog, snow], 1)", "corruption(fog, all)", "corruption(imagenet-c, 3)"):
        with pytest.raises(SpecError, match="several threats"):
            parse_threat(text)
