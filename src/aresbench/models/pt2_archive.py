"""Is a ``.pt2`` archive arithmetic and tensors only? Asked before torch, which would run what it is told, reads it.

``torch.export.load`` unpickles whatever an archive calls a pickle, evaluates the texts of symbolic sizes, calls any
function below ``torch`` that a node names, makes program text of names, and loads compiled libraries. So an archive
is read here first, with torch's own reader, and refused unless everything in it is known to be harmless.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from aresbench.core.errors import ModelError

_RECORDS = re.compile(
    r"(models/[\w.-]+\.json|data/(weights|constants)/[\w.-]+|data/sample_inputs/[\w.-]+\.pt"
    r"|extra/[\w./-]+|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id))"
)
# Operators on tensors, without the few that touch files.
_TARGETS = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file|_?save|_?load)\w+\.\w+|torch\.ops\.torchvision\.\w+\.\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|torch\.sym_(int|float|max|min|not|ite|sum)|math\.(ceil|floor|trunc|sqrt)"
)
_SYMBOL = re.compile(r"[suz]\d+|True|False|oo|int_oo")
_FUNCTIONS = re.compile(
    r"Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|Integer|Rational|Float|Symbol|Eq|Ne"
    r"|Gt|Ge|Lt|Le|And|Or|Not|TruncToInt|ToFloat|IntTrueDiv|FloatTrueDiv|CeilToInt|FloorToInt|floor|ceiling"
)
_ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Constant, ast.Name, ast.Call, ast.Load,
    ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.keyword,
)  # fmt: skip
_NAME = re.compile(r"[\w./]*")
_SPEC = re.compile(r'[\w\s\[\]{}":,.\\-]*')
_CONTAINERS = re.compile(r"builtins\.(tuple|list|dict|NoneType)|collections\.OrderedDict")


def require_harmless(path: Path) -> None:
    """Read an archive without trusting it.

    Raises:
        ModelError: no archive, a damaged one, or one that asks for anything but tensors and arithmetic on them.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}", f"the path is relative to {Path.cwd()}")
    try:
        with zipfile.ZipFile(path) as listed:
            listed_names = listed.namelist()
        reader = torch._C.PyTorchFileReader(str(path))
        names = list(reader.get_all_records())
    except Exception as error:
        raise ModelError(
            f"{path} is no archive of torch.export, or is damaged", f"{type(error).__name__}: {error}"
        ) from None
    if len(set(listed_names)) != len(listed_names):
        raise _refused(path, "holds two records of one name")
    if "models/model.json" not in names:
        raise ModelError(
            f"{path} is an archive of an older torch, or none of torch.export",
            "load it where it was made, and save it again with torch.export.save of a newer torch",
        )
    for name in names:
        if not _RECORDS.fullmatch(name):
            raise _refused(path, f"holds {name!r}")
        if name.startswith("data/sample_inputs/"):
            _tensors_only(path, name, reader.get_record(name))
        elif name.endswith(".json"):
            _check_json(path, name, reader.get_record(name))


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} {what}, which could run code when loaded: refused",
        "if you trust its origin, load it yourself and wrap it: aresbench.Classifier(torch.export.load(…).module())",
    )


def _tensors_only(path: Path, name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a pickle is refused in many ways
        raise _refused(path, f"holds a pickle of more than tensors ({name})") from None


def _check_json(path: Path, name: str, content: bytes) -> None:
    try:
        value = json.loads(content)
    except ValueError:
        raise ModelError(f"{path} is damaged: {name} is not JSON") from None
    for key, found in _entries(value):
        if key == "use_pickle" and found is not False:
            raise _refused(path, f"holds a pickle among its tensors ({name})")
        if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(found)):
            raise _refused(path, f"holds an object that is no tensor ({found})")
        if key == "target" and name.startswith("models/") and isinstance(found, str):
            _check_target(path, found)
        if key == "expr_str" and not _is_arithmetic(found):
            raise _refused(path, f"gives {str(found)[:60]!r} as a size")
        if (key == "fqn" or key.endswith("name")) and isinstance(found, str) and not _NAME.fullmatch(found):
            raise _refused(path, f"calls something {found[:60]!r}")  # names become program text
        if key == "forward_arg_names" and not all(_NAME.fullmatch(str(one)) for one in found or ()):
            raise _refused(path, f"calls its inputs {str(found)[:60]}")
        if key in ("in_spec", "out_spec") and isinstance(found, str):
            strange = [kind for kind in re.findall(r'"type":\s*"([^"]*)"', found) if not _CONTAINERS.fullmatch(kind)]
            if strange or not _SPEC.fullmatch(found):
                raise _refused(path, f"takes or gives {(strange or [found])[0][:60]!r}")


def _check_target(path: Path, target: str) -> None:
    # What begins with none of these words is a name of a parameter, which nobody looks up.
    if target.startswith(("torch", "_operator", "math", "#")) and not _TARGETS.fullmatch(target):
        raise _refused(path, f"calls {target!r}")


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, however deep."""
    pairs = value.items() if isinstance(value, dict) else ((" ", v) for v in value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield key, inner
        yield from _entries(inner)


def _is_arithmetic(text: object) -> bool:
    """Is it a formula of symbols and known functions, and nothing that Python could be made to run?"""
    try:
        tree = ast.parse(str(text), mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, _ARITHMETIC):
            return False
        if isinstance(node, ast.Constant) and not (isinstance(node.value, int | float) or _is_symbol(node.value)):
            return False
        if isinstance(node, ast.Name):
            known = bool(_FUNCTIONS.fullmatch(node.id)) if id(node) in called else _is_symbol(node.id)
            if not known:
                return False
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name):
            return False
    return True


def _is_symbol(text: object) -> bool:
    return isinstance(text, str) and bool(_SYMBOL.fullmatch(text))
