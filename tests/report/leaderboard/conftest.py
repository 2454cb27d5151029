"""Sites: five measured models beside every published table, and one of submissions and an unverified model."""

from pathlib import Path

import pytest

from aresbench.models.zoo import entries, entry
from aresbench.report.leaderboard.site import build_leaderboard


@pytest.fixture(scope="session")
def site(full_store, tmp_path_factory) -> Path:
    cards = {f"zoo:{name}": one.facts() for name, one in entries().items()}
    folder = tmp_path_factory.mktemp("leaderboard") / "deep" / "site"
    return build_leaderboard(full_store.cells(), folder, cards=cards)


@pytest.fixture(scope="session")
def doubtful_site(doubtful_store, tmp_path_factory) -> Path:
    cards = {"zoo:swinb_at": entry("swinb_at").facts(), "zoo:vitb_at": entry("resnet152_fd").facts()}
    return build_leaderboard(doubtful_store.cells(), tmp_path_factory.mktemp("doubtful") / "site", ["paper"], cards)
