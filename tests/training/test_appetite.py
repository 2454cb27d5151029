"""Does reading keep up with learning: what is measured, and what is said about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from aresbench.cli.main import main
from aresbench.core.flag import Flag
from aresbench.data.base import Dataset
from aresbench.data.load import load_dataset
from aresbench.training import appetite, journal
from aresbench.training.appetite import Appetite, Reading, examine, reading, verdict
from aresbench.training.images import Batch
from aresbench.training.journal import Journal
from aresbench.training.learner import make_learner
from aresbench.training.recipe import load_recipe
from aresbench.training.world import World


def said(
    rate: float = 400.0,
    hunger: float = 1000.0,
    *,
    workers: int = 4,
    cores: int = 16,
    side: int = 375,
    costs: tuple[float, float, float] = (0.0002, 0.004, 0.005),
) -> list[Flag]:
    supply = Reading(rate, workers, cores, *costs, side)
    return verdict(supply, Appetite(hunger, "a GPU"), 224)


def test_nothing_is_said_where_reading_is_faster() -> None:
    assert said(1101) == []
    assert said(1099) != []
    assert said(1e5, 1000, workers=0) == []


def test_the_figures_and_how_many_workers_would_do() -> None:
    (flag,) = said()
    assert (flag.name, flag.level) == ("reading-is-the-bottleneck", "warning")
    assert "4 workers make 400 images/s where the model learns from 1,000 on a GPU" in flag.message
    assert "wait 60% of the time" in flag.message and "0.2 ms to read, 4.0 ms to decode, 5.0 ms to vary" in flag.message
    assert flag.remedy == "machine.workers=11 would do, if each reads as fast (16 cores can be used)"
    (flag,) = said(cores=8)
    assert flag.remedy == "machine.workers=8 uses all cores, and 11 would be needed"
    (flag,) = said(workers=0, rate=500)
    assert "makes each image itself, 67% of its time" in flag.message and "machine.workers=3 would do" in flag.remedy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cores": 4}, "all 4 cores are at work"),
        ({"cores": 4, "costs": (0.02, 0.004, 0.005)}, "tar shards"),
        ({"cores": 4, "side": 1200}, "copies with 448, made once"),
        ({"cores": 4, "costs": (0.0002, 0.004, 0.02)}, "a lighter augment.policy"),
    ],
)
def test_what_to_change_follows_from_where_the_time_goes(settings: dict[str, object], words: str) -> None:
    (flag,) = said(**settings)  # type: ignore[arg-type]
    assert words in flag.remedy and "machine.workers" not in flag.remedy


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for k in range(40):
        (tmp_path / f"photos/{k % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (k, 0, 0)).save(tmp_path / f"photos/{k % 2}/{k}.png")
    return tmp_path / "photos"


def test_a_slow_disk_is_seen(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits-adversarial", ["machine.workers=1", f"data.train=folder:{photos}"])
    data = load_dataset(f"folder:{photos}")
    read = Dataset.file_bytes

    def slow(self: Dataset, i: int) -> bytes | None:
        time.sleep(0.01)
        return read(self, i)

    picture = Dataset.picture

    def slow_too(self: Dataset, i: int) -> Image.Image:
        time.sleep(0.01)
        return picture(self, i)

    monkeypatch.setattr(Dataset, "file_bytes", slow)
    monkeypatch.setattr(Dataset, "picture", slow_too)
    supply = reading(recipe, data, 0.5)
    assert 1 < supply.rate < 100 and supply.workers == 1 and supply.side == 40
    assert supply.read >= 0.01 and supply.decode >= 0.01


def test_learning_is_timed_where_it_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def learn(learner: object, batch: Batch) -> None:
        calls.append(len(batch.y))
        time.sleep(0.02)

    monkeypatch.setattr(appetite, "learn", learn)
    recipe = load_recipe("digits-adversarial")
    classes = load_dataset("digits").classes
    hunger = appetite.appetite(recipe, classes, World(0, 1, torch.device("cpu")), 0.3)
    assert set(calls) == {8, 64} and 100 < hunger.rate <= 3200 and hunger.device == "cpu"
    calls.clear()
    hunger = appetite.appetite(recipe, classes, World(0, 1, torch.device("cpu")), 0.02)
    assert set(calls) == {8}, "where an update takes long, few images do"


def test_a_recipe_is_examined_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    about, flags = examine(load_recipe("digits-adversarial"), "cpu", 0.1)
    assert about.startswith("reading without workers makes ") and about.endswith(" images/s on cpu")
    assert all(flag.name == "reading-is-the-bottleneck" for flag in flags)
    assert torch.equal(state, torch.get_rng_state()) and list(tmp_path.iterdir()) == []


def test_the_doctor_knows_recipes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path
) -> None:
    monkeypatch.setattr(appetite, "reading", lambda recipe, data, seconds: Reading(10, 2, 8, 0.1, 0.01, 0.01, 40))
    monkeypatch.setattr(appetite, "appetite", lambda *_: Appetite(100, "cpu"))
    mine = tmp_path / "mine.toml"
    mine.write_text(f"""
        [model]
        architecture = "small-cnn"
        size = 32
        [data]
        train = "folder:{photos}"
        held_out = 8
        [schedule]
        epochs = 1
        [engine]
        batch = 8
    """)
    assert main(["doctor", str(mine)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{mine}: 2 workers read 10 images/s; the model learns from 100 images/s on cpu\n")
    assert "! warning: reading-is-the-bottleneck" in out and "machine.workers=8" in out and "tar shards" in out
    assert main(["doctor", "digits-adversarial", "--json"]) == 0
    assert '"reading-is-the-bottleneck"' in capsys.readouterr().out
    assert main(["doctor", str(tmp_path / "nowhere.toml")]) == 2


def test_an_epoch_of_waiting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits-adversarial")
    learner = make_learner(recipe, load_dataset("digits").classes, 1000, World(0, 1, torch.device("cpu")))
    clock = [100.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: clock[0])

    def told(waits: list[list[float]], busy: float) -> list[str]:
        """One list of waits an epoch; each batch is learned from for ``busy`` seconds."""

        def source() -> Iterator[Batch]:
            for epoch, each in enumerate(waits):
                for wait in each:
                    clock[0] += wait
                    yield Batch(torch.zeros(1, 3, 2, 2), torch.zeros(1, dtype=torch.int64), ("a",), epoch)

        lines: list[str] = []
        for _ in Journal(tmp_path, learner, lines.append).timed(source()):
            clock[0] += busy
        return lines

    assert told([[30.0, 1.0, 1.0], [1.0] * 3], 10.0) == [], "the start of the workers is no reading"
    assert told([[30.0, 1.0, 1.0], [3.0, 8.0, 9.0], [1.0] * 3], 10.0) == [
        "epoch 2: 36% of the time went by waiting for images; `aresbench doctor RECIPE` says what to change"
    ]
    assert [line[:12] for line in told([[1.0] * 4, [0.0, 5.0, 5.0]], 10.0)] == ["epoch 2: 25%"]
    assert told([[0.0, 0.5, 0.5]], 0.01) == [], "seconds are not worth a word"
