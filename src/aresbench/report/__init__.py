"""One page about chosen results. The room can be called: ``aresbench.report([results, other], "report.html")``.

A package's attribute ``report`` is this module as soon as anything in it is imported, so the function of that name
lives here (docs/decisions/0002).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from aresbench.core.errors import SpecError


class _Room(ModuleType):
    def __call__(self, results: Any, path: str | Path = "report.html", command: str | None = None) -> Path:
        """Write the report about results as one HTML file that needs no network.

        Args:
            results: what ``evaluate`` returned, or a list of such results or cells.
            path: the file to write.
            command: how to reproduce it; default: the commands that the cells recorded.

        Returns:
            the path written.

        Raises:
            StoreError: no image has been measured yet, or the file cannot be written.
        """
        from aresbench.report.page import build_report

        return build_report(_flat(results), path, command)


def _flat(results: Any) -> Iterator[Any]:
    """Cells and readings out of lists of them, however nested.

    Raises:
        SpecError: something that holds no results, such as a folder's name.
    """
    if isinstance(results, str | Path):
        raise SpecError(f"{str(results)!r} is not results", f"write report(Store({str(results)!r}).require_cells())")
    if not isinstance(results, Iterable):
        raise SpecError(f"a {type(results).__name__} is not results", "give what evaluate returned, or a list of such")
    for item in results:
        if isinstance(item, Iterable | Path):
            yield from _flat(item)
        else:
            yield item


sys.modules[__name__].__class__ = _Room
