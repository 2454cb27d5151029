"""A model measured on published corrupted pictures: as they are, and paired with the clean ones."""

from __future__ import annotations

import torch
from PIL import Image
from torch import nn

import aresbench as ab
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.imagenet_classes import imagenet_classes

NUMBERS = range(1, 9)


def test_files_are_read_as_they_are_and_pair_with_the_clean_ones(tmp_path):
    wnids = imagenet_classes().ids
    for number in NUMBERS:
        name = f"{wnids[number]}/ILSVRC2012_val_{number:08d}.JPEG"
        for folder, size, value in (("val", (320, 260), 40), ("fog/3", (224, 224), 200)):
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True)
            picture = Image.new("RGB", size, (value, number, 0))
            picture.putpixel((0, 0), (255, 255, 255))
            picture.save(file, quality=85)

    class Corner(nn.Module):
        """Sees whether the white corner pixel is still there: it survives no resize and no crop."""

        def forward(self, x):
            logits = torch.zeros(len(x), 1000)
            logits[:, 7] = x[:, :, 0, 0].mean(1)
            logits[:, 8] = 0.5
            return logits

    model = ab.Classifier(
        Corner(), classes=imagenet_classes(), preprocessing=Preprocessing((224, 224), 256, "bilinear"), name="corner"
    )
    spec = f"imagenet-c(corruption=fog, severity=3, root={tmp_path}, partial=true)"
    results = ab.evaluate(
        model,
        [ab.Task(f"imagenet(root={tmp_path}, partial=true)", "clean"), ab.Task(spec, "clean")],
        store=tmp_path / "runs",
        doctor=False,
    )
    clean, fog = (reading.cell for reading in results.readings)
    assert fog.description["identity"]["dataset"].startswith("imagenet-c/fog/3-part-")
    assert fog.description["dataset"]["corruption"] == ["fog", 3] and fog.description["dataset"]["parent"] == "imagenet"
    assert set(fog.images()["prediction"]) == {7} and set(clean.images()["prediction"]) == {8}
    assert sorted(fog.images()["id"]) == sorted(clean.images()["id"])
    assert sorted(fog.images()["position"]) == sorted(clean.images()["position"])
    protocols = [cell.description["identity"]["protocol"]["preprocessing"] for cell in (clean, fog)]
    assert protocols[0] != protocols[1]
