"""The ranking as a visitor uses it, in a headless Chromium, with every published row loaded."""

import contextlib
import csv
import io
import json
import statistics
from pathlib import Path

import pytest

from aresbench.metrics.published import names, published

TIMM = "timm:imagenet"
LIMIT = 100  # milliseconds


@pytest.fixture
def page(browser, site):
    def visit(address=""):
        browser.open(site)
        if address:
            browser.script("location.hash = arguments[0]", address)
            browser.driver.refresh()
        browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes", 30)
        return browser

    return visit


def table(browser):
    """The rows of the table that can be downloaded, as dicts by heading."""
    return list(csv.DictReader(io.StringIO(browser.script("return leaderboard.csv()"), newline="")))


def names_shown(browser):
    return browser.script("return [...document.querySelectorAll('#body th a:first-child')].map((a) => a.textContent)")


def choose(browser, control, value):
    browser.script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input', {bubbles: true}))",
        control,
        value,
    )


def sort_by(browser, key):
    browser.script("document.querySelector(`#head [data-sort='${arguments[0]}']`).click()", key)


def time_of(browser, action, times=8):
    """Milliseconds that the page works for an action, with the layout that it causes.

    Where the system tells it, the page's own processor time: waiting for other programs is none of it.
    """
    code = f"""
      const taken = [];
      for (let k = 0; k < {times}; k++) {{
        const start = performance.now();
        {action}
        document.body.offsetHeight;
        taken.push(performance.now() - start);
      }}
      return taken;
    """
    before = worked(browser)
    median = statistics.median(browser.script(code))
    return (worked(browser) - before) / times if before else median


