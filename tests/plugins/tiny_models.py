"""Two convolutional networks and two Transformers of 224 px and 1,000 classes that take a millisecond an image.

Their weights are random but for the last layer, which is fitted to tell a handful of pictures apart: without that they
would be wrong on every image, and nothing would be left to attack.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from aresbench.core.preprocessing import Preprocessing
from aresbench.data.base import Dataset, load_images
from aresbench.models.classifier import Classifier
from aresbench.models.labels import imagenet_classes

BARE = {
    "resnet": lambda: ResNet(BasicBlock, [1] * 4, channels=(8, 16, 24, 32), stem_type="deep", stem_width=4),
    "convnext": lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
    "vit": lambda: VisionTransformer(patch_size=32, embed_dim=48, depth=2, num_heads=2),
    "swin": lambda: SwinTransformer(patch_size=16, embed_dim=32, depths=(1, 1), num_heads=(2, 2)),
}
SPECS = tuple(f"./tiny_models.py:{name}" for name in BARE)


def resnet() -> Classifier:
    return _fitted("resnet")


def convnext() -> Classifier:
    return _fitted("convnext")


def vit() -> Classifier:
    return _fitted("vit")


def swin() -> Classifier:
    return _fitted("swin")


def install(folder: Path, data: Dataset) -> None:
    """Put this file into a folder, and beside it the weights that tell the images of ``data`` apart."""
    shutil.copy(__file__, folder / "tiny_models.py")
    y = torch.tensor(data.labels)
    for name in BARE:
        model = _classifier(name)
        x, _, _ = load_images(data, range(len(data)), model.preprocessing)
        with torch.no_grad():
            _fit(model, x, y)
        save_file(model.module.state_dict(), folder / f"{name}.safetensors")


def _fitted(name: str) -> Classifier:
    from safetensors.torch import load_file

    model = _classifier(name)
    model.module.load_state_dict(load_file(Path(__file__).with_name(f"{name}.safetensors")))
    return model


def _classifier(name: str) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = BARE[name]().eval()
    card = {"family": name, "architecture": f"tiny {name}", "notes": ["random weights under a fitted last layer"]}
    size = Preprocessing((224, 224), 256, "bicubic")
    return Classifier(module, [0.5] * 3, [0.25] * 3, imagenet_classes(), size, card=card)


def _fit(model: Classifier, x: Tensor, y: Tensor) -> None:
    """Solve the last layer by least squares: each picture's own class 1, all others 0; logits ten times that."""
    (last,) = [m for m in model.module.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    model(x)
    handle.remove()
    features = torch.cat((seen[0], torch.ones(len(x), 1, dtype=torch.float64)), 1)
    wanted = nn.functional.one_hot(y, 1000).double()
    solved = 10 * torch.linalg.lstsq(features, wanted, driver="gelsd").solution.float().T
    last.weight.copy_(solved[:, :-1])
    last.bias.copy_(solved[:, -1])
