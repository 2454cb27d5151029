"""The gate for commercial use, in an evaluation of several datasets."""

from __future__ import annotations

import aresbench as ab


def test_the_commercial_gate_is_told_to_the_suites_own_models_too(tmp_path):
    path = tmp_path / "mine.toml"
    block = '[[tasks]]\ndata = "{}"\nn = 2\nthreats = ["clean"]\n'
    head = 'name = "mine"\ntitle = "Two datasets"\nmodels = ["samples:digits-plain"]\n'
    path.write_text(head + block.format("digits") + block.format("samples"))
    run = {"store": tmp_path / "runs", "doctor": False}
    assert ab.evaluate(None, str(path), **run).skipped == [], "that samples do not suit digits need not be told"
    (left_out,) = ab.evaluate(None, str(path), commercial=True, **run).skipped
    assert left_out.task.dataset == "samples" and "samples is refused by the gate" in left_out.reason
