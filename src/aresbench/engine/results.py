"""Results of a run: a view of cells in the archive, as tables of tasks, images and attempts."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from aresbench.core.errors import UnknownName, did_you_mean
from aresbench.report.points import curve_points
from aresbench.report.reading import Reading
from aresbench.report.summary import frame, summarise
from aresbench.report.tables import model_tables, summary_html

if TYPE_CHECKING:
    import pandas as pd

    from aresbench.engine.plan import Skipped


class Results:
    """What models did on tasks, one cell per model and task, over the images that were asked for.

    Args:
        readings: one per cell, restricted to the images of this view.
        skipped: tasks that were left out, and why.
    """

    def __init__(self, readings: Sequence[Reading], skipped: Sequence[Skipped] = ()) -> None:
        self.readings = list(readings)
        self.skipped = list(skipped)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, each once; ``results[name]`` selects by them."""
        return list(dict.fromkeys(r.name for r in self.readings))

    @property
    def models(self) -> list[str]:
        """Names of the models, each once."""
        return list(dict.fromkeys(r.model for r in self.readings))

    @property
    def failed(self) -> list[Skipped]:
        """Cells that stopped with an error."""
        return [s for s in self.skipped if s.failed]

    def __getitem__(self, name: str) -> Results:
        """The cells of one task, or of one model.

        Raises:
            UnknownName: neither a task nor a model of these results.
        """
        chosen = [r for r in self.readings if name in (r.name, r.model, r.dataset)]
        if not chosen:
            known = [*self.tasks, *self.models]
            raise UnknownName(f"no task or model is called {name!r}", did_you_mean(name, known) or ", ".join(known))
        return Results(chosen)

    def __iter__(self) -> Iterator[Reading]:
        return iter(self.readings)

    def __len__(self) -> int:
        return len(self.readings)

    def frame(self) -> pd.DataFrame:
        """One row per model and task: value, n, interval, cost, flags."""
        return frame(self.readings)

    def images(self) -> pd.DataFrame:
        """One row per model, task and image."""
        return self._joined("images")

    def attempts(self) -> pd.DataFrame:
        """One row per model, task, image, attack and rung."""
        return self._joined("attempts")

    def curves(self) -> pd.DataFrame:
        """One row per point of every curve: over budgets, steps and queries, with intervals and bands."""
        return curve_points(self.readings)

    def _joined(self, table: str) -> pd.DataFrame:
        import pandas as pd

        parts = []
        for reading in self.readings:
            part = getattr(reading, table)
            part = part.reset_index() if table == "images" else part.copy()
            part.insert(0, "task", reading.name)
            part.insert(0, "dataset", reading.dataset)
            part.insert(0, "model", reading.model)
            parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def __repr__(self) -> str:
        if not self.readings:
            return "<no results>"
        console = Console(width=120, record=True, file=io.StringIO())
        for table in model_tables(self.readings):
            console.print(table)
        return console.export_text().rstrip()

    def _repr_html_(self) -> str:
        return summary_html(summarise(self.readings))
