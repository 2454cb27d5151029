"""RobustBench's 5,000 ImageNet images: exactly these, under their true labels, however many others lie beside them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from aresbench.core.errors import DataError
from aresbench.core.preprocessing import Preprocessing
from aresbench.core.suite import load_suite
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.imagenet_robustbench import chosen
from aresbench.data.load import load_dataset
from aresbench.engine.evaluate import evaluate
from aresbench.models.classifier import Classifier

WNIDS = imagenet_classes().ids


@pytest.fixture(scope="session")
def lay(photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Lay out some of the images, and others, in class folders; returns the ``val`` folder."""

    def lay_out(images: dict[str, int]) -> Path:
        folder = tmp_path_factory.mktemp("robustbench") / "val"
        for k, (image_id, label) in enumerate(images.items()):
            place = folder / WNIDS[label]
            place.mkdir(parents=True, exist_ok=True)
            os.link(photographs[k % 20], place / f"{image_id}.JPEG")
        return folder

    return lay_out


@pytest.fixture(scope="session")
def first_two_hundred(lay: Callable[..., Path]) -> Path:
    return lay(dict(list(chosen().items())[:200]))


def test_the_choice() -> None:
    assert len(chosen()) == 5_000
    assert all(re.fullmatch(r"ILSVRC2012_val_\d{8}", image_id) for image_id in chosen())
    assert max(int(image_id[-8:]) for image_id in chosen()) <= 50_000
    counts = Counter(chosen().values())
    assert (len(counts), min(counts.values()), max(counts.values())) == (997, 1, 12)
    assert chosen()["ILSVRC2012_val_00015253"] == WNIDS.index("n09468604")  # the first of RobustBench's own list


def test_it_is_the_choice_of_the_package() -> None:
    package = metadata.files("robustbench")
    (listed,) = [file for file in package or () if file.name == "imagenet_test_image_ids.txt"]
    lines = Path(str(listed.locate())).read_text("utf-8").split()
    assert {Path(line).stem: WNIDS.index(line.partition("/")[0]) for line in lines} == chosen()


def test_the_5000_alone_are_enough_and_others_are_left_alone(lay: Callable[..., Path]) -> None:
    others = {f"ILSVRC2012_val_{number:08d}": 7 for number in range(1, 31)}
    data = load_dataset("imagenet-robustbench", root=lay({**others, **chosen()}))
    assert data.name == "imagenet-robustbench" and len(data) == 5_000
    assert dict(zip(data.ids, data.labels.tolist(), strict=True)) == chosen()
    assert "not-the-whole-set" not in [flag.name for flag in data.check(1)]


def test_a_part_has_a_name_of_its_own_and_its_places_in_the_whole(
    first_two_hundred: Path, lay: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match=r"200 of RobustBench's 5,000 images; missing: ILSVRC2012_val_\d{8}"):
        load_dataset("imagenet-robustbench", root=first_two_hundred)
    part = load_dataset("imagenet-robustbench", root=first_two_hundred, partial=True)
    assert re.fullmatch(r"imagenet-robustbench-part-[0-9a-f]+", part.name) and len(part) == 200
    assert part.positions.max() > 4_000, "places among all 5,000"
    assert np.all(np.diff(part.positions) > 0)
    with pytest.raises(DataError, match="none of RobustBench's 5,000"):
        load_dataset("imagenet-robustbench", root=lay({"ILSVRC2012_val_00000001": 5}), partial=True)


def test_an_image_in_a_wrong_folder_is_named(lay: Callable[..., Path]) -> None:
    images = dict(list(chosen().items())[:50])
    name = next(iter(images))
    right = images[name]
    images[name] = right + 1
    with pytest.raises(DataError, match=f"1 images .* {name}: {WNIDS[right + 1]}, which should be {WNIDS[right]}"):
        load_dataset("imagenet-robustbench", root=lay(images), partial=True)


def test_the_suite_measures_exactly_these_images(first_two_hundred: Path, tmp_path: Path) -> None:
    suite = load_suite("robustbench-imagenet")
    assert [(task.dataset, task.n, str(task.threat)) for task in suite.tasks] == [
        ("imagenet-robustbench", None, "clean"),
        ("imagenet-robustbench", None, "adversary(linf, 4/255, autoattack)"),
    ]
    assert suite.headline == suite.tasks[1].name
    data = load_dataset("imagenet-robustbench", root=first_two_hundred, partial=True)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    nn.init.constant_(module[2].bias[-1:], 10.0)  # always class 999: wrong on all of them, so that nothing is attacked
    model = Classifier(module, classes=imagenet_classes(), preprocessing=Preprocessing((32, 32), 36), name="tiny")
    results = evaluate(model, suite.name, data=data, n=40, store=tmp_path / "runs", progress=None)
    for task in ("clean", suite.headline):
        assert list(results[task].images()["id"]) == list(data.ids[:40])
