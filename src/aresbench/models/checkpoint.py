"""Read a checkpoint file safely: tensors and label maps, never code."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aresbench.core.classes import Classes
from aresbench.core.errors import ModelError, did_you_mean
from aresbench.models.labels import as_classes, read_labels

# Keys under which training scripts leave their label map.
_LABEL_KEYS = ("classes", "class_names", "id2label", "idx_to_class", "class_to_idx", "label_map")
_SAFE_REMEDY = (
    "if you trust its origin, convert it once where it was made: "
    "torch.save(model.state_dict(), 'weights.pt') or safetensors.torch.save_model(model, 'weights.safetensors')"
)


@dataclass
class Checkpoint:
    """What a checkpoint file says.

    Args:
        tensors: parameter and buffer names → values, on the CPU.
        classes: label map, if the file or a sidecar has one.
        mean: per channel in [0,1] units, if the file says so.
        std: per channel in [0,1] units, if the file says so.
    """

    tensors: dict[str, Tensor]
    classes: Classes | None = None
    mean: Any = None
    std: Any = None


def read_checkpoint(path: Path, key: str | None = None, *, prefer: str = "") -> Checkpoint:
    """Read a safetensors file or a torch checkpoint of plain tensors; no code in it is ever run.

    Args:
        path: the file; its kind is told by its content, not its name.
        key: which state dict to take where the file holds several.
        prefer: the one to take where none is named and one of several is called so.

    Raises:
        ModelError: missing, truncated, not weights at all, or a pickle that wants to run code.
    """
    head = _head(path)
    if head[:1] in (b"\x80", b"P") and not _begins_safetensors(path, head):
        return _read_torch(path, key, prefer)
    return _read_safetensors(path)


def _head(path: Path) -> bytes:
    """The first bytes of a file that may be weights."""
    if not path.is_file():
        folder = path.parent
        there = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        raise ModelError(
            f"there is no file {path}" if folder.is_dir() else f"there is no folder {folder}",
            did_you_mean(path.name, there) or f"the path is relative to {Path.cwd()}",
        )
    with path.open("rb") as file:
        head = file.read(512)
    start = head.lstrip().lower()
    if not head:
        raise ModelError(f"{path} is empty", "download it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ModelError(
            f"{path} is a web page (HTML), not weights", "the download gave an error page or login page instead"
        )
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer, not the weights themselves", "run git lfs pull")
    return head


def _begins_safetensors(path: Path, head: bytes) -> bool:
    """Is it a length and a header? The length may begin with the first byte of a pickle or a zip file."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        reason = str(error)
        if re.search(r"header|incomplete|invalid|metadata", reason, re.IGNORECASE) and _looks_safetensors(path):
            raise ModelError(f"{path} is truncated or damaged ({reason})", "download it again") from None
        raise ModelError(
            f"{path} holds no weights this package can read", "give a safetensors file or a torch checkpoint of tensors"
        ) from None
    labels = next((_loads(facts[k]) for k in _LABEL_KEYS if k in facts), None)
    classes = as_classes(labels, f"{path} (metadata)") if labels is not None else _sidecar(path)
    mean, std = (_loads(facts[k]) if k in facts else None for k in ("mean", "std"))
    return Checkpoint(tensors, classes, mean, std)


def _looks_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _read_torch(path: Path, key: str | None, prefer: str) -> Checkpoint:
    try:
        with path.open("rb") as file:  # given a path, torch would judge by the suffix
            value = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in as many ways as a file can be broken
        raise _explain(path, error) from None
    if not isinstance(value, Mapping):
        raise ModelError(f"{path} holds a {type(value).__name__}, not named tensors", _SAFE_REMEDY)
    state, outer = _state_dict(path, value, key, prefer)
    labels = next((outer[k] for k in _LABEL_KEYS if k in outer and not isinstance(outer[k], Tensor)), None)
    classes = as_classes(labels, str(path)) if labels else _sidecar(path)
    return Checkpoint(state, classes)


def _explain(path: Path, error: Exception) -> ModelError:
    """Why a torch checkpoint cannot be read, in one line."""
    text = str(error)
    if "TorchScript" in text:
        return ModelError(f"{path} is a TorchScript program, not weights", _SAFE_REMEDY)
    wanted = re.search(r"GLOBAL (\S+)", text) or re.search(r"(?:find_class|function|class) (\S+)", text)
    refused = isinstance(error, pickle.UnpicklingError) and ("weights_only" in text or "Weights only" in text)
    if refused and ("truncated" not in text and "Ran out of input" not in text):
        what = f" (it asks for {wanted.group(1)})" if wanted else ""
        return ModelError(f"{path} is a pickle that would run code when loaded{what}: refused", _SAFE_REMEDY)
    return ModelError(
        f"{path} is truncated or damaged ({type(error).__name__}: {text.partition(chr(10))[0][:120]})",
        "download it again",
    )


def _state_dict(
    path: Path, value: Mapping[Any, Any], key: str | None, prefer: str
) -> tuple[dict[str, Tensor], Mapping[Any, Any]]:
    """The one state dict in a checkpoint, and the dict that held it."""
    found = dict(_candidates(value))
    if key is not None:
        if key not in found:
            raise ModelError(f"{path} has no state dict called {key!r}", f"it has {', '.join(found) or 'none'}")
        return found[key], value
    if not found:
        raise ModelError(f"{path} holds no named tensors", f"its entries: {', '.join(map(str, list(value)[:8]))}")
    if len(found) > 1 and prefer in found:
        return found[prefer], value
    if len(found) > 1:
        first = next(iter(found))
        raise ModelError(
            f"{path} holds {len(found)} state dicts: {', '.join(found)}",
            f"say which: ?key={first} (joined by & to others)",
        )
    return next(iter(found.values())), value


def _candidates(value: Mapping[Any, Any], path: str = "") -> list[tuple[str, dict[str, Tensor]]]:
    """Every dict of named tensors inside, by its dotted key; optimiser states have no names and drop out."""
    tensors = {str(k): v for k, v in value.items() if isinstance(v, Tensor)}
    if tensors and any("weight" in k or "running_mean" in k for k in tensors):
        return [(path or "top", tensors)]
    inner = [(k, v) for k, v in value.items() if isinstance(k, str) and isinstance(v, Mapping)]
    return [hit for k, v in inner for hit in _candidates(v, f"{path}.{k}" if path else k)]


def _sidecar(path: Path) -> Classes | None:
    """Class names in ``NAME.classes.txt`` or ``NAME.classes.json`` beside the weights."""
    for suffix in (".classes.txt", ".classes.json"):
        file = path.with_suffix(suffix)
        if file.is_file():
            return read_labels(file)
    return None
