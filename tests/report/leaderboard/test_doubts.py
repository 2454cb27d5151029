"""On the leaderboard: best known beside AutoAttack's, models nobody checked, full cards, and what can be saved."""

import json
import re

import pytest

from aresbench.metrics.published import published
from aresbench.models.zoo import entry
from aresbench.report.leaderboard.boards import boards
from aresbench.report.leaderboard.findings import findings
from aresbench.report.summary import summarise

EPS = "linf 8/255"


@pytest.fixture(scope="module")
def board(doubtful_store):
    (only,) = boards(summarise(doubtful_store.cells()), [])
    return only


def page(index, name):
    return next(p for p in (index.parent / "models").iterdir() if p.name.startswith(name))


def test_best_known_is_a_column_beside_autoattacks(board):
    columns = [c for c in board.columns.values() if c.role == "robust"]
    assert [c.label for c in columns] == ["AutoAttack L∞ 8/255", "Best known L∞ 8/255"]
    assert {c.budget for c in columns} == {"L∞ 8/255"} and "submissions" in columns[1].hint
    auto, best = (board.models["samples:digits-robust"].figures[c.key] for c in columns)
    assert (auto.value, best.value, auto.n, best.n) == (0.45, 0.35, 40, 40)
    assert auto.low < auto.value < auto.high and best.low < best.value < best.high
    for model in board.models.values():
        assert model.figures[columns[1].key].value <= model.figures[columns[0].key].value


def test_a_fresh_page_ranks_by_best_known(doubtful_site, browser):
    browser.open(doubtful_site)
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes")
    assert browser.one("#head th[aria-sort] button").get_attribute("data-sort") == f"measured0:robust {EPS}"


def test_an_unverified_model_is_flagged_at_its_name_and_at_every_number(doubtful_site, browser):
    browser.open(doubtful_site)
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes")
    rows = {r.find_element("css selector", "th a").text: r for r in browser.all("#body tr")}
    numbers = rows["zoo:resnet152_fd"].find_elements("css selector", "td:has(.value)")
    assert len(numbers) == 3 and all("unverified" in n.get_attribute("textContent") for n in numbers)
    name = rows["zoo:resnet152_fd"].find_element("css selector", "th .flagnames")
    assert name.get_attribute("textContent") == "⚑ flags: unverified" and name.is_displayed()
    assert "⚑" not in rows["samples:digits-robust"].text
    told = json.loads(browser.script("return leaderboard.json()"))
    doubted = next(m for m in told if m["model"] == "zoo:resnet152_fd")
    assert all(f["flags"] == ["unverified"] for f in doubted["figures"]) and doubted["flags"] == ["unverified"]


def test_a_doubted_point_is_flagged_in_every_figure(doubtful_site, board, browser):
    for finding in findings(board):
        for _, _, spec in finding.figures:
            assert {p["model"]: p["flags"] for p in spec["datasets"]["points"]}["zoo:resnet152_fd"] == "unverified"
            assert any(layer["mark"]["type"] == "text" for layer in spec["layer"])
    browser.open(doubtful_site)
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes")
    points = browser.script("return tables.rows('scatter')")
    assert {p["model"]: p["flags"] for p in points} == {"zoo:resnet152_fd": "unverified", "samples:digits-robust": ""}


def test_its_page_says_why_and_so_does_one_of_published_numbers_alone(doubtful_site):
    text = page(doubtful_site, "zoo-resnet152-fd").read_text("utf-8")
    assert "<strong>⚑ unverified.</strong>" in text and "Never run with the authors&#39; weights." in text
    assert "<dt>verified</dt><dd>no</dd>" in text and text.count("unverified") > 4
    text = page(doubtful_site, "zoo-vitb-at").read_text("utf-8")  # it has the card of an unverified model
    assert "<strong>⚑ unverified.</strong>" in text and "GELU" in text
    assert '<tr class="published">' in text and '<tr class="measured">' not in text
    assert "⚑" not in page(doubtful_site, "zoo-swinb-at").read_text("utf-8")


def test_the_page_names_the_submissions(doubtful_site):
    text = page(doubtful_site, "samples-digits-robust").read_text("utf-8")
    assert "Of 40 images, beyond everything measured at L∞ 8/255, verified submissions: “me” broke 3 images" in text
    assert "Best known L∞ 8/255" in text and "AutoAttack L∞ 8/255" in text


