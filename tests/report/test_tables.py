import io
from dataclasses import replace

import numpy as np
from rich.console import Console

from aresbench.metrics import Score
from aresbench.report.compare import compare
from aresbench.report.summary import summarise
from aresbench.report.tables import (
    LiveTable,
    comparison_html,
    comparison_table,
    html_table,
    model_tables,
    summary_html,
    text_table,
)
from aresbench.report.words import number, plain


def console(terminal: bool, width: int = 140) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, no_color=True)


def test_piped_rows_are_plain_lines(full_store):
    out = console(False, width=40)
    cell = next(c for c in full_store.cells() if c.description["task"]["name"] == "APGD-CE-50")
    with LiveTable(out) as table:
        table.status("12 min left")
        table.add(cell, seconds=75)
        table.failed("m", "digits", "clean", "no file [a]")
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 3, "one line per pinned budget and one for the failure, never folded"
    assert lines[0].endswith("1 min 15") and "n=" in lines[0] and "[" in lines[0]
    assert lines[2] == "m  digits  clean  failed: no file [a]"
    assert "\x1b" not in out.file.getvalue() and "left" not in out.file.getvalue()


def test_terminal_rows_come_one_by_one_under_one_header(full_store):
    out = console(True)
    with LiveTable(out) as table:
        for cell in full_store.cells()[:3]:
            before = out.file.getvalue().count("samples:")
            table.add(cell)
            assert out.file.getvalue().count("samples:") == before + 1
    assert out.file.getvalue().count("95 % interval") == 1


def test_closing_tables_show_missing_as_a_dash(maker):
    robust, plain_model = maker.models[:2]
    maker.everything(robust)
    maker.clean(plain_model, np.zeros(300, dtype=int), np.zeros(300, dtype=bool))
    out = console(False, width=160)
    for table in model_tables(maker.store.cells()):
        out.print(table)
    line = next(text for text in out.file.getvalue().splitlines() if "digits-plain" in text)
    assert line.count("–") == 4 and line.count("0.0\u202f%") == 1


def test_columns_that_do_not_fit_go_into_a_further_part_and_nothing_is_cut(full_store):
    wide, narrow = console(False, 400), console(False, 60)
    for table in model_tables(full_store.cells()):
        wide.print(table)
        narrow.print(table)
    text = narrow.file.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 60
    assert text.count("┃ model ") > wide.file.getvalue().count("┃ model ") == 2
    values = [line for line in wide.file.getvalue().splitlines() if "samples:" in line]
    for cell in {part.strip() for line in values for part in line.split("│")} - {""}:
        assert cell in text


def test_notebook_tables_escape_names(maker):
    made = replace(maker.models[0], model="<script>alert(1)</script>")
    maker.clean(made, np.zeros(9, dtype=int), np.ones(9, dtype=bool))
    html = summary_html(summarise(maker.store.cells()))
    assert "<script" not in html and "&lt;script&gt;" in html and "<td><b>100" in html
    comparison = compare(maker.store.cells(), maker.store.cells())
    assert "<script" not in comparison_html(comparison)
    out = console(False)
    out.print(comparison_table(comparison))
    assert "+0.0" in out.file.getvalue()


def test_results_have_a_text_and_a_notebook_face(full_store):
    text, html = text_table(full_store.cells()), html_table(full_store.cells())
    for model in ("samples:digits-robust", "samples:efficientnet-lite1"):
        assert model in text and model in html
    assert html.count("<table>") == 2 and "\x1b" not in text
    assert text_table([]) == "nothing measured yet" and "nothing measured" in html_table([])


def test_numbers_as_people_read_them():
    assert number(0.6434, n=300) == "64.3\u202f%" and number(0.9, n=20) == "90\u202f%" and number(float("nan")) == "–"
    assert plain(Score(0.5, 20, 0.3, 0.7)) == "50\u202f% [30–70\u202f%]" and plain(None) == "–"