def worked(browser):
    """Milliseconds of processor time of the main threads of all pages, 0 where the system does not tell."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
    mine = {str(browser.driver.service.process.pid)}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    pages = [pid for pid in mine if b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()] if parents else []
    return sum(int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) for pid in pages) / 1e6


def test_all_published_models_are_loaded_and_nothing_is_asked_of_the_network(page):
    browser = page("board=imagenet")
    here = {e.key for name in names() for e in published(name).entries if e.board == "imagenet"}
    assert len(here) > 1600
    assert len({r["key"] for r in table(browser)} & here) == len(here)
    boards = browser.script("return [...document.querySelectorAll('#board option')].map((o) => o.value)")
    assert {"imagenet", "cifar10", "cifar100", "digits", "samples"} == set(boards)
    browser.script("window.scrollTo(0, document.getElementById('figures').offsetTop)")
    browser.until(lambda: browser.script("return document.getElementById('scatter').dataset.drawn"))
    browser.script("window.scrollTo(0, document.getElementById('findings').offsetTop)")
    browser.until(lambda: browser.script("return document.querySelectorAll('.standing canvas').length > 0"))
    assert browser.console_errors() == [] and browser.requests() == []


def test_sorting_and_filtering_take_less_than_a_tenth_of_a_second(page):
    browser = page("board=imagenet")
    sort = time_of(browser, f"document.querySelector(`#head [data-sort='{TIMM}']`).click();")
    typed = "const e = document.getElementById('text'); e.value = k % 2 ? 'resnet' : 'vit base';"
    search = time_of(browser, typed + "e.dispatchEvent(new Event('input', {bubbles: true}));")
    chosen = "const e = document.getElementById('paradigm'); e.value = k % 2 ? 'normal' : '';"
    choice = time_of(browser, chosen + "e.dispatchEvent(new Event('change', {bubbles: true}));")
    assert max(sort, search, choice) < LIMIT, f"sort {sort:.0f} ms, search {search:.0f} ms, filter {choice:.0f} ms"


def test_size_ranks_and_unknown_sizes_stand_last(page):
    browser = page("board=imagenet&sort=parameters&dir=ascending")
    sizes = [r["parameters"] for r in table(browser)]
    known = [int(s) for s in sizes if s]
    assert known == sorted(known) and len(known) > 1500 and not any(sizes[len(known) :])
    assert "by parameters" in browser.one("#told").text


def test_a_column_ranks_and_ranks_are_ranges(page):
    browser = page("board=imagenet&sort=" + TIMM)
    rows = [r for r in table(browser) if r["rank from"]]
    head = next(h for h in rows[0] if h.startswith("ImageNet [published: timm"))
    values = [float(r[head]) for r in rows]
    assert len(values) == 1556 and values == sorted(values, reverse=True)
    ends = [(float(r[f"{head} low"]), float(r[f"{head} high"])) for r in rows]
    for place in (0, 1, 50, 700, 1555):  # against counting one by one
        low, high = ends[place]
        best = 1 + sum(other[0] > high for other in ends)
        worst = sum(other[1] >= low for other in ends)
        assert (int(rows[place]["rank from"]), int(rows[place]["rank to"])) == (best, worst)
        assert best <= place + 1 <= worst
    assert browser.one(f"#head [data-sort='{TIMM}']").find_element("xpath", "..").get_attribute("aria-sort") == (
        "descending"
    )
    sort_by(browser, TIMM)
    assert float(table(browser)[0][head]) == min(values)


def test_lower_is_better_where_it_is(page):
    browser = page("board=imagenet")
    sort_by(browser, "robustbench:mce")
    values = [float(v) for r in table(browser) if (v := r["mCE [published: RobustBench]"])]
    assert values[0] == 41.7 and values == sorted(values)


def test_filters_leave_what_they_say(page):
    browser = page("board=imagenet")
    choose(browser, "family", "swin")
    assert {r["family"] for r in table(browser)} == {"swin"}
    choose(browser, "paradigm", "adversarially trained")
    assert {r["paradigm"] for r in table(browser)} == {"adversarially trained"}
    choose(browser, "budget", "L∞ 4/255")
    heads = table(browser)[0].keys()
    assert any("AutoAttack L∞ 4/255" in h for h in heads)
    browser.one("#clear").click()
    choose(browser, "paradigm", "not told")
    told = table(browser)
    assert "timm:hgnet_small.ssld_in1k @224" in {r["key"] for r in told} and not any(r["paradigm"] for r in told)
    browser.one("#clear").click()
    choose(browser, "size", "384")
    assert {r["size"] for r in table(browser)} == {"384"}
    browser.one("#clear").click()
    choose(browser, "min", "300")
    choose(browser, "max", "400")
    sizes = [int(r["parameters"]) for r in table(browser)]
    assert sizes and min(sizes) >= 300e6 and max(sizes) <= 400e6
    browser.one("#clear").click()
    choose(browser, "text", "convnext base clip")
    assert all("convnext_base.clip" in r["key"] for r in table(browser)) and table(browser)
    browser.one("#clear").click()
    browser.one("[data-source='timm results']").click()
    assert not any("timm results" in h for h in table(browser)[0])
    assert "timm:resnet50.a1_in1k @224" not in {r["key"] for r in table(browser)}


def test_the_address_holds_what_is_shown(page):
    browser = page("board=imagenet")
    choose(browser, "text", "swin")
    choose(browser, "budget", "L∞ 4/255")
    sort_by(browser, "robustbench:autoattack linf 4/255")
    browser.one("#body input").click()
    before = names_shown(browser)
    browser.until(lambda: "picked" in browser.script("return location.hash"))
    address = browser.script("return location.hash")
    assert "robustbench" in address and before[0].startswith("Amini2024MeanSparse_Swin-L")
    other = page(address.lstrip("#"))
    assert names_shown(other) == before
    assert other.one("#text").get_attribute("value") == "swin"
    assert other.one("#budget").get_attribute("value") == "L∞ 4/255"
    assert other.one("#body input").is_selected()


def test_downloads_hold_the_table(page):
    browser = page("board=imagenet&text=swin&hide=" + json.dumps(["timm results"]).replace(" ", "%20"))
    rows, told = table(browser), json.loads(browser.script("return leaderboard.json()"))
    assert [r["model"] for r in rows] == names_shown(browser) == [m["model"] for m in told]
    shown = browser.script(
        "return [...document.querySelectorAll('#body tr')].map((r) => [...r.querySelectorAll('.value')].length)"
    )
    for row, model, count in zip(rows, told, shown, strict=True):
        assert len(model["figures"]) == count
        for figure in model["figures"]:
            head = f"{figure['figure']} [{figure['kind']}: {figure['source']}]"
            assert float(row[head]) == figure["value"] and len(figure["protocol"]) > 20
            assert row[f"{head} n"] == ("" if figure["n"] is None else str(figure["n"]))


def test_every_number_says_whether_it_was_measured_or_published(page):
    browser = page("board=imagenet&text=timm")
    marked = browser.script(
        "return [...document.querySelectorAll('#body td:has(.value)')]"
        ".map((c) => [c.classList.contains('published'), c.classList.contains('measured'), !!c.querySelector('.mark')])"
    )
    assert len(marked) > 100 and all(published != measured for published, measured, _ in marked)
    assert all(published == mark for published, _, mark in marked)
    browser = page("board=digits")
    assert browser.all("#body td.measured") and not browser.all("#body .mark")
    assert "Measured · Handwritten digits" in browser.one("#head").text


def test_a_figure_that_its_board_doubts_is_flagged(page):
    browser = page("board=cifar10&text=Kang2021Stable")
    (cell,) = browser.all("#body td:has(.flagged)")
    assert "unreliable" in cell.get_attribute("textContent") and "published" in cell.get_attribute("textContent")
    assert "unreliable" in browser.one("#body th .flagnames").text
    (model,) = json.loads(browser.script("return leaderboard.json()"))
    assert [f["figure"] for f in model["figures"] if f["flags"]] == ["AutoAttack L∞ 8/255"]


def test_what_the_columns_are_can_be_read_without_a_mouse(page):
    browser = page("board=imagenet")
    rows = browser.script("return [...document.querySelectorAll('#columns-body tr')].map((r) => r.textContent)")
    heads = browser.all("#head [data-sort]")
    assert len(rows) == len(heads) - 2 and all("published" in row for row in rows)
    assert any("RobustBench's own 5,000 validation images" in row for row in rows)


def test_size_is_drawn_against_clean_and_robust_accuracy_of_one_source(page):
    browser = page("board=imagenet&plot=size")
    browser.script("document.getElementById('scatter').scrollIntoView()")
    browser.until(lambda: browser.script("return document.getElementById('scatter').dataset.drawn"), 30)
    points = browser.script("return tables.rows('scatter')")
    assert {p["role"] for p in points} == {"Clean †", "AutoAttack L∞ 4/255 †"}
    assert len({p["up"].partition("(")[2] for p in points}) == 1 and {p["across"] for p in points} == {
        "parameters, millions"
    }
    choose(browser, "plot", "natural")
    browser.until(lambda: browser.script("return document.getElementById('scatter').dataset.drawn") == "2", 30)
    assert len(browser.script("return tables.rows('scatter')")) > 1
    assert browser.console_errors() == []


def test_flags_stand_with_the_model(page):
    browser = page("board=digits")
    flagged = browser.one("#body .flagnames").find_element("xpath", "..").text
    assert "digits-plain" in flagged and "clean-accuracy" in browser.one("#body .flagnames").get_attribute("title")


def test_keyboard_alone_reaches_everything_in_order(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = page("board=digits")
    seen = []
    for _ in range(40):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        seen.append(
            browser.script("const e = document.activeElement; return e.id || e.dataset.sort || e.dataset.key || e.href")
        )
    order = [
        "board",
        "text",
        "family",
        "paradigm",
        "data",
        "budget",
        "size",
        "min",
        "max",
        "clear",
        "csv",
        "json",
        "name",
        "parameters",
    ]
    places = [seen.index(name) for name in order]
    assert places == sorted(places)
    key = next(s for s in seen if s and s.startswith("measured"))
    browser.script(
        "[...document.querySelectorAll('[data-sort]')].find((b) => b.dataset.sort === arguments[0]).focus()", key
    )
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert browser.script("return document.activeElement.dataset.sort") == key  # the focus stays where it was
    assert browser.script("return document.activeElement.closest('th').ariaSort") in ("ascending", "descending")
    assert browser.all("#table caption") and all(h.get_attribute("scope") for h in browser.all("#table th"))


def test_curves_of_the_selected_models_lie_over_each_other(page):
    browser = page("board=digits&picked=" + json.dumps(["samples:digits-plain"]))
    browser.script("document.getElementById('overlay').scrollIntoView()")
    browser.until(lambda: browser.all("#overlay svg"))
    assert [e.text for e in browser.all("#overlay .role-legend-label text")] == ["samples:digits-plain ⚑"]
    browser.script("document.querySelectorAll('#body input:not(:checked)')[0].click()")
    browser.until(lambda: len(browser.all("#overlay .role-legend-label text")) == 2)
    assert browser.console_errors() == []
