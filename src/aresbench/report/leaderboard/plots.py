"""The leaderboard's figures as Vega-Lite specifications; those of the index get their points from the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from aresbench.report.charts import GREY, HEIGHT, PALETTE

Record = Mapping[str, Any]

PARADIGMS = ("normal", "pre-trained", "self-supervised", "multi-modal", "adversarially trained", "not told")
_COLOURS = ("#7f8a12", "#2f7ed8", "#16967f", "#a05bd0", "#d23f72", GREY)


def paradigm_colours() -> alt.Color:
    """One colour for each way of training, the same in all figures."""
    return alt.Color("paradigm:N", scale=alt.Scale(domain=list(PARADIGMS), range=list(_COLOURS)))


def scatter() -> dict[str, Any]:
    """Two columns against each other, a point a model; the page fills in points, titles and scales.

    Points: ``model, x, y, x_low, x_high, y_low, y_high, paradigm, source, flags, picked``.
    """
    base = alt.Chart(alt.NamedData("points")).encode(color=paradigm_colours())
    x = alt.X("x:Q", scale=alt.Scale(zero=False), axis=alt.Axis(grid=True))
    y = alt.Y("y:Q", scale=alt.Scale(zero=False), axis=alt.Axis(grid=True))
    rules = [
        base.mark_rule(opacity=0.25).encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y),
        base.mark_rule(opacity=0.25).encode(x=x, y=alt.Y("y_low:Q"), y2="y_high:Q"),
    ]
    dots = base.mark_point(filled=True, size=46, opacity=0.8).encode(
        x=x,
        y=y,
        shape=alt.Shape("source:N", title=None, scale=alt.Scale(domain=["measured", "published"])),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("model", "paradigm", "source", "x", "y", "flags")],
    )
    label = base.transform_calculate(label="(datum.picked ? datum.model : '') + (datum.flags ? ' ⚑' : '')")
    names = label.mark_text(align="left", dx=7, fontSize=11.5).encode(x=x, y=y, text="label:N")
    return finish(alt.layer(*rules, dots, names), HEIGHT)


def overlay() -> dict[str, Any]:
    """Curves of several models over each other. Points: ``label, place, value, low, high, at`` in percent."""
    colours = alt.Color("label:N", scale=alt.Scale(range=list(PALETTE)))
    base = alt.Chart(alt.NamedData("points")).encode(
        x=alt.X("place:Q", axis=alt.Axis(grid=False), scale=alt.Scale(zero=False, nice=False)), color=colours
    )
    y = alt.Y("value:Q", title="accuracy, %", scale=alt.Scale(domain=[0, 100]))
    tips = [alt.Tooltip(f"{name}:N") for name in ("label", "at", "value", "low", "high")]
    layers = (
        base.mark_area(opacity=0.12).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line(strokeWidth=2.2).encode(y=y),
        base.mark_point(filled=True, size=40).encode(y=y, tooltip=tips),
    )
    return finish(alt.layer(*layers), HEIGHT)


def pairs(points: Sequence[Record], x: str, y: str) -> dict[str, Any]:
    """Two accuracies in percent, a point a model, models of one architecture joined by a line.

    Args:
        points: ``model, x, y, paradigm, architecture, flags``.
        x, y: titles of the axes.
    """
    base = alt.Chart(alt.NamedData("points")).encode(
        x=alt.X("x:Q", title=x, scale=alt.Scale(zero=False)), y=alt.Y("y:Q", title=y, scale=alt.Scale(zero=False))
    )
    layers = (
        base.mark_line(color=GREY, opacity=0.5).encode(detail="architecture:N"),
        base.mark_point(filled=True, size=40, opacity=0.75).encode(color=paradigm_colours(), tooltip=_tips("x", "y")),
        _flags(base),
    )
    return finish(alt.layer(*layers), HEIGHT, points)


def strip(points: Sequence[Record], x: str) -> dict[str, Any]:
    """One accuracy in percent, a mark a model, Transformers and others on lines of their own."""
    base = alt.Chart(alt.NamedData("points")).encode(
        x=alt.X("x:Q", title=x, scale=alt.Scale(zero=False)), y=alt.Y("kind:N", title=None)
    )
    ticks = base.mark_tick(thickness=2, size=34, opacity=0.7).encode(color=paradigm_colours(), tooltip=_tips("x"))
    return finish(alt.layer(ticks, _flags(base)), 110, points)


def _flags(base: alt.Chart) -> alt.Chart:
    """A flag beside each point that there is a reason to doubt."""
    flag = base.transform_calculate(flag="datum.flags ? '⚑' : ''")  # a filter that leaves nothing would warn
    return flag.mark_text(align="left", dx=5, fontSize=12).encode(text="flag:N")


def _tips(*values: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:N") for name in ("model", "architecture", "paradigm", *values, "flags")]


def finish(chart: Any, height: int, points: Sequence[Record] = ()) -> dict[str, Any]:
    """A specification as wide as its box, dark on white, that looks nothing up, with its points inside."""
    spec = dict(chart.properties(width="container", height=height).to_dict(validate=False))
    del spec["$schema"]
    spec["datasets"] = {"points": [dict(p) for p in points]}
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    legend = {"title": None, "orient": "top", "labelFontSize": 12, "symbolOpacity": 1}
    spec["config"] = {"background": "#ffffff", "view": {"stroke": None}, "legend": legend}
    return spec
