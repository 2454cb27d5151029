"""``aresbench leaderboard`` writes the site and says where it is."""

from pathlib import Path


def test_published_numbers_alone(command):
    said = command("leaderboard", "-o", "board", "--published", "paper, easyrobust")
    assert (said.status, said.out.strip(), said.err) == (0, str(Path("board", "index.html")), "")
    assert {p.name for p in Path("board").iterdir()} == {
        "index.html", "models", "style.css", "charts.js", "tables.js",
    }  # fmt: skip
    assert len(list(Path("board", "models").iterdir())) == 28
    (page,) = Path("board", "models").glob("zoo-swinb-at-*")
    assert "ARES_Swin_base_patch4_window7_224_AT.pth" in page.read_text("utf-8").replace("<wbr>", "")  # the zoo's card


def test_what_cannot_be_is_said_with_its_remedy(command):
    said = command("leaderboard", "--published", "robustbensh")
    assert said.status == 2 and "did you mean 'robustbench'" in said.err
    assert "nothing to rank" in command("leaderboard", "--published", "none").err
    said = command("leaderboard", "nowhere", "--published", "paper")
    assert said.status == 2 and "nowhere" in said.err
    assert not Path("site").exists() and not Path("nowhere").exists()
