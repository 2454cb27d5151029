"""A site of five measured models beside every published table, built once."""

from pathlib import Path

import pytest

from aresbench.report.leaderboard.site import build_leaderboard


@pytest.fixture(scope="session")
def site(full_store, tmp_path_factory) -> Path:
    return build_leaderboard(full_store.cells(), tmp_path_factory.mktemp("leaderboard") / "deep" / "site")
