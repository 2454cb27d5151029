"""ImageNet and its relatives as folders of a few small real photographs each.

Layouts, file names and class names are the true ones; sizes, and which class a photograph stands for, are not: numbers
measured on them mean nothing.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from aresbench.core.threat import IMAGENET_C, SEVERITIES
from aresbench.data.base import published_order
from aresbench.data.imagenet_classes import imagenet_classes
from aresbench.data.imagenet_nerf import objects
from aresbench.data.imagenet_subsets import subset_indices
from aresbench.data.load import load_dataset
from aresbench.data.objectnet import kinds

WNIDS = imagenet_classes().ids
# Which class each of the 20 photographs stands for: most are classes of ImageNet-A, -R, ObjectNet and -V too.
CLASSES = (470, 774, 951, 457, 462, 658, 907, 954, 428, 430, 472, 579, 776, 847, 932, 933, 934, 99, 317, 609)


def build(root: Path, *, corrupted: int) -> None:
    """Make ``root/imagenet``, ``root/imagenet-a`` and so on, of 20 pictures or fewer each.

    Args:
        root: to be given as ``ARESBENCH_DATA``.
        corrupted: of how many pictures, the first of the published order, ImageNet-C consists.
    """
    samples = load_dataset("samples")
    ids = [f"ILSVRC2012_val_{k:08d}" for k in range(1, len(samples) + 1)]
    chosen = set(published_order(ids)[:corrupted].tolist())
    for k, (label, image_id) in enumerate(zip(CLASSES, ids, strict=True)):
        picture = ImageOps.fit(samples.picture(k), (300, 260))
        small = picture.resize((224, 224))
        within = f"{WNIDS[label]}/{image_id}.JPEG"
        _save(picture, root / "imagenet/val" / within)
        _save(ImageOps.posterize(small, 3), root / "imagenet-stylized/val" / within)
        _save(ImageOps.mirror(picture), root / f"imagenet-v2/imagenetv2-matched-frequency-format-val/{label}/{k}.jpeg")
        _save(ImageOps.grayscale(picture), root / f"imagenet-sketch/sketch/{WNIDS[label]}/sketch_{k}.JPEG")
        for letter, changed in (("A", picture.rotate(5)), ("R", ImageOps.solarize(picture, 200))):
            if label in subset_indices(letter):
                _save(changed, root / f"imagenet-{letter.lower()}/{WNIDS[label]}/{k}.jpg")
        for kind in kinds():
            if WNIDS[label] in kind.wnids:
                framed = ImageOps.expand(ImageOps.mirror(picture), 2, (255, 0, 0))
                _save(framed, root / f"objectnet/objectnet-1.0/images/{kind.folder}/{k:015x}.png")
        for thing, index in objects().items():
            if index == label:
                _save(picture.rotate(-5), root / f"imagenet-v/{thing}/{k}.png")
        if k in chosen:
            for place, corruption in enumerate(IMAGENET_C):
                for severity in SEVERITIES:
                    worse = _worse(small, place, int(severity))
                    _save(worse, root / f"imagenet-c/{corruption}/{severity}" / within)


def _worse(picture: Image.Image, which: int, severity: int) -> Image.Image:
    """One of three simple changes, in five doses."""
    if which % 3 == 0:
        return picture.filter(ImageFilter.GaussianBlur(severity))
    change = (ImageEnhance.Contrast, ImageEnhance.Brightness)[which % 3 - 1]
    return change(picture).enhance(1 - severity / 6)


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **({} if path.suffix == ".png" else {"format": "JPEG", "quality": 85}))