def test_a_card_is_shown_in_full(doubtful_site):
    text = page(doubtful_site, "zoo-swinb-at").read_text("utf-8")
    card = {k: re.sub("<wbr>", "", v) for k, v in re.findall(r"<dt>([^<]*)</dt><dd>(.*?)</dd>", text)}
    known = entry("swinb_at")
    assert card["family"] == "swin" and card["paradigm"] == "adversarially trained" and card["licence"] == known.licence
    assert all(mirror in card["mirrors"] for mirror in known.mirrors) and known.weights in card["weights"]
    assert card["preprocessing"] == "size 224, 224; resize 256; interpolation bicubic; squash no"
    assert card["mean"] == "0.485, 0.456, 0.406" and "Liu" in card["paper"] and card["verified"] == "yes"
    assert int(re.sub(r"\D", "", card["parameters"])) == known.parameters
    measured = page(doubtful_site, "samples-digits-robust").read_text("utf-8")
    assert "<dt>paradigm</dt><dd>not told</dd>" in measured and "<dt>fingerprint</dt>" in measured


def test_every_table_of_a_page_can_be_saved(site, browser):
    browser.open(page(site, "samples-digits-plain"))
    browser.until(lambda: browser.script("return !!window.tables"))
    browser.script(  # look at what would be saved instead of saving it
        "window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };"
        "URL.createObjectURL = (blob) => { blob.text().then((t) => { window.text = t; }); return 'blob:none'; };"
        "URL.revokeObjectURL = () => {};"
    )
    buttons = browser.all("[data-table]")
    tables = browser.script("return [...document.querySelectorAll('table')].map((t) => t.tBodies[0].rows.length)")
    assert len(buttons) == 2 * len(tables) >= 8
    for button, rows in zip(buttons[::2], tables, strict=True):
        browser.script("window.text = ''; arguments[0].click()", button)
        text = browser.until(lambda: browser.script("return window.text"))
        assert text.count("\r\n") == rows + 1 and "value,low,high" in text.splitlines()[0]
    for button, rows in zip(buttons[1::2], tables, strict=True):
        browser.script("window.text = ''; arguments[0].click()", button)
        assert len(json.loads(browser.until(lambda: browser.script("return window.text")))) == rows
    names = browser.script("return saved")
    assert names[0] == "samples-digits-plain-figures-0.csv" and len(set(names)) == len(buttons)


def test_the_points_of_every_figure_can_be_saved(site, browser):
    browser.open(site)
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes", 30)
    figures = browser.script("return [...document.querySelectorAll('.chart')].map((c) => c.id)")
    saved = browser.script("return [...document.querySelectorAll('[data-as=csv]')].map((b) => b.dataset.table)")
    assert sorted(figures) == sorted(saved) and len(figures) > 8
    for name in figures:
        assert browser.script("return tables.csv(tables.rows(arguments[0]))", name).count("\r\n") > 1


def test_measured_shifts_stand_with_what_was_measured_on_their_parent(derived_store):
    board = next(b for b in boards(summarise(derived_store.cells()), []) if b.name == "imagenet")
    main = next(c.group for c in board.columns.values() if c.role == "clean")
    natural = [c for c in board.columns.values() if c.role == "natural"]
    assert len(natural) == 4 and {c.group for c in natural} == {main}
    assert {c.source for c in natural} != {main}  # a heading of its own for each
    assert all(p["flags"] == "" for _, _, spec in findings(board)[0].figures for p in spec["datasets"]["points"])
    figures = findings(board)[2].figures
    assert [title for title, _, _ in figures] == [f"{main} (measured)"]
    assert len(figures[0][2]["datasets"]["points"]) == 3


def test_published_flags_stand_with_the_figure_that_they_are_of():
    board = next(b for b in boards(None, [published("robustbench")]) if b.name == "cifar10")
    model = next(m for m in board.models.values() if m.name == "Kang2021Stable")
    assert {key: f.flags for key, f in model.figures.items() if f.flags} == {
        "robustbench:autoattack linf 8/255": ("unreliable",)
    }
    assert model.flags == ["unreliable"] and sum(bool(m.flags) for m in board.models.values()) == 2
