"""The architectures of the installed package robustbench, imported without what it needs for other things.

``import robustbench`` brings its downloader, its data and its evaluation along, which need packages that no longer fit
together. Its model tables need none of these: they are imported here beneath an empty package of the same name, with
stand-ins for ``STAND_INS`` where those are missing (one model out of 206 uses them, and says so when it is asked for).
When the import ends, ``sys.modules`` is as it was. What stays is that timm knows a dozen further names, those of
robustbench's XCiTs and DeiTs; no name of its own is touched.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from aresbench.core.errors import ModelError

STAND_INS = ("geotorch", "torchdiffeq")
"""What only the neural differential equation of Kang2021Stable needs."""

INSTALL = "pip install --no-deps robustbench==1.1.1 (its own requirements pin an old timm, and are not needed here)"
OUTPUTS = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
_SPELLED = {"linf": "Linf", "l2": "L2", "corruptions": "corruptions"}  # as in the package's folders
# Where Google Drive gives a file by its id, without the page that asks whether it may.
DRIVE = (
    "https://drive.usercontent.google.com/download?export=download&confirm=t&id={id}",
    "https://docs.google.com/uc?export=download&confirm=t&id={id}",
)
_lock = threading.Lock()


@dataclass(frozen=True)
class Package:
    """What the installed package says of its models, each named ``cifar10/linf/NAME``.

    Args:
        version: of the package.
        table: name → its own entry: ``model``, a factory; ``gdrive_id``; for ImageNet ``preprocessing``.
    """

    version: str
    table: Mapping[str, Mapping[str, Any]]

    def timm_name(self, name: str) -> str:
        """The name that the package gave a model among timm's; empty for those it builds itself."""
        import timm

        dataset, threat, model = name.split("/")
        found = f"{model.lower().replace('-', '_')}_{dataset}_{threat}"
        return found if timm.is_model(found) else ""

    def timm_config(self, name: str) -> dict[str, Any]:
        """Timm's configuration of such a model: address of the weights, size, crop, interpolation."""
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(self.timm_name(name))
        assert config is not None, f"{name} is registered with its configuration"
        return config.to_dict()

    def files(self, name: str) -> dict[str, tuple[str, ...]]:
        """The checkpoint files of a model as paths in the package's folder of models → where each was offered.

        Ensembles have several, in the order of their members; the standard models of ImageNet have none, because
        their weights are torchvision's.
        """
        dataset, threat, model = name.split("/")
        path = f"{dataset}/{_SPELLED[threat]}/{model}.pt"
        if self.timm_name(name):
            return {path: (self.timm_config(name)["url"],)}
        ids = self.table[name]["gdrive_id"]
        if isinstance(ids, list):
            return {f"{path}_m{k}.pt": _addresses(one) for k, one in enumerate(ids)}
        return {path: _addresses(ids)} if ids else {}

    def build(self, name: str) -> nn.Module:
        """The architecture with random weights from a fixed seed, in eval mode; nothing is fetched.

        Raises:
            ModelError: it needs a package that is missing, or cannot be built on this machine.
        """
        import timm

        if name not in self.table:
            raise ModelError(
                f"the installed robustbench {self.version} has no architecture for {name}",
                "another package may have overwritten its files (torchattacks carries an old copy along): "
                "pip install --no-deps --force-reinstall robustbench==1.1.1",
            )
        with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            try:
                if found := self.timm_name(name):
                    return timm.create_model(found, num_classes=OUTPUTS[name.partition("/")[0]]).eval()
                made: nn.Module = self.table[name]["model"]()
            except ModelError:
                raise
            except Exception as error:  # a factory of somebody else's, under other versions than it was written for
                reason = " ".join(str(error).split())[:200]
                raise ModelError(
                    f"robustbench {self.version} cannot build {name} here: {type(error).__name__}: {reason}",
                    "its code asks for a GPU" if "cuda" in reason.lower() or "nvidia" in reason.lower() else "",
                ) from error
        return made.eval()


def _addresses(drive_id: str) -> tuple[str, ...]:
    return tuple(address.format(id=drive_id) for address in DRIVE)


@cache
def package() -> Package:
    """The installed package; imported once.

    Raises:
        ModelError: it is not installed, or its model tables cannot be imported.
    """
    with _lock:
        found = (
            importlib.util.find_spec("robustbench")
            if "robustbench" not in sys.modules
            else sys.modules["robustbench"].__spec__
        )
        folders = list(found.submodule_search_locations or ()) if found else []
        if not folders:
            raise ModelError("the package robustbench, which holds the architectures, is not installed", INSTALL)
        try:
            version = importlib.metadata.version("robustbench")
        except importlib.metadata.PackageNotFoundError:
            version = "(of unknown version)"
        try:
            tables = _tables(folders)
        except ModelError:
            raise
        except Exception as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            raise ModelError(
                f"robustbench {version} cannot be imported: {type(error).__name__}: {error}",
                f"pip install {missing}" if missing and "." not in missing else INSTALL,
            ) from error
        return Package(version, tables)


def _tables(folders: list[str]) -> dict[str, Mapping[str, Any]]:
    """Every entry of the package's three tables by our name."""
    with _beneath_an_empty_package(folders), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        models = importlib.import_module("robustbench.model_zoo.models")
        zoos = [importlib.import_module(f"robustbench.model_zoo.{name}") for name in OUTPUTS]
    for zoo in zoos:
        _never_fetch(zoo)
    return {
        f"{dataset.value}/{threat.value.lower()}/{name}": entry
        for dataset, threats in models.model_dicts.items()
        for threat, entries in threats.items()
        for name, entry in entries.items()
    }


@contextlib.contextmanager
def _beneath_an_empty_package(folders: list[str]) -> Iterator[None]:
    """``robustbench.…`` can be imported without its ``__init__``; afterwards ``sys.modules`` is as it was."""

    def ours(name: str) -> bool:
        return name.partition(".")[0] in ("robustbench", *stand_ins)

    stand_ins = {name: made for name in STAND_INS if (made := _stand_in(name))}
    before = {name: module for name, module in sys.modules.items() if ours(name)}
    empty = ModuleType("robustbench")
    empty.__path__ = folders
    for name in before:
        del sys.modules[name]
    sys.modules.update({"robustbench": empty, **stand_ins})
    try:
        yield
    finally:
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _stand_in(name: str) -> ModuleType | None:
    """A module whose functions say that they are missing; None where the true one can be imported."""
    try:
        importlib.import_module(name)
        return None
    except Exception as error:  # not installed, or made for other versions
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported: {error}"

    def missing(attribute: str) -> Callable[..., Any]:
        if attribute.startswith("__"):
            raise AttributeError(attribute)

        def refuse(*args: object, **settings: object) -> None:
            raise ModelError(
                f"this model of robustbench needs {name}, which {reason}", f"pip install {' '.join(STAND_INS)}"
            )

        return refuse

    made = ModuleType(name)
    made.__getattr__ = missing  # type: ignore[method-assign]
    return made


def _never_fetch(zoo: ModuleType) -> None:
    """Let the factories of a table build with random weights where they would fetch some."""
    import torchvision

    if hasattr(zoo, "pt_models"):
        zoo.pt_models = SimpleNamespace(  # type: ignore[attr-defined]
            **{
                name: _unfetched(getattr(torchvision.models, name))
                for name in torchvision.models.list_models(torchvision.models)
            }
        )


def _unfetched(factory: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    return lambda pretrained=False, **settings: factory(weights=None, **settings)
