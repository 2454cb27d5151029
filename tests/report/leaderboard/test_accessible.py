"""The site by keyboard and by screen reader, in both schemes and on a narrow screen: what can be told without axe."""

import itertools
import re

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

PAGES = ("index", "imagenet", "measured", "published", "unverified")
SCHEMES = ("light", "dark")

# What is written with no more than the page's own colours, each pair once.
READ = (
    "ink on paper", "ink on card", "ink on code", "ink on warn-bg", "soft on paper", "soft on card", "accent on paper",
    "accent on card", "bad on card", "good on card", "warn on paper", "warn on card",
)  # fmt: skip

NAMELESS = """
  const name = (e) => e.getAttribute("aria-label") || (e.labels && [...e.labels].map((l) => l.textContent).join(" "))
    || (e.matches("input, select") ? "" : e.textContent);
  return [...document.querySelectorAll("a, button, input, select, summary, [tabindex='0']")]
    .filter((e) => !(name(e) || "").trim()).map((e) => e.outerHTML.slice(0, 120));
"""
SMALL = """
  return [...document.querySelectorAll("button, input, select")].filter((e) => e.checkVisibility())
    .map((e) => [e.getBoundingClientRect(), e]).filter(([r]) => r.width && (r.height < 20 || r.width < 20))
    .filter(([, e]) => !e.closest("th")).map(([r, e]) => `${e.outerHTML.slice(0, 80)} ${r.width} x ${r.height}`);
"""
PALE = """
  const parts = (c) => {
    const found = c.match(/[\\d.]+/g).map(Number);
    return c.startsWith("color(") ? [...found.slice(0, 3).map((v) => 255 * v), found[3]] : found;
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const under = (e) => { // the colours below a text, laid over each other
    const layers = [];
    for (; e; e = e.parentElement) {
      const c = parts(getComputedStyle(e).backgroundColor);
      if (c[3] !== 0) layers.unshift(c);
      if (c[3] === undefined) break;
    }
    const over = (low, c) => [0, 1, 2].map((i) => c[i] * (c[3] ?? 1) + low[i] * (1 - (c[3] ?? 1)));
    return layers.reduce(over, [255, 255, 255]);
  };
  const hidden = "svg, .unseen, .skip, script, [aria-hidden='true'], .top";
  const seen = new Map();
  for (const e of document.querySelectorAll("body *")) {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!says || !e.checkVisibility() || e.closest(hidden)) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color)), light(under(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) seen.set(`${e.tagName}.${e.className}`, ratio.toFixed(2));
  }
  return [...seen].map((pair) => pair.join(" "));
"""


def ready(browser):
    browser.until(lambda: browser.script("return document.readyState === 'complete' && !!window.tables"), 30)
    if browser.all("#boards"):
        browser.until(lambda: browser.script("return document.documentElement.dataset.ready") == "yes", 30)


@pytest.fixture
def visit(browser, site, doubtful_site):
    def model(index, name):
        return next(p for p in (index.parent / "models").iterdir() if p.name.startswith(name))

    def go(page, **screen):
        browser.open(
            {
                "index": doubtful_site,
                "imagenet": site,
                "measured": model(site, "samples-digits-plain"),
                "published": model(site, "zoo-swinb-at"),
                "unverified": model(doubtful_site, "zoo-resnet152-fd"),
            }[page],
            **screen,
        )
        if page == "imagenet":
            browser.script("location.hash = 'board=imagenet'")
            browser.driver.refresh()
        ready(browser)
        return browser

    return go


