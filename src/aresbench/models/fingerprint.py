"""Which model is it? A hash of weights and behaviour, so that results are never confused.

Weights alone do not say what a module computes: two modules can share every tensor and differ in
padding, activation or program text. The behaviour part therefore takes in the structure (class and
printed settings of every submodule) and, for classes that are not part of an installed package, their
program text and plain attributes. Versions of installed packages are provenance and stay outside.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def weights_hash(tensors: Mapping[str, Any], behaviour: str) -> str:
    """16 hex digits of names, types, shapes and bytes of all tensors, and of ``behaviour``."""
    digest = hashlib.sha256(behaviour.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(name.encode() + b"\0")
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{list(value.shape)}".encode())
            digest.update(_bytes(value))
        else:
            digest.update(_ADDRESS.sub("", repr(value)).encode())
    return digest.hexdigest()[:16]


def _bytes(value: Tensor) -> memoryview:
    """The values in row-major order, whatever the device and memory layout."""
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.is_quantized:
        value = value.int_repr()
    flat = value.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(b"")


def behaviour_hash(module: nn.Module, source: str = "") -> str:
    """Hash of the structure and program text of a module; ``source`` is the text of the factory that made it."""
    digest = hashlib.sha256(source.encode())
    classes: dict[type, None] = {}
    for path, part in module.named_modules():
        kind = type(part)
        digest.update(f"{path}\0{kind.__qualname__}\0{_ADDRESS.sub('', part.extra_repr())}\0".encode())
        if not _installed(kind):
            classes[kind] = None
            plain = {k: v for k, v in vars(part).items() if not k.startswith("_") and _is_plain(v)}
            plain.pop("training", None)
            digest.update(repr(sorted(plain.items())).encode())
    own = {base for kind in classes for base in kind.__mro__ if not _installed(base)}
    for text in sorted(_text(kind) for kind in own):
        digest.update(text.encode())
    return digest.hexdigest()


def _installed(kind: type) -> bool:
    """Does the class come from the standard library, an installed package or this one?"""
    if kind.__module__ == "__main__":  # its file may be a launcher's
        return False
    if kind.__module__.partition(".")[0] in {"aresbench", *sys.stdlib_module_names}:
        return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or _compiled_from(kind)
    return "site-packages" in file or "dist-packages" in file


def _compiled_from(kind: type) -> str:
    """The file of a class whose module is no longer among the imported ones, by its functions."""
    return next((f.__code__.co_filename for f in vars(kind).values() if isinstance(f, FunctionType)), "")


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _text(kind: type) -> str:
    """Source text of a class; where there is none (a bare interpreter), its compiled functions."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        functions = [f.__code__ for f in vars(kind).values() if isinstance(f, FunctionType)]
        return kind.__qualname__ + "".join(map(_code_text, functions))


def _code_text(code: CodeType) -> str:
    inner = "".join(_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_name + code.co_code.hex() + repr(code.co_names) + inner
