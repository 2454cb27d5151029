"""The models of RobustBench, in the architectures of its package."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError
from aresbench.models.robustbench import TITLE, Entry, entries, entry
from aresbench.models.sources.base import KnownSource, wants_weights
from aresbench.models.zoo import FOLDER

if TYPE_CHECKING:
    from torch import Tensor, nn

    from aresbench.core.classes import Classes
    from aresbench.models.classifier import Classifier

FOLDER_OF_PACKAGE = Path("models")
"""Where the package keeps checkpoints, in the current folder."""

# Of two sets of weights in one file, the one that the package takes.
_LAST = ("Kireev2021Effectiveness", "Andriushchenko2020Understanding")
# Files that the package, too, reads without asking whether everything in them has a place; ImageNet's all are.
_MORE = (
    *("Andriushchenko2020Understanding", "Augustin2020Adversarial", "Bai2024MixedNUTS", "Chen2020Efficient"),
    *("Diffenderfer2021Winning", "Engstrom2019Robustness", "Hendrycks2020AugMix", "Huang2022Revisiting"),
    *("Kireev2021Effectiveness", "Pang2020Boosting", "Rice2020Overfitting", "Rony2019Decoupling", "Wong2020Fast"),
    "Wu2020Adversarial",
)
_CONSTANT = re.compile(r"(normalize\.)?(mu|sigma|mean|std)")  # normalisation inside: fixed, and often not stored
_TOLD_OTHERWISE = {"published", "preprocessing"}
_OF_WEIGHTS = {"paradigm", "data", "weights", "licence", "verified"}


class RobustBenchSource(KnownSource):
    """The 206 robust models of RobustBench (Croce et al., 2021): ``robustbench:cifar10/linf/Carmon2019Unlabeled``.

    The name is dataset, threat and RobustBench's own name: ``cifar10/linf``, ``cifar10/l2``, ``cifar10/corruptions``,
    ``cifar100/linf``, ``cifar100/corruptions``, ``imagenet/linf``, ``imagenet/corruptions``. Architectures are those of
    the package, of which nothing else is imported: ``pip install --no-deps robustbench==1.1.1``.

    Weights are read from ``?checkpoint=PATH`` (a file; for ensembles their folder), else from RobustBench's own place,
    ``models/cifar10/Linf/NAME.pt`` in the current folder, else from the same path in the folder that
    ``$ARESBENCH_CHECKPOINTS`` names, else they are downloaded from where RobustBench offers them. ``key`` names one of
    several sets of weights in a file. A pickle that wants to run code is refused. Normalisation is inside these
    architectures, where they normalise at all. ``?pretrained=false`` makes the architecture with fixed random weights.
    """

    example: ClassVar[str] = "robustbench:cifar10/linf/Carmon2019Unlabeled"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("checkpoint", "key", "pretrained")

    def names(self) -> list[str]:
        """All whose weights are published."""
        return list(entries())

    def about(self, name: str) -> tuple[str, dict[str, Any]]:
        """One line and the card of a model, from the table."""
        one = entry(name)
        return one.summary, one.facts()

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Build the architecture, read or fetch its weights, bind the preprocessing of its entry."""
        from aresbench.models.classifier import Classifier
        from aresbench.models.robustbench_package import package
        from aresbench.models.sources.timm import RANDOM

        one = entry(rest)
        pretrained = wants_weights(f"robustbench:{rest}", options)
        module = package().build(one.name)
        left_out = _TOLD_OTHERWISE if pretrained else _TOLD_OTHERWISE | _OF_WEIGHTS
        card = {k: v for k, v in one.facts().items() if k not in left_out}
        card["notes"] = [*one.notes, *_fill(one, module, options)] if pretrained else [RANDOM]
        return Classifier(
            module.eval(),
            classes=_classes(one),
            preprocessing=one.preprocessing,
            name=f"robustbench:{rest}" + ("" if pretrained else "?pretrained=false"),
            card=card,
            published=_published(one) if pretrained else {},
        ).eval()


def _classes(one: Entry) -> Classes:
    """What the outputs mean."""
    from aresbench.core.classes import Classes
    from aresbench.models.labels import CIFAR10, CIFAR100, imagenet_classes

    if one.dataset == "imagenet":
        return imagenet_classes()
    return Classes(CIFAR10 if one.dataset == "cifar10" else CIFAR100)


def _published(one: Entry) -> dict[str, Any]:
    """The clean accuracy as a share; of ImageNet, it was measured on RobustBench's own 5,000 images."""
    data = "imagenet-robustbench" if one.dataset == "imagenet" else one.dataset
    return {f"{data} top1": one.clean / 100, "source": TITLE}


