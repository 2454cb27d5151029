import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from jsonschema import Draft7Validator

from aresbench.core.errors import StoreError
from aresbench.report.charts import axis_label, positions
from aresbench.report.page import build_report, render
from aresbench.report.summary import summarise


@pytest.fixture(scope="module")
def report(full_store, tmp_path_factory):
    return build_report(full_store.cells(), tmp_path_factory.mktemp("page") / "deep" / "report.html")


def ready(browser):
    browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes", 30)


def embedded(html, identity):
    return json.loads(re.search(rf'id="{identity}">(.*?)</script>', html, flags=re.DOTALL).group(1))


def test_one_file_that_needs_nothing_else(report):
    html = report.read_text("utf-8")
    assert len(html.encode()) < 3.2e6
    assert html.count('id="chart-library"') == 1 and html.count("window.vegaEmbed=") == 1
    page = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href|action)="(?!data:|#)[^"]*"', page) and "url(" not in page
    assert "built-in method" not in page and "None" not in page.replace("None was raised", "")


def test_every_attack_is_told_with_its_share_of_the_breaks(report):
    rows = embedded(report.read_text("utf-8"), "tables")["handwritten-digits--broke"]
    for model in ("samples:digits-plain", "samples:digits-robust"):
        mine = [r for r in rows if r["model"] == model and r["budget"] == "32/255"]
        shares = {r["outcome"]: r["count"] for r in mine}
        fates = [r["count"] for r in mine if "share" in r]
        assert sum(fates) == 300 and shares["broken by apgd-ce, alone or with others"] > 0
    assert re.search(r"samples:digits-plain: apgd-ce \d+, .* of \d+", report.read_text("utf-8"))


def test_specifications_follow_the_schema(report):
    import altair

    figures = embedded(report.read_text("utf-8"), "figures")
    assert len(figures) > 15
    validator = Draft7Validator(altair.Chart._schema | altair.vegalite.load_schema())
    for name, spec in figures.items():
        errors = [e.message[:200] for e in validator.iter_errors(spec)]
        assert not errors, f"{name}: {errors[:1]}"


def test_the_page_is_read_offline_without_a_word_in_the_console(report, browser):
    browser.open(report)
    ready(browser)
    assert browser.all("#handwritten-digits--models tbody tr")[0].text.startswith("samples:digits-robust")
    assert "300" in browser.one("#handwritten-digits--models tbody tr").text
    assert len(browser.all(".chart svg.marks")) == len(browser.all(".chart"))
    assert browser.console_errors() == [] and browser.requests() == []


def test_a_click_on_the_legend_brings_one_model_to_the_fore(report, browser):
    browser.open(report)
    ready(browser)
    chart = "#handwritten-digits--epsilon-linf-0"

    def lines():
        return [float(e.get_attribute("opacity") or 1) for e in browser.all(f"{chart} .mark-line path")]

    assert lines() == [1, 1]
    browser.click(browser.all(f"{chart} .role-legend-label text")[0])
    browser.until(lambda: sorted(lines()) == [0.1, 1])
    # small figures follow the legend of the large one above them
    browser.click(browser.all("#handwritten-digits--severity-mean .role-legend-label text")[1])
    follower = "#handwritten-digits--severity-fog .mark-line path"
    browser.until(lambda: sorted(float(e.get_attribute("opacity") or 1) for e in browser.all(follower)) == [0.1, 1])
    assert browser.console_errors() == []


def test_tables_sort_and_can_be_saved(report, browser):
    browser.open(report)
    ready(browser)
    table = "#imagenet-photographs--models"
    browser.click(browser.all(f"{table} thead button")[1])
    values = [float(c.get_attribute("data-sort")) for c in browser.all(f"{table} tbody td:nth-child(2)")]
    assert values == sorted(values, reverse=True)
    assert browser.one(f"{table} th[aria-sort]").get_attribute("aria-sort") == "descending"
    browser.script(  # look at what would be saved instead of saving it
        "window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };"
        "URL.createObjectURL = (blob) => { blob.text().then((t) => { window.text = t; }); return 'blob:none'; };"
        "URL.revokeObjectURL = () => {};"
    )
    browser.click(browser.one(f"[data-table='{table[1:]}'][data-as='csv']"))
    text = browser.until(lambda: (t := browser.script("return window.text")) and "," in t and t)
    assert text.startswith("model,dataset,clean value,") and text.count("\n") == 4
    assert browser.script("return window.saved") == ["imagenet-photographs--models.csv"]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_no_sideways_scroll_and_readable_colours(report, browser, width, dark):
    browser.open(report, width=width, dark=dark)
    ready(browser)
    assert browser.script("return document.documentElement.scrollWidth") <= width
    paper = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) < 60) == dark
    box, text = browser.script(
        "const t = document.querySelector('.chart .role-axis-label text');"
        "return [getComputedStyle(document.querySelector('.box')).backgroundColor, getComputedStyle(t).fill]"
    )
    assert contrast(box, text) > 4.5
    too_wide = "(s) => s.clientWidth > s.parentElement.clientWidth + 1"
    assert not browser.script(f"return [...document.querySelectorAll('.chart svg.marks')].some({too_wide})")


