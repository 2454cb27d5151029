"""The matrix of sources and targets."""

from __future__ import annotations

import pandas as pd

from aresbench.report.transfer_matrix import transfer_matrices


class Cell:
    """As much of a reading as a matrix needs."""

    plain_adversary = True
    flags = ()

    def __init__(self, source: str, broken: int, n: int = 10, eps: str = "8/255") -> None:
        self.task = {"threat": f"transfer(linf, {eps}, mim, from={source})"}
        values = [8 / 255] * broken + [float("inf")] * (n - broken)
        self.breaking = pd.Series(values)


class Plain(Cell):
    """Images that somebody submitted against the model itself."""

    def __init__(self) -> None:
        super().__init__("samples:digits-plain", 3)
        self.task = {"threat": "adversary(linf, 8/255, submission(ann))"}  # which no registry knows


def test_rows_are_sources_and_columns_targets():
    models = {
        "samples:digits-plain": [Cell("samples:digits-plain", 9), Cell("samples:digits-robust", 2), Plain()],
        "samples:digits-robust": [Cell("samples:digits-plain", 1), Cell("[timm:a.b, timm:c.d]", 4)],
    }
    (matrix,) = transfer_matrices(models)
    assert (matrix.attack, matrix.norm, matrix.eps) == ("mim", "linf", "8/255")
    assert matrix.targets == ("samples:digits-plain", "samples:digits-robust")
    assert matrix.sources == ("samples:digits-plain", "samples:digits-robust", "timm:a.b + timm:c.d")
    values = {(s, t): round(score.value, 3) for s, row in matrix.scores.items() for t, score in row.items()}
    assert values == {
        ("samples:digits-plain", "samples:digits-plain"): 0.1,
        ("samples:digits-robust", "samples:digits-plain"): 0.8,
        ("samples:digits-plain", "samples:digits-robust"): 0.9,
        ("timm:a.b + timm:c.d", "samples:digits-robust"): 0.6,
    }


def test_budgets_are_matrices_of_their_own():
    models = {"samples:digits-plain": [Cell("samples:digits-robust", 1), Cell("samples:digits-robust", 1, eps="4/255")]}
    assert [m.eps for m in transfer_matrices(models)] == ["8/255", "4/255"]
