"""What every page is made with: safe JSON and scripts, the chart library, breakable names, templates."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import metadata
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup, escape


def json_text(value: Any) -> Markup:
    """JSON that may stand inside a script element, whatever the names in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def breakable(text: str) -> Markup:
    """A name that may be broken after its punctuation where a line is short."""
    return Markup(re.sub(r"([:/_.@-])(?=\w)", r"\1<wbr>", str(escape(text))))


def script(code: str) -> Markup:
    """Code that may stand inside a script element."""
    return Markup(re.sub(r"</(script)", r"<\\/\1", code, flags=re.IGNORECASE))


@cache
def chart_library() -> str:
    """Vega and what belongs to it, as one script."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def template(text: str) -> jinja2.Template:
    """A template in which everything is escaped and nothing may be undefined."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    return environment.from_string(text)


def version() -> str:
    """The package's version, for the foot of a page."""
    try:
        return metadata.version("aresbench")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "(source tree)"
