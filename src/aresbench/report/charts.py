"""Curves and bars as Vega-Lite specifications with their data inside.

Every function takes plain records (made in ``summary``) and returns a dict. Colours belong to
models and are the same in all figures. Figures are as wide as the box they stand in; text and grid
take their on-screen colour from the page's style sheet, so that a saved figure is dark on white.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import altair as alt

from aresbench.core.budget import parse_fraction
from aresbench.report.breakers import CLEAN, RESISTED, SEVERAL
from aresbench.report.reading import NORM_NAMES

Record = Mapping[str, Any]

# At least 3:1 against white and against the dark page alike, and told apart by the colour-blind.
PALETTE = ("#2f7ed8", "#d9690f", "#16967f", "#a05bd0", "#d23f72", "#7f8a12", "#2592b5", "#a9653a")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
GREY, FAINT = "#8a94a3", "#c9d2dc"

_DASHES = [[1, 0], [6, 4], [2, 3], [8, 3, 2, 3]]

HEIGHT, SMALL = 330, 190
CROWD = 24  # budgets up to which each point is marked
LONG = 200  # steps or queries from which on their axis is logarithmic
ACCURACY, SUCCESS = "accuracy under attack", "attack success rate"
FOLLOW = "follow"  # models picked in another figure

_CONFIG: dict[str, Any] = {
    "background": "#ffffff",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "#3d4856", "titleColor": "#3d4856", "gridColor": "#e3e8ee", "domain": False, "ticks": False,
        "labelPadding": 8, "titlePadding": 12, "titleFontWeight": 500, "labelFontSize": 11.5, "titleFontSize": 12.5,
    },
    "legend": {
        "labelColor": "#3d4856", "title": None, "orient": "top", "labelFontSize": 12.5, "symbolSize": 90,
        "labelLimit": 280, "offset": 14, "symbolStrokeWidth": 2, "columnPadding": 18,
    },
}  # fmt: skip


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def epsilon_chart(
    records: Sequence[Record], norm: str, pinned: Sequence[str], models: Sequence[str], title: str = ACCURACY
) -> dict[str, Any]:
    """Robust accuracy (or attack success) against the budget, one line with its band a model.

    Args:
        records: ``model, budget`` (exact text), ``value, low, high, band_low, band_high`` in [0, 1], ``n, interval``.
        norm: which norm the budgets are of.
        pinned: the texts of budgets attacked in full, drawn as upright lines.
        models: all models of the report in their fixed order, which gives them their colours.
        title: what ``value`` is.
    """
    budgets = sorted({str(r["budget"]) for r in records}, key=parse_fraction)
    place, geometric = positions(budgets)
    rows = [{**r, "place": place[str(r["budget"])]} for r in records]
    labels = _expression({place[b]: axis_label(b) for b in budgets})
    scale = "logarithmic steps" if geometric else "even steps"
    x = alt.X(
        "place:Q",
        title=f"{NORM_NAMES.get(norm, norm)} budget ε ({scale})",
        axis=alt.Axis(
            values=[place[b] for b in budgets], labelExpr=labels, labelOverlap="greedy", labelSeparation=8, grid=False
        ),
        scale=alt.Scale(nice=False, zero=False, padding=14),
    )
    pins = [{"place": place[b]} for b in pinned if b in place]
    layers = [alt.Chart(_data(pins)).mark_rule(strokeDash=[2, 4], color=GREY).encode(x=x)] if pins else []
    layers += _lines(rows, x, models, title, [("budget", "budget ε")], points=len(budgets) <= CROWD)
    return _finish(alt.layer(*layers), HEIGHT, f"{title.capitalize()} against the budget, one line for each model.")


def severity_chart(
    records: Sequence[Record],
    models: Sequence[str],
    height: int = SMALL,
    legend: bool = True,
    ordered: bool = True,
) -> dict[str, Any]:
    """Accuracy against a corruption's severity (0 is the clean image), one line with its band a model.

    ``legend=False`` leaves the names to a larger figure beside it, whose legend then serves both. Where severities are
    not ``ordered`` by harm, points stand alone: between two of them nothing is known.
    """
    x = alt.X(
        "severity:Q",
        title="severity",
        axis=alt.Axis(values=sorted({r["severity"] for r in records}), format="d", grid=False),
        scale=alt.Scale(nice=False, zero=False, padding=14),
    )
    lines = _lines(records, x, models, "accuracy", [("severity", "severity")], legend=legend, joined=ordered)
    each = "one line for each model" if ordered else "one point for each model and severity, not joined"
    return _finish(alt.layer(*lines), height, f"Accuracy against severity, {each}.")


def filter_chart(records: Sequence[Record], name: str, models: Sequence[str]) -> dict[str, Any]:
    """Accuracy against the radius of a frequency filter, one line with its band a model."""
    kept = {"lowpass": "waves up to it are kept", "highpass": "waves beyond it are kept"}.get(name, "")
    x = alt.X(
        "radius:Q",
        title="radius in waves per image side" + (f" ({kept})" if kept else ""),
        axis=alt.Axis(grid=False, format="d"),
        scale=alt.Scale(nice=False, padding=14),
    )
    lines = _lines(records, x, models, "accuracy", [("radius", "radius")], points=len(records) <= CROWD * len(models))
    return _finish(alt.layer(*lines), HEIGHT - 70, "Accuracy against the radius of a filter, one line for each model.")


def shift_chart(
    points: Sequence[Record], lines: Sequence[Record], models: Sequence[str], parent: str, shift: str
) -> dict[str, Any]:
    """Accuracy on a shift against accuracy on its parent, beside the lines and bands of named baselines.

    Args:
        points: ``model, before, before_low, before_high, value, low, high`` in [0, 1], ``n, interval``.
        lines: ``baseline, before, expected``, and ``low, high`` where the scatter of the baseline's models is known.
        models: all models of the report in their fixed order.
        parent, shift: what the axes are called.
    """
    present = [m for m in models if any(p["model"] == m for p in points)]
    colours = alt.Scale(domain=present, range=[colour(list(models).index(m)) for m in present])
    shapes = alt.Scale(domain=present, range=[SHAPES[list(models).index(m) % len(SHAPES)] for m in present])
    scale = alt.Scale(zero=False, nice=True)
    x = alt.X("before:Q", title=f"accuracy on {parent}", axis=alt.Axis(format="%", tickCount=6), scale=scale)
    y = alt.Y("value:Q", title=f"accuracy on {shift}", axis=alt.Axis(format="%", tickCount=6), scale=scale)
    names = list(dict.fromkeys(str(r["baseline"]) for r in lines))
    dashes = alt.StrokeDash("baseline:N", title=None, scale=alt.Scale(domain=names, range=_DASHES[: len(names)]))
    banded = [r for r in lines if r["low"] is not None]
    layers = []
    if banded:
        of_band = alt.Chart(_data(banded)).mark_area(color=GREY, opacity=0.18)
        layers.append(of_band.encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), detail="baseline:N"))
    if lines:
        drawn = alt.Chart(_data(lines)).mark_line(color=GREY, strokeWidth=1.6)
        layers.append(drawn.encode(x=x, y=alt.Y("expected:Q"), strokeDash=dashes, detail="baseline:N"))
    base = alt.Chart(_data(points)).encode(color=alt.Color("model:N", scale=colours))
    layers += [
        base.mark_rule(strokeWidth=1.4, opacity=0.7).encode(x=x, y=alt.Y("low:Q"), y2=alt.Y2("high:Q")),
        base.mark_rule(strokeWidth=1.4, opacity=0.7).encode(x="before_low:Q", x2="before_high:Q", y=y),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x,
            y=y,
            shape=alt.Shape("model:N", scale=shapes),
            tooltip=[
                alt.Tooltip("model:N", title="model"),
                alt.Tooltip("before:Q", title=f"on {parent}", format=".1%"),
                alt.Tooltip("value:Q", title=f"on {shift}", format=".1%"),
                alt.Tooltip("interval:N", title="95 % interval"),
                alt.Tooltip("n:Q", title="images (n)"),
            ],
        ),
    ]
    alternative = f"Accuracy on {shift} against accuracy on {parent}, one point for each model."
    return _finish(alt.layer(*layers), HEIGHT - 30, alternative)


def progress_chart(records: Sequence[Record], axis: str, models: Sequence[str]) -> dict[str, Any]:
    """Accuracy still standing after each step or query of a run at one pinned budget.

    Args:
        records: as for ``epsilon_chart``, with their place under the axis's name in place of a budget.
        axis: ``step`` or ``query``.
        models: all models of the report in their fixed order.
    """
    most = max((r[axis] for r in records), default=0)
    long = most > LONG
    tens = [0, *(10**k for k in range(int(math.log10(most)) + 1))] if long else []
    marks = {"values": tens, "format": "~s"} if long else {"tickMinStep": 1, "format": "d"}
    x = alt.X(
        f"{axis}:Q",
        title={"step": "attack step", "query": "queries"}[axis] + (" (logarithmic)" if long else ""),
        axis=alt.Axis(grid=False, **marks),
        scale=alt.Scale(nice=False, type="symlog") if long else alt.Scale(nice=False),
    )
    lines = _lines(records, x, models, ACCURACY, [(axis, f"after {axis}")], points=False)
    return _finish(alt.layer(*lines), SMALL, f"Accuracy under attack after each {axis} of an attack, a line a model.")


def breaker_chart(records: Sequence[Record], models: Sequence[str], attacks: Sequence[str]) -> dict[str, Any]:
    """Who broke it: each model's images split into broken by one attack, by several, resisted, wrong before.

    Args:
        records: ``model, outcome, share, count, n``.
        models: models that have a bar, in order.
        attacks: the attacks among the outcomes, in a fixed order.
    """
    outcomes = [CLEAN, *attacks, SEVERAL, RESISTED]
    present = [o for o in outcomes if any(r["outcome"] == o for r in records)]
    shades = {CLEAN: GREY, RESISTED: FAINT, SEVERAL: "#5b3a8c"}
    colours = [shades.get(o) or colour(attacks.index(o) + 1) for o in present]
    rows = [{**r, "order": outcomes.index(r["outcome"])} for r in records]
    pick = alt.selection_point(name="pick", fields=["outcome"], bind="legend")
    bars = (
        alt.Chart(_data(rows))
        .mark_bar(height={"band": 0.62}, stroke="#ffffff", strokeWidth=0.6)
        .encode(
            y=alt.Y("model:N", sort=list(models), title=None, axis=alt.Axis(labelLimit=170, grid=False)),
            x=alt.X("share:Q", stack="zero", title="share of images", axis=alt.Axis(format="%"),
                    scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("outcome:N", scale=alt.Scale(domain=present, range=colours)),
            order=alt.Order("order:Q"),
            opacity=alt.condition(pick, alt.value(1), alt.value(0.15)),
            tooltip=[
                alt.Tooltip("model:N", title="model"), alt.Tooltip("outcome:N", title="outcome"),
                alt.Tooltip("share:Q", title="share", format=".1%"),
                alt.Tooltip("count:Q", title="images"), alt.Tooltip("n:Q", title="of n"),
            ],
        )
        .add_params(pick)
    )  # fmt: skip
    return _finish(bars, 34 * len(models) + 10, "Share of images by outcome, one bar for each model.")


def positions(budgets: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Where each budget stands on the axis, and whether its steps are logarithmic.

    Zero has no logarithm: on a logarithmic axis it stands one step left of the smallest rung.
    """
    sizes = {b: parse_fraction(b) for b in budgets}
    positive = sorted(s for s in sizes.values() if s > 0)
    geometric = len(positive) > 2 and _more_geometric(positive)
    if not geometric:
        unit = 255 if any("/255" in b for b in budgets) else 1
        return {b: round(float(s * unit), 6) for b, s in sizes.items()}, False
    logs = [math.log2(s) for s in positive]
    step = (logs[-1] - logs[0]) / (len(logs) - 1)
    return {b: round(math.log2(s) if s else logs[0] - step, 4) for b, s in sizes.items()}, True