@pytest.mark.parametrize("page", PAGES)
def test_everything_has_a_name_and_tables_are_tables(visit, page):
    browser = visit(page)
    assert browser.script(NAMELESS) == []
    assert browser.script("return document.documentElement.lang") == "en" and browser.driver.title
    for table in browser.all("table"):
        rows = browser.script("return arguments[0].tBodies[0].rows.length", table)
        assert table.find_element("css selector", "caption").get_attribute("textContent") and rows
    heads = browser.script("return [...document.querySelectorAll('th')].map((h) => h.scope)")
    assert heads and set(heads) <= {"row", "col", "colgroup"}
    levels = browser.script("return [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    pictures = browser.script(
        "return [...document.querySelectorAll('[role=img], img')].map((e) => e.ariaLabel || e.alt)"
    )
    assert all(pictures)


def test_one_heading_says_how_the_table_is_sorted(visit):
    browser = visit("index")
    for key in ("name", "parameters", "measured0:autoattack linf 8/255"):
        orders = set()
        for _ in range(2):
            browser.script("document.querySelector(`#head [data-sort='${arguments[0]}']`).click()", key)
            (sorted_by,) = browser.all("#head th[aria-sort]")
            assert sorted_by.find_element("css selector", "button").get_attribute("data-sort") == key
            orders.add(sorted_by.get_attribute("aria-sort"))
        assert orders == {"ascending", "descending"}
    assert browser.one("#told").get_attribute("role") == "status" and "by AutoAttack" in browser.one("#told").text
    spoken = browser.one("#head [data-sort='measured0:robust linf 8/255']").get_attribute("textContent")
    assert spoken == "Best known L∞ 8/255, measured: Handwritten digits"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page", ["index", "measured"])
def test_the_focus_is_seen_wherever_it_goes(visit, page, scheme):
    browser = visit(page, dark=scheme == "dark")
    steps = 0
    for _ in range(45):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        tag, style, width = browser.script(
            "const e = document.activeElement, s = getComputedStyle(e);"
            "return [e.tagName, s.outlineStyle, s.outlineWidth]"
        )
        if tag == "BODY":
            break  # once around
        steps += 1
        assert style != "none" and float(width.removesuffix("px")) >= 2, tag
    assert steps > 5


def contrast(a, b):
    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * blue

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_colours_of_both_schemes_can_be_read(site):
    style = (site.parent / "style.css").read_text("utf-8")
    light, dark, chosen = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in
                           re.findall(r":root[^{]*\{([^}]*--paper[^}]*)\}", style))  # fmt: skip
    assert dark == chosen and light.keys() == dark.keys()
    for scheme in (light, dark):
        for pair in READ:
            ink, ground = pair.split(" on ")
            assert contrast(scheme[ink], scheme[ground]) >= 4.5, (pair, scheme[ink], scheme[ground])
        assert contrast(scheme["accent"], scheme["card"]) >= 3  # the outline of the focus


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("page", PAGES)
def test_a_narrow_screen_in_both_schemes(visit, page, scheme):
    browser = visit(page, width=360, height=800, dark=scheme == "dark")
    browser.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.script("return document.documentElement.scrollWidth") <= 360
    assert browser.script(PALE) == []
    assert browser.script(SMALL) == []
    if page == "index":  # the number that ranks stands beside the model's name
        name, number = (browser.one(f"#body {s}").rect for s in ("th", "td.sorted"))
        assert name["x"] + name["width"] <= number["x"] + 1 and number["x"] + number["width"] <= 360
    assert browser.console_errors() == [] and browser.requests() == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_figures_have_the_pages_colours(visit, scheme):
    browser = visit("measured", dark=scheme == "dark")
    label = browser.until(lambda: browser.all("[data-track] .role-axis-title text"))[0]
    ink = browser.script("return getComputedStyle(document.body).color")
    assert re.findall(r"\d+", browser.script("return getComputedStyle(arguments[0]).fill", label)) == re.findall(
        r"\d+", browser.script("const s = getComputedStyle(document.documentElement), e = document.createElement('i');"
                             "e.style.color = s.getPropertyValue('--soft'); document.body.append(e);"
                             "return getComputedStyle(e).color"))  # fmt: skip
    assert ink != browser.script("return getComputedStyle(document.body).backgroundColor")
