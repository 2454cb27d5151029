"""The user's own checkpoint files, in an architecture that the user names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError, SpecError
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from aresbench.models.checkpoint import Checkpoint
    from aresbench.models.classifier import Classifier


class WeightsSource(Source):
    """A checkpoint of your own: ``weights.safetensors?arch=timm:resnet50`` or ``?arch=./file.py:factory``.

    Safetensors files and torch checkpoints of plain tensors; a pickle that wants to run code is refused.
    State dicts inside training checkpoints are found, and prefixes such as ``module.`` are taken off;
    ``key`` chooses among several state dicts. With ``arch=timm:name.tag`` the preprocessing, mean and std
    are those of the tag. Class names come from ``classes`` (a text or JSON file), from the file's own
    label map, or from ``NAME.classes.txt`` or ``NAME.classes.json`` beside it.
    """

    example: ClassVar[str] = "weights.safetensors?arch=timm:resnet50"
    quick: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("arch", "classes", "key", "mean", "std")

    def names(self) -> list[str]:
        """Nothing: the names are the user's."""
        return []

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Read the file, build the architecture, fit one to the other."""
        from aresbench.models.checkpoint import read_checkpoint
        from aresbench.models.labels import read_labels
        from aresbench.models.sources.python import short_name

        path = Path(rest).expanduser()
        checkpoint = read_checkpoint(path, options.get("key"))
        if "arch" not in options:
            raise SpecError(
                f"{rest} holds weights, not the architecture they belong to",
                f"write {rest}?arch=timm:resnet50 or {rest}?arch=./file.py:factory",
            )
        arch = str(options["arch"])
        if "classes" in options:
            given = options["classes"]
            checkpoint.classes = read_labels(given) if isinstance(given, str) else given
        for key in ("mean", "std"):
            if key in options:
                setattr(checkpoint, key, options[key])
        shown = f"{short_name(rest)}?arch={short_name(arch) if '.py:' in arch else arch}"
        if arch.startswith("timm:"):
            return _in_timm(path, checkpoint, arch.removeprefix("timm:"), shown)
        return _in_python(path, checkpoint, arch, shown)


def _in_timm(path: Path, checkpoint: Checkpoint, arch: str, name: str) -> Classifier:
    """The weights in a timm architecture with as many outputs as the checkpoint has."""
    from timm.models import get_pretrained_cfg

    from aresbench.models.classifier import Classifier
    from aresbench.models.sources.timm import build, check_name, facts
    from aresbench.models.state_dicts import fill, without_prefix

    cfg = get_pretrained_cfg(check_name(arch))
    if cfg is None:
        raise ModelError(f"timm:{arch} has no configuration", "write a factory: ?arch=./file.py:factory")
    module = build(arch, pretrained=False)
    tensors = without_prefix(checkpoint.tensors, module.state_dict())
    heads = [cfg.classifier] if isinstance(cfg.classifier, str) else list(cfg.classifier or ())
    outputs = next((len(tensors[f"{h}.weight"]) for h in heads if f"{h}.weight" in tensors), None)
    if outputs is not None and outputs != module.num_classes:
        module = build(arch, pretrained=False, num_classes=outputs)
    fill(path, module, tensors, f"timm:{arch}")
    known = facts(module)
    if "." not in arch:
        note = f"preprocessing is timm's default for {arch} ({arch}.{cfg.tag}); name a tag for another"
        known["card"]["notes"] = [note]
    return Classifier(module, name=name, **{**known, **_said(checkpoint)})


def _in_python(path: Path, checkpoint: Checkpoint, arch: str, name: str) -> Classifier:
    """The weights in what a factory makes."""
    from aresbench.models.classifier import Classifier
    from aresbench.models.sources.python import make
    from aresbench.models.state_dicts import fill, without_prefix

    made, source = make(arch)
    plain = made if isinstance(made, Classifier) else Classifier(made)
    fill(path, plain.module, without_prefix(checkpoint.tensors, plain.module.state_dict()), arch)
    known = {
        "mean": plain.card["mean"],
        "std": plain.card["std"],
        "classes": plain.num_classes if plain.classes is None else plain.classes,
        "preprocessing": plain.preprocessing,
        "card": plain.card,
        "source": source,
    }
    return Classifier(plain.module, name=name, **{**known, **_said(checkpoint)}).eval()


def _said(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the checkpoint itself says; it goes before what the architecture says."""
    said = {"classes": checkpoint.classes, "mean": checkpoint.mean, "std": checkpoint.std}
    return {k: v for k, v in said.items() if v is not None}