def _more_geometric(sizes: Sequence[Fraction]) -> bool:
    """Are the ratios between rungs steadier than their differences?"""
    ratios = [float(b / a) for a, b in itertools.pairwise(sizes)]
    gaps = [float(b - a) for a, b in itertools.pairwise(sizes)]
    return max(ratios) / min(ratios) < max(gaps) / min(gaps)


def axis_label(budget: str) -> str:
    """``1/16/255`` → ``1⁄16/255``, ``1/2/255`` → ``½/255``, ``4/255`` as it is: short enough to stand side by side."""
    if not budget.endswith("/255"):
        return budget
    head = budget.removesuffix("/255")
    glyphs = {
        "1/2": "½",
        "1/4": "¼",
        "3/4": "¾",
        "1/8": "⅛",
        "3/8": "⅜",
        "5/8": "⅝",
        "7/8": "⅞",
        "3/2": "1½",
        "5/2": "2½",
    }
    return f"{glyphs.get(head, head.replace('/', '⁄'))}/255"


def _lines(
    rows: Sequence[Record],
    x: alt.X,
    models: Sequence[str],
    title: str,
    where: Sequence[tuple[str, str]],
    points: bool = True,
    legend: bool = True,
    joined: bool = True,
) -> list[alt.Chart]:
    """A band, a line and its points for each model; a click on the legend brings one model to the fore.

    Points that are not ``joined`` have upright intervals in place of line and band.
    """
    present = [m for m in models if any(r["model"] == m for r in rows)]
    index = {m: i for i, m in enumerate(models)}
    shown = alt.Legend(symbolOpacity=1) if legend else None
    colours = alt.Scale(domain=present, range=[colour(index[m]) for m in present])
    shapes = alt.Scale(domain=present, range=[SHAPES[index[m] % len(SHAPES)] for m in present])
    axis, whole = alt.Axis(format="%", tickCount=5), alt.Scale(domain=[0, 1])
    if legend:
        pick = alt.selection_point(name="pick", fields=["model"], bind="legend")
        chosen: Any = pick
    else:  # the page writes here what was picked in the legend of the figure beside it
        pick = alt.param(name=FOLLOW, value=[])
        chosen = f"!length({FOLLOW}) || indexof({FOLLOW}, datum.model) >= 0"

    def opacity(on: float, off: float) -> Any:
        return alt.condition(chosen, alt.value(on), alt.value(off))

    base = alt.Chart(_data(rows)).encode(x=x, color=alt.Color("model:N", scale=colours, legend=shown))
    band = (base.mark_area() if joined else base.mark_rule(strokeWidth=4)).encode(
        y=alt.Y("band_low:Q", title=title, axis=axis, scale=whole),
        y2=alt.Y2("band_high:Q"),
        opacity=opacity(0.14 if joined else 0.35, 0.02),
    )
    line = base.mark_line(strokeWidth=2.2).encode(
        y=alt.Y("value:Q", title=title, axis=axis, scale=whole), opacity=opacity(1, 0.1)
    )
    dots = base.mark_point(filled=True, size=58 if points else 26).encode(
        y=alt.Y("value:Q", title=title, axis=axis, scale=whole),
        shape=alt.Shape("model:N", scale=shapes, legend=shown),
        opacity=opacity(1, 0.08) if points else alt.value(0.01),  # there to be pointed at, not to be seen
        tooltip=[
            alt.Tooltip("model:N", title="model"),
            *(alt.Tooltip(f"{field}:N", title=name) for field, name in where),
            alt.Tooltip("value:Q", title=title, format=".1%"),
            alt.Tooltip("interval:N", title="95 % interval, this point alone"),
            alt.Tooltip("n:Q", title="images (n)"),
        ],
    )
    return [band, *([line] if joined else []), dots.add_params(pick)]


def _expression(labels: Mapping[float, str]) -> str:
    """A Vega expression that writes a known label at each place."""
    tests = " : ".join(f"abs(datum.value - {place}) < 1e-3 ? '{label}'" for place, label in labels.items())
    return f"{tests} : ''"


def _data(rows: Sequence[Record]) -> alt.Data:
    return alt.Data(values=[dict(r) for r in rows])


def _finish(chart: Any, height: int, alternative: str) -> dict[str, Any]:
    """The specification of a chart; the tests check it against Vega-Lite's schema, not every run."""
    spec = chart.properties(width="container", height=height, description=alternative).to_dict(validate=False)
    del spec["$schema"]  # the bundle inside the page is the version; nothing is looked up
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    spec["config"] = _CONFIG
    return dict(spec)
