"""True labels as a true network sees them: 20 real photographs in the layouts of the shifts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import ImageOps

import aresbench as ab
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.objectnet import kinds

WNIDS = imagenet_classes().ids


@pytest.fixture(scope="module")
def photographs_by_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample photographs as ImageNet-V2 (v2/<index>), and framed as ObjectNet (objectnet-1.0/images/<kind>)."""
    base = tmp_path_factory.mktemp("layouts")
    samples = ab.load_dataset("samples")
    folder_of = {wnid: kind.folder for kind in kinds() for wnid in kind.wnids}
    for i in range(len(samples)):
        label, source = int(samples.labels[i]), samples.source(i)
        assert source is not None
        (base / "v2" / str(label)).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, base / "v2" / str(label))
        images = base / "objectnet-1.0/images" / folder_of.get(WNIDS[label], "air_freshener")
        images.mkdir(parents=True, exist_ok=True)
        ImageOps.expand(samples.picture(i), 2, (255, 0, 0)).save(images / f"{i}.png")
    return base


def test_a_network_agrees_with_the_labels(photographs_by_layout: Path, tmp_path: Path) -> None:
    """EfficientNet-Lite0 is right on 18 of the 20 photographs, wherever they lie; three of them are ObjectNet's."""
    root = photographs_by_layout
    right = {
        f"imagenet-v2(root={root / 'v2'}, partial=true)": ("imagenet-v2-matched-frequency", 18, 20),
        f"objectnet(root={root}, partial=true, protocol=official)": ("objectnet-official", 3, 3),
        f"objectnet(root={root}, partial=true, protocol=all-images)": ("objectnet-all-images", 3, 20),
    }
    tasks = [ab.Task(spec, "clean") for spec in right]
    frame = ab.evaluate("samples:efficientnet-lite0", tasks, store=tmp_path / "store").frame()
    got = [
        (name.split("-part-")[0], round(value * n), n)
        for name, value, n in zip(frame["dataset"], frame["value"], frame["n"], strict=True)
    ]
    assert sorted(got) == sorted(right.values())
    assert frame["protocol"].nunique() == 3  # each of them another way to choose
