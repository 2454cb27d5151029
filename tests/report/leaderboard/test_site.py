"""What the site is made of: boards, findings, model pages, and names that try to be markup."""

import re
from dataclasses import replace

import numpy as np
import pytest

from aresbench.core.errors import StoreError, UnknownName
from aresbench.metrics.published import published
from aresbench.report.leaderboard.boards import boards
from aresbench.report.leaderboard.findings import findings
from aresbench.report.leaderboard.site import build_leaderboard
from aresbench.report.summary import summarise

SHOWS = 'class="shows">(.*?)</span>'


def test_measured_and_published_figures_never_share_a_column(maker):
    maker.verdicts(maker.derived_models[0], np.arange(50) < 30)
    maker.verdicts(
        replace(maker.derived_models[0], dataset="imagenet-sketch"), np.arange(50) < 10, data={"parent": "imagenet"}
    )
    tables = [published("timm"), published("robustbench")]
    found = {b.name: b for b in boards(summarise(maker.store.cells()), tables)}
    board = found["imagenet"]
    assert [c.role for c in board.columns.values() if c.kind == "measured"] == ["clean", "natural"]
    assert {c.key.startswith("measured") for c in board.columns.values() if c.kind == "measured"} == {True}
    assert {c.source for c in board.columns.values() if c.kind == "published"} == {"timm results", "RobustBench"}
    assert all(len(c.hint) > 20 for c in board.columns.values())
    assert sum("timm" in m.sources for m in board.models.values()) == 1556


def test_a_measured_model_stands_beside_its_own_published_figures_at_its_own_size(maker):
    made = replace(maker.derived_models[0], model="timm:resnet50.a1_in1k")
    maker.verdicts(made, np.arange(50) < 30)
    board = boards(summarise(maker.store.cells()), [published("timm")])[0]
    model = board.models["timm:resnet50.a1_in1k @224"]
    assert set(model.sources) == {"measured", "timm"}
    assert model.figures["measured0:clean"].value == 0.6 and model.figures["timm:imagenet"].value != 0.6
    assert model.facts["size"] == "224" and model.facts["family"] == "cnn"  # its own card goes first
    assert set(board.models["timm:resnet50.a1_in1k @288"].sources) == {"timm"}


def test_findings_say_what_is_loaded_and_no_more():
    tables = [published(n) for n in ("timm", "robustbench", "paper", "easyrobust", "oodrobustbench")]
    board = next(b for b in boards(None, tables) if b.name == "imagenet")
    trade, training, pre_training = findings(board)
    told = {source: text for source, text, _ in training.figures}
    paper = told["ARES-Bench authors' adversarially trained models (published)"]
    assert paper.startswith("Median of AutoAttack")
    assert "Transformers 55.6 % (n = 5)" in paper and "other adversarially trained models 46.7 % (n = 7)" in paper
    assert "otherwise" not in paper  # none is loaded
    natural = {source: text for source, text, _ in pre_training.figures}["timm results (published)"]
    assert re.search(r"normal \d\d\.\d % \(n = 1\d\d\d\), pre-trained \d\d\.\d %", natural)
    ((source, text, _),) = trade.figures
    assert source.startswith("OODRobustBench") and text.startswith("Of 3 pairs") and "in 0 of the pairs" in text


def test_the_trade_off_counts_pairs_of_one_architecture(full_store):
    board = next(b for b in boards(summarise(full_store.cells()), []) if b.name == "digits")
    ((source, told, spec),) = findings(board)[0].figures
    assert source == "Handwritten digits (measured)" and told.startswith("Of 1 pair of models with one architecture")
    assert len(spec["datasets"]["points"]) == 2


def test_every_model_has_a_page_with_its_card_and_its_sources(site):
    index = site.read_text("utf-8")
    pages = set(re.findall(r'"page":"(models/[^"]+)"', index))
    assert len(pages) > 1800 and all((site.parent / page).is_file() for page in pages)
    assert {p.name for p in (site.parent / "models").iterdir()} == {p.removeprefix("models/") for p in pages}
    page = next(p for p in pages if p.startswith("models/zoo-swinb-at"))
    text = (site.parent / page).read_text("utf-8")
    for word in (
        "57.3",
        "56.16",
        "56.26",
        "RobustBench",
        "OODRobustBench",
        "published",
        "licence",
        "5000",
        "AutoAttack",
    ):
        assert word in text, word
    assert "<svg" not in text and "charts.js" not in text  # nothing was measured: no curve


def test_a_measured_models_page_has_every_task_and_its_curves(site, browser):
    page = next(p for p in (site.parent / "models").iterdir() if p.name.startswith("samples-digits-plain"))
    browser.open(page)
    browser.until(lambda: len(browser.all("[data-track] svg")) >= 2)
    text = browser.one("main").text
    assert "PGD-20 ladder" in text and "Clean accuracy is 2.1 points below" in text and "measured" in text
    assert browser.console_errors() == [] and browser.requests() == []


def test_names_are_text_and_never_markup(maker, browser, tmp_path):
    evil = "<img src=x onerror=\"document.title='owned'\">&'\"</script>"
    maker.clean(replace(maker.models[0], model=evil), np.zeros(20, dtype=int), np.arange(20) < 15)
    index = build_leaderboard(maker.store.cells(), tmp_path / "site", [])
    browser.open(index)
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes")
    assert browser.all("img[src='x']") == [] and browser.driver.title == "Robustness leaderboard"
    assert browser.one("#body th a").text == evil
    browser.click(browser.one("#body th a"))
    browser.until(lambda: browser.driver.title == evil)
    assert browser.one("h1").text == evil and browser.all("img") == []
    assert browser.console_errors() == [] and browser.requests() == []


def test_a_site_of_published_numbers_alone(tmp_path):
    index = build_leaderboard([], tmp_path, ["paper"])
    text = index.read_text("utf-8")
    assert "zoo:swinl_at" in text and "RobustBench" not in re.sub(r"<dd>.*?</dd>", "", text)
    assert text.count("show nothing of it") == 2 and len(re.findall(SHOWS, text)) == 1


def test_nothing_to_rank_is_refused(tmp_path):
    with pytest.raises(StoreError, match="--published"):
        build_leaderboard([], tmp_path / "site", [])
    assert not (tmp_path / "site").exists()
    with pytest.raises(UnknownName, match="robustbench"):
        build_leaderboard([], tmp_path / "site", ["robustbensh"])