# -- weights ----------------------------------------------------------------------------------


def _fill(one: Entry, module: nn.Module, options: Mapping[str, Any]) -> list[str]:
    """Put the weights of the model's files into the module; returns what must be told of them."""
    from aresbench.models.checkpoint import read_checkpoint
    from aresbench.models.state_dicts import fill

    notes: list[str] = []
    for place, path in enumerate(_paths(one, options.get("checkpoint"))):
        for part, key in _parts(one, module, place):
            tensors = read_checkpoint(path, options.get("key") or key, prefer="state_dict").tensors
            tensors = _named_as(part, tensors)
            if one.dataset == "imagenet" or one.model.startswith(_MORE):
                known = part.state_dict()
                without = [name for name in tensors if name not in known]
                tensors = {name: value for name, value in tensors.items() if name in known}
                if without:
                    notes.append(f"{len(without)} tensors of {path.name} have no place in it (first: {without[0]})")
            fill(path, part, tensors, f"robustbench:{one.name}")
            part.eval()
    return notes


def _parts(one: Entry, module: Any, place: int) -> list[tuple[nn.Module, str | None]]:
    """The parts of a model that its file number ``place`` fills, each with the set of weights it takes."""
    if one.files == 1 or not one.files:
        return [(module, "last" if one.model.startswith(_LAST) else None)]
    if one.model.startswith("Bai2023Improving"):
        mixed = module.comp_model
        return [(mixed.models[place], None)] if place < 2 else [(mixed.policy_net, "model"), (mixed.bn, "bn")]
    if one.model.startswith("Bai2024MixedNUTS"):
        return [((module.std_model, module.rob_model)[place], None)]
    return [(module.models[place], None)]


def _named_as(module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the module's names: without wrappers' prefixes, within its normalising wrapper, as today."""
    known = module.state_dict()
    found: dict[str, Tensor] = {}
    for name, value in _as_timm_writes(getattr(module, "model", module), tensors).items():
        bare = _bare(name)
        spellings = (name, name.removeprefix("module."), bare, f"model.{bare}")
        today = next((spelling for spelling in spellings if spelling in known), bare)
        if today in found:
            raise ModelError(f"the checkpoint has two tensors that mean {today}", "name one of its sets with ?key=…")
        found[today] = value
    constants = {name: value for name, value in known.items() if _CONSTANT.fullmatch(name)}
    return constants | found


def _bare(name: str) -> str:
    return name.removeprefix("module.").removeprefix("model.")


def _as_timm_writes(network: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a Swin by the names of today's timm, those of an XCiT by timm's instead of its authors'."""
    from timm.models import xcit
    from timm.models.swin_transformer import SwinTransformer

    from aresbench.models.state_dicts import LAYOUTS

    if isinstance(network, SwinTransformer):
        return LAYOUTS["timm-0.6-swin"].read(tensors, network)
    if isinstance(network, xcit.Xcit):
        named: dict[str, Tensor] = xcit.checkpoint_filter_fn({_bare(k): v for k, v in tensors.items()}, network)
        return named
    return tensors


def _paths(one: Entry, given: object) -> list[Path]:
    """The model's files: the user's, else those that are there, else downloaded.

    Raises:
        ModelError: one cannot be had; the error says where it was offered.
    """
    from aresbench.models.download import fetch, weights_folder
    from aresbench.models.robustbench_package import package

    files = package().files(one.name)
    names = [Path(file).name for file in files] or [f"{one.model}.pt"]
    if given is not None:
        path = Path(str(given)).expanduser()
        if path.is_dir():
            return [path / name for name in names]
        return [path] if len(names) == 1 else [Path(f"{path}{name.removeprefix(f'{one.model}.pt')}") for name in names]
    if not files:
        from torchvision.models import ResNet50_Weights

        from aresbench.models.sources.torchvision import fetch_weights

        return [fetch_weights(ResNet50_Weights.IMAGENET1K_V1)]
    named = os.environ.get(FOLDER, "")
    own = Path(named).expanduser() if named else weights_folder() / "robustbench"
    found = []
    for file, addresses in files.items():
        there = [folder / file for folder in (FOLDER_OF_PACKAGE, own) if (folder / file).is_file()]
        try:
            found.append(there[0] if there else fetch(addresses, name=Path(file).name, folder=(own / file).parent))
        except ModelError as error:
            raise ModelError(
                f"robustbench:{one.name} needs the file {Path(file).name}: {error.problem}",
                f"fetch it in a browser from {addresses[0]}; put it at {own / file}, "
                f"or write robustbench:{one.name}?checkpoint=/path/to/it",
            ) from error
    return found
