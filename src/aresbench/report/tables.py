"""Tables for the terminal, which grow while a run goes on, and for notebooks."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from markupsafe import Markup
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aresbench.report.compare import Comparison
from aresbench.report.pairs import Pair
from aresbench.report.reading import Reading, read
from aresbench.report.summary import Row, Section, Summary, main_measures, summarise
from aresbench.report.words import MISSING, interval, number, plain
from aresbench.store import Cell

_HEADINGS = ("model", "dataset", "task", "measure", "score", "95 % interval", "n", "time")
_NOTHING = "nothing measured yet"
_SHARES = (5, 3, 4, 5)  # how the first four columns share what the numbers leave
_NAME = 30  # characters of a model's name before it is folded
_FRAME = 3  # what a column's border and padding take


class LiveTable:
    """One row per finished cell, printed as it comes; a status line below it while the run goes on.

    Rows are printed once and stay in the terminal's history, so that a long run scrolls like any
    other output. Where the output is piped there is no status line and no header: plain lines only.

    Args:
        console: where to print; default: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._live: Live | None = None
        self._began = False

    def __enter__(self) -> LiveTable:
        if self.console.is_terminal:
            self._live = Live(console=self.console, transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def add(self, cell: Cell | Reading, seconds: float | None = None) -> None:
        """Print a finished cell: one line per number, e.g. one per pinned budget."""
        (reading,) = read([cell])
        for i, (measure, score) in enumerate(main_measures(reading).items()):
            flags = f" ⚑ {', '.join(score.flags)}" if score.flags else ""
            time = _time(seconds) if i == 0 else ""
            if self.console.is_terminal:
                value = Text.assemble((number(score.value, score.unit, score.n), "bold"), (flags, "yellow"))
                name = (reading.model, reading.dataset, reading.name) if i == 0 else ("", "", "")
                self._row(*name, measure, value, interval(score), str(score.n), time)
            else:
                what = f"{reading.model}  {reading.dataset}  {reading.name}  {measure}"
                tail = f"  {time}" if time else ""
                self._line(f"{what}  {plain(score)} n={score.n}{flags}{tail}")

    def failed(self, model: str, dataset: str, task: str, reason: str) -> None:
        """Print a cell that could not be measured, with the reason."""
        if self.console.is_terminal:
            self._row(model, dataset, task, "failed", Text(MISSING, "red"), "", "", "")
            self.console.print(Text(f"  {reason}", "red"))
        else:
            self._line(f"{model}  {dataset}  {task}  failed: {reason}")

    def status(self, text: str) -> None:
        """What is going on now, in one line below the table; nothing where the output is piped."""
        if self._live is not None:
            self._live.update(Text(text, "dim", no_wrap=True, overflow="ellipsis"))

    def _row(self, *cells: str | Text) -> None:
        if not self._began:
            self._began = True
            self.console.print(self._grid([Text(h, "dim") for h in _HEADINGS]))
        self.console.print(self._grid([c if isinstance(c, Text) else Text(c) for c in cells]))

    def _grid(self, cells: Sequence[Text]) -> Table:
        """One row as a table of fixed widths, so that rows printed apart stand in line."""
        fixed = (8, 14, 6, 7)
        free = max(self.console.width - sum(fixed) - 2 * len(_HEADINGS), 40)
        widths = [free * share // sum(_SHARES) for share in _SHARES]
        grid = Table.grid(padding=(0, 2, 0, 0))
        for i, width in enumerate((*widths, *fixed)):
            grid.add_column(width=width, justify="left" if i < 4 else "right", overflow="fold")
        grid.add_row(*cells)
        return grid

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d}"


def model_tables(cells: Iterable[Cell | Reading]) -> list[ModelTable]:
    """The closing tables of a run: one per dataset, models by scores.

    Raises:
        StoreError: no image has been measured yet.
    """
    return [ModelTable(section) for section in summarise(cells).sections]


class ModelTable:
    """Models by scores on one dataset, as rich prints it: in several parts where the columns do not fit beside another.

    Args:
        section: the dataset's part of a summary.
    """

    def __init__(self, section: Section) -> None:
        self.section = section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = min(max(len(row.model) for row in self.section.rows), _NAME)
        images = max(1, *(len(row.images) for row in self.section.rows))
        room = options.max_width - names - images - 2 * _FRAME - 1
        parts: list[dict[str, str]] = [{}]  # key → heading
        left = room
        for column in self.section.columns:
            width = self._width(column.key, column.label) + _FRAME
            if width > left and parts[-1]:
                parts.append({})
                left = room
            parts[-1][column.key] = column.label
            left -= width
        for i, part in enumerate(parts):
            yield self._part(part, names, images, "" if i else self.section.title)

    def _part(self, columns: Mapping[str, str], names: int, images: int, title: str) -> Table:
        table = Table(title=title or None, title_justify="left", title_style="bold")
        table.add_column("model", overflow="fold", width=names)
        for key, label in columns.items():
            table.add_column(label, justify="right", width=self._width(key, label))
        table.add_column("n", justify="right", width=images)
        for row in self.section.rows:
            table.add_row(Text(row.model), *(_shown(row, key) for key in columns), Text(row.images))
        return table

    def _width(self, key: str, label: str) -> int:
        """Of the widest line of its numbers and the longest word of its heading."""
        lines = [line for row in self.section.rows for line in _shown(row, key).plain.splitlines()]
        return max(map(len, [*lines, *label.split()]))


def _shown(row: Row, key: str) -> Text:
    score = row.scores[key]
    if score is None or score.missing:
        return Text(MISSING, "dim")
    flag = (" ⚑" if score.flags else "", "yellow")
    value = (number(score.value, score.unit, score.n), "bold")
    return Text.assemble(value, flag, (f"\n{interval(score)}", "dim"))


def comparison_table(comparison: Comparison) -> Table:
    """A comparison for the terminal; a difference whose interval leaves zero out stands bold."""
    table = Table(caption="\n".join(comparison.notes) or None, caption_justify="left")
    for heading in ("dataset", "task", "measure"):
        table.add_column(heading, overflow="fold")
    for heading in (comparison.first, comparison.second, "difference (points)", "p (McNemar)", "n"):
        table.add_column(Text(heading), justify="right", overflow="fold")
    for pair in comparison.pairs:
        style = "bold" if pair.decided else "dim"
        scores = [Text(number(s.value, s.unit, s.n)) for s in (pair.first, pair.second)]
        p_value, n = Text(_p_value(pair)), Text(str(pair.difference.n))
        names = [Text(pair.dataset), Text(pair.task), Text(pair.measure)]
        table.add_row(*names, *scores, Text(pair.points, style), p_value, n)
    return table


def _p_value(pair: Pair) -> str:
    if pair.p_value is None:
        return MISSING
    return "< 0.001" if pair.p_value < 0.001 else f"{pair.p_value:.3f}"


def summary_html(summary: Summary) -> str:
    """The tables of models as plain HTML, for notebooks (``_repr_html_``)."""
    parts = []
    for section in summary.sections:
        heads = ["model", *(c.label for c in section.columns), "n"]
        rows = []
        for row in section.rows:
            scores = [_score_html(row, c.key) for c in section.columns]
            rows.append([row.model, *scores, row.images])
        parts.append(_html_table(section.title, heads, rows))
    return "".join(parts)


def comparison_html(comparison: Comparison) -> str:
    """A comparison as plain HTML, for notebooks."""
    heads = ["dataset", "task", "measure", comparison.first, comparison.second, "difference (points)", "p", "n"]
    rows = []
    for pair in comparison.pairs:
        difference = Markup("<b>{}</b>").format(pair.points) if pair.decided else pair.points
        names = [pair.dataset, pair.task, pair.measure, plain(pair.first), plain(pair.second)]
        rows.append([*names, difference, _p_value(pair), str(pair.difference.n)])
    notes = Markup("").join(Markup("<p>{}</p>").format(note) for note in comparison.notes)
    return _html_table("", heads, rows) + str(notes)


def html_table(cells: Iterable[Cell | Reading]) -> str:
    """The tables of models about these cells as HTML; a sentence where nothing has been measured."""
    measured = [r for r in read(cells) if len(r.images)]
    return summary_html(summarise(measured)) if measured else f"<p>{_NOTHING}</p>"


def text_table(cells: Iterable[Cell | Reading]) -> str:
    """The tables of models about these cells as text; a sentence where nothing has been measured."""
    measured = [r for r in read(cells) if len(r.images)]
    if not measured:
        return _NOTHING
    console = Console(file=io.StringIO(), width=max(120, shutil.get_terminal_size().columns), no_color=True)
    with console.capture() as capture:
        console.print(*model_tables(measured))
    return capture.get().rstrip()


def _score_html(row: Row, key: str) -> Markup | str:
    score = row.scores[key]
    if score is None or score.missing:
        return MISSING
    flags = Markup(' <span title="{}">⚑</span>').format(", ".join(score.flags)) if score.flags else ""
    value = number(score.value, score.unit, score.n)
    return Markup("<b>{}</b>{}<br><small>{}</small>").format(value, flags, interval(score))


def _html_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Every text is escaped, whatever its author called a model."""
    caption = Markup('<caption style="text-align:left;font-weight:bold">{}</caption>').format(title) if title else ""
    head = Markup("").join(Markup("<th>{}</th>").format(h) for h in heads)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in rows
    )
    return str(Markup("<table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(caption, head, body))
