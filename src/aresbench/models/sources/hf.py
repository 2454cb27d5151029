"""Image classifiers of the Hugging Face hub, or of a folder laid out like one of its repositories."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from aresbench.core.classes import Classes
    from aresbench.models.classifier import Classifier

_PLACEHOLDER = re.compile(r"LABEL_\d+")
_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")


class HuggingFaceSource(Source):
    """Image classifiers of the Hugging Face hub: ``hf:microsoft/resnet-50`` or ``hf:/a/local/folder``.

    Both kinds are known: models of timm, and image classifiers of transformers (``pip install
    "aresbench[hf]"``), with the preprocessing of their own processor. Class names are the model's ``id2label``;
    outputs called LABEL_0, LABEL_1 … have none. ``revision`` is a branch, tag or commit. Code that a repository
    brings along is never run.
    """

    example: ClassVar[str] = "hf:microsoft/resnet-50"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("revision",)

    def names(self) -> list[str]:
        """Nothing: the hub has too many."""
        return []

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Read the configuration, and let the library that it belongs to build the model."""
        revision = options.get("revision")
        where = _Place(rest, None if revision is None else str(revision))
        config = where.config()
        if "pretrained_cfg" in config:
            return _of_timm(where, config)
        if "model_type" in config:
            return _of_transformers(where, config)
        raise ModelError(
            f"{where.name}: config.json names neither a model of timm nor one of transformers",
            "it must hold pretrained_cfg or model_type",
        )


class _Place:
    """A repository of the hub, or a folder.

    Args:
        rest: ``organisation/name``, or the path of a folder: absolute, or beginning with a dot or ``~``.
        revision: branch, tag or commit; None: the newest.
    """

    def __init__(self, rest: str, revision: str | None) -> None:
        from aresbench.models.download import offline
        from aresbench.models.sources.python import short_name

        self.folder = Path(rest).expanduser() if rest.startswith(("/", ".", "~")) else None
        self.repo, self.revision, self.offline = rest, revision, offline()
        shown = rest if self.folder is None else short_name(rest)
        self.name = f"hf:{shown}" + ("" if revision is None else f"?revision={revision}")
        if self.folder is not None and not self.folder.is_dir():
            raise ModelError(f"there is no folder {self.folder}", f"the path is relative to {Path.cwd()}")

    def file(self, *names: str) -> Path:
        """The first of these files that is there.

        Raises:
            ModelError: none is, or the hub cannot be reached.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        for name in names:
            if self.folder is not None:
                if (self.folder / name).is_file():
                    return self.folder / name
                continue
            try:
                return Path(
                    hf_hub_download(self.repo, name, revision=self.revision, local_files_only=bool(self.offline))
                )
            except LocalEntryNotFoundError as error:
                if not self.offline:
                    raise self.unreachable(error) from None
            except EntryNotFoundError:
                continue
            except Exception as error:  # the hub fails in many ways, each with an error of its own
                raise self.unreachable(error) from None
        if self.offline and self.folder is None:
            raise ModelError(
                f"{self.name}: {names[0]} is not in the cache of the hub, and {self.offline} forbids the network",
                f"unset {self.offline}, or give the folder of a copy: hf:/path/to/{self.repo.rpartition('/')[2]}",
            )
        raise ModelError(f"{self.name} has no {' or '.join(names)}")

    def unreachable(self, error: Exception) -> ModelError:
        """What went wrong with the hub, in one line."""
        reason = str(error).strip().partition("\n")[0]
        return ModelError(
            f"{self.name} could not be fetched: {type(error).__name__}: {reason}",
            "check the name and the network, or give the folder of a copy: hf:/path/to/folder",
        )

    def config(self) -> dict[str, Any]:
        """What config.json says."""
        path = self.file("config.json")
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ModelError(f"{path} is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise ModelError(f"{path} holds no configuration")
        return found


def _of_timm(where: _Place, config: Mapping[str, Any]) -> Classifier:
    """A model of timm: the architecture is timm's, tensors and labels are the repository's."""
    from aresbench.models.checkpoint import read_checkpoint
    from aresbench.models.classifier import Classifier
    from aresbench.models.sources.timm import check_name, facts

    architecture = check_name(str(config.get("architecture")))
    path = where.file(*_WEIGHTS)
    read_checkpoint(path)  # refuses what is damaged or would run code, before timm reads it
    known = facts(module := _build(where, architecture, config, path))
    number = int(module.num_classes)
    known["classes"] = _classes_of_timm(where, config, number)
    known["card"] |= {"weights": where.name}
    return Classifier(module, name=where.name, **known)


def _build(where: _Place, architecture: str, config: Mapping[str, Any], path: Path) -> Any:
    """Timm's module with the weights in a file, in eval mode."""
    import timm
    from timm.models import PretrainedCfg

    given = {k: v for k, v in config["pretrained_cfg"].items() if k in PretrainedCfg.__dataclass_fields__}
    number = config.get("num_classes") or given.get("num_classes")
    fresh = {"architecture": architecture, "file": str(path), "url": "", "hf_hub_id": None, "source": ""}
    cfg = PretrainedCfg(**{**given, **fresh, "custom_load": False, "num_classes": number})
    try:
        settings = {**(config.get("model_args") or {}), "num_classes": number}
        return timm.create_model(architecture, pretrained=True, pretrained_cfg=cfg, **settings).eval()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{where.name}: {path.name} does not fit timm's {architecture} with {number} classes: {reason}",
            "correct its config.json; a newer timm may know it",
        ) from None


def _classes_of_timm(where: _Place, config: Mapping[str, Any], number: int) -> Classes | int:
    """Class names from the labels in the configuration, else from timm's table of the dataset in the tag."""
    from aresbench.models.labels import as_classes, imagenet_classes, recognised

    labels = config.get("label_names") or config["pretrained_cfg"].get("label_names") or config.get("labels")
    if labels:
        found = as_classes(labels, f"{where.name} (label_names)")
        if len(found) != number:
            raise ModelError(
                f"{where.name} has {number} outputs and {len(found)} class names", "correct its config.json"
            )
        return found if found.ids else recognised(found.names)
    tag = str(config["pretrained_cfg"].get("tag") or "")
    return imagenet_classes() if number == 1000 and "in1k" in tag else number


def _of_transformers(where: _Place, config: Mapping[str, Any]) -> Classifier:
    """An image classifier of transformers, with the preprocessing of its processor."""
    from aresbench.models.classifier import Classifier
    from aresbench.models.labels import recognised
    from aresbench.models.sources.hf_transformers import load

    found = load(str(where.folder or where.repo), where.revision, where.name, local_only=bool(where.offline))
    unnamed = all(_PLACEHOLDER.fullmatch(label) for label in found.labels)
    notes = ["its outputs have no names (LABEL_0 …)"] if unnamed else []
    return Classifier(
        found.module,
        found.mean,
        found.std,
        len(found.labels) if unnamed else recognised(found.labels),
        found.preprocessing,
        where.name,
        card={"architecture": config["model_type"], "family": config["model_type"], "notes": notes},
    )
