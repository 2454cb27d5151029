"""From a text such as ``timm:resnet50.a1_in1k`` to a classifier."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from aresbench.core.errors import SpecError, UnknownName, did_you_mean
from aresbench.core.registry import find, table
from aresbench.core.spec import parse_call, parse_value
from aresbench.models.sources.base import Source, check_options
from aresbench.models.sources.trained import is_trained

if TYPE_CHECKING:
    from aresbench.models.classifier import Classifier

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")


def load_model(spec: str, **options: Any) -> Classifier:
    """Load a classifier by its name, with the preprocessing that belongs to its weights.

    Args:
        spec: ``samples:efficientnet-lite0``, ``timm:resnet50.a1_in1k``, ``./mine.py:factory``,
            ``package.module:factory``, ``weights.safetensors?arch=timm:resnet50`` or the folder of a training
            (``models/mine``), or a name of another source
            (``aresbench list models`` shows them). Options follow a ``?`` and are joined by ``&``. Input
            defences follow, each after a `` + ``: ``samples:digits-plain + jpeg(quality=75)``; or, for a
            surrogate, the rule by which it passes gradients back: ``timm:resnet50.a1_in1k + sgm(gamma=0.2)``.
        options: the same options as keywords: ``load_model("w.pt", arch="timm:resnet50")``.

    Raises:
        UnknownName: no such model, file or module (the nearest right one is named).
        SpecError: the text cannot be read, or an option is unknown or given twice.
        ModelError: the model is there and cannot be loaded, or is no classifier.
    """
    spec, *defences = spec.split(" + ")
    body, given = _split(spec)
    for key, value in given.items():
        if key in options:
            raise SpecError(f"{key!r} is given twice for {body}", f"write it in the text or as {key}=…, not both")
        options[key] = value
    scheme, rest = _scheme(body)
    source = find("models", scheme)()
    if not isinstance(source, Source):
        raise SpecError(
            f"{scheme} is not a model source", "it must be a subclass of aresbench.models.sources.base.Source"
        )
    check_options(source, body, options)
    model = source.load(rest, options)
    if defences:
        from aresbench.models.defences import defend
        from aresbench.models.surrogates import with_rule

        for defence in defences:
            rule = parse_call(defence).name == "sgm"
            model = with_rule(model, defence) if rule else defend(model, defence)
    return model


def _split(spec: str) -> tuple[str, dict[str, Any]]:
    """The name and its options."""
    body, mark, query = spec.strip().partition("?")
    if not body:
        raise SpecError("a model's name is missing", "`aresbench list models` shows how to name one")
    options: dict[str, Any] = {}
    for piece in query.split("&") if mark else ():
        key, equals, text = piece.partition("=")
        if not (key.strip().isidentifier() and equals and text.strip()):
            raise SpecError(f"{piece!r} in {spec!r} is not an option", "write ?key=value, joined by &")
        if key.strip() in options:
            raise SpecError(f"{key.strip()!r} is given twice in {spec!r}")
        options[key.strip()] = parse_value(text)
    return body.strip(), options


def _scheme(body: str) -> tuple[str, str]:
    """Which source a name belongs to, and what to ask it for."""
    scheme, colon, rest = body.partition(":")
    if colon and scheme in table("models"):
        if not rest:
            raise SpecError(f"{body!r} names no model", f"write {scheme}:NAME; see `aresbench list models`")
        return scheme, rest
    if is_trained(body):
        return "trained", body
    if body.lower().endswith(WEIGHT_SUFFIXES):
        return "weights", body
    if body.lower().endswith(".onnx"):
        return "onnx", body
    if body.lower().endswith(".pt2"):
        return "exported", body
    if body.endswith(".py"):
        raise SpecError(f"{body} is a Python file", f"name what makes the model: {body}:FACTORY")
    if not colon:
        raise UnknownName(f"there is no model called {body!r}", _nearest(body))
    near = did_you_mean(scheme, table("models"))
    if near and "." not in scheme and "/" not in scheme:
        raise UnknownName(f"there is no model source called {scheme!r}", near)
    return "python", body


def _nearest(name: str) -> str:
    """The right spellings of a name without its scheme."""
    known: list[str] = []
    for scheme in table("models"):
        source = find("models", scheme)
        if source.quick:
            known += [f"{scheme}:{n}" for n in source().names()]
    bare = {k.partition(":")[2]: k for k in known}
    near = [bare[n] for n in difflib.get_close_matches(name, bare, n=2, cutoff=0.7)]
    if near:
        return f"did you mean {' or '.join(map(repr, near))}? Or say where it comes from: timm:{name} …"
    if name in table("models"):
        return f"that is a source: write {name}:NAME"
    return f"say where it comes from: timm:{name}, package.module:{name} …; `aresbench list models` shows the sources"