def contrast(a, b):
    def light(colour):
        parts = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
        r, g, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * blue

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_switch_changes_the_theme(report, browser):
    browser.open(report)
    before = browser.script("return getComputedStyle(document.body).backgroundColor")
    browser.click(browser.one("#theme"))
    assert browser.script("return getComputedStyle(document.body).backgroundColor") != before
    browser.click(browser.one("#theme"))
    browser.script("localStorage.clear()")


def test_it_prints(report, browser, tmp_path):
    browser.open(report, dark=True)
    ready(browser)
    assert browser.pdf(tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_hostile_name_is_only_a_name(maker, browser, tmp_path):
    evil = "</script><img src=x onerror=alert(1)>'\"&"
    made = replace(maker.models[0], model=evil, dataset="samples", n=20, size=48, half=0.4)
    maker.everything(made)
    page = build_report(maker.store.cells(), tmp_path / "evil.html", command=f"aresbench run '{evil}'")
    browser.open(page)
    ready(browser)
    assert browser.all("img[src='x']") == []
    assert browser.one("#imagenet-photographs--models tbody .name").text == evil
    assert browser.one("#reproduce code").text == f"aresbench run '{evil}'"
    assert browser.console_errors() == [] and browser.requests() == []


def test_a_store_with_one_clean_cell_is_a_report_too(maker, browser, tmp_path):
    maker.clean(maker.models[0], np.zeros(40, dtype=int), np.arange(40) < 30)
    html = render(summarise(maker.store.cells()))
    assert "How robust is this model?" in html and "75\u202f%" in html
    assert "aresbench run --suite quickstart" in html  # the command that the cells recorded


def test_an_empty_store_is_refused_and_nothing_is_written(maker, tmp_path):
    with pytest.raises(StoreError, match="aresbench run"):
        build_report(maker.store.cells(), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_an_unwritable_place_is_named(full_store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        build_report(full_store.cells()[:1], tmp_path / "file" / "report.html")


def test_five_models_are_written_in_seconds(full_store, tmp_path):
    start = time.process_time()
    build_report(full_store.cells(), tmp_path / "report.html")
    assert time.process_time() - start < 5


def test_budgets_stand_evenly_where_they_are_geometric():
    place, geometric = positions(["0", "1/4/255", "1/2/255", "1/255", "2/255"])
    assert geometric and np.allclose(np.diff(list(place.values())), 1, atol=1e-3)
    place, geometric = positions(["0", "1/255", "2/255", "3/255", "4/255"])
    assert not geometric and np.allclose(np.diff(list(place.values())), 1, atol=1e-3)
    assert [axis_label(t) for t in ("4/255", "1/2/255", "1/16/255", "0.5")] == ["4/255", "½/255", "1⁄16/255", "0.5"]
