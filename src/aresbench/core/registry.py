"""Every component by name. A new one costs its own file and one line here.

A line maps a name to ``module:object``: a class, or an object of a class of the same module, with
other settings and a text of its own beneath it. Nothing is imported until it is used: lists and cards
are read from the source text. Installed packages add their own lines through entry points of the
groups ``aresbench.attacks``, ``aresbench.corruptions``, ``aresbench.datasets``, ``aresbench.filters``,
``aresbench.defences`` and ``aresbench.models``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass, field
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

from aresbench.core.errors import AresError, SpecError, UnknownName, did_you_mean

TABLES: dict[str, dict[str, str]] = {
    "attacks": {
        "fgsm": "aresbench.attacks.fgsm:FGSM",
        "bim": "aresbench.attacks.bim:BIM",
        "mim": "aresbench.attacks.mim:MIM",
        "dim": "aresbench.attacks.mim:DIM",
        "tim": "aresbench.attacks.mim:TIM",
        "si-ni-fgsm": "aresbench.attacks.mim:SINIFGSM",
        "admix": "aresbench.attacks.mim:ADMIX",
        "vmi-fgsm": "aresbench.attacks.mim:VMIFGSM",
        "tta": "aresbench.attacks.mim:TTA",
        "cda": "aresbench.attacks.cda:CDA",
        "pgd": "aresbench.attacks.pgd:PGD",
        "apgd-ce": "aresbench.attacks.apgd:APGDCE",
        "apgd-dlr": "aresbench.attacks.apgd:APGDDLR",
        "apgd-pm": "aresbench.attacks.apgd:APGDPM",
        "apgd-t": "aresbench.attacks.apgd_t:APGDT",
        "autoattack": "aresbench.attacks.autoattack:AutoAttack",
        "square": "aresbench.attacks.square:Square",
        "nes": "aresbench.attacks.nes:NES",
        "spsa": "aresbench.attacks.spsa:SPSA",
        "nattack": "aresbench.attacks.nattack:NAttack",
        "eot": "aresbench.attacks.eot:EOT",
        "fmn": "aresbench.attacks.fmn:FMN",
        "deepfool": "aresbench.attacks.deepfool:DeepFool",
        "ddn": "aresbench.attacks.ddn:DDN",
        "cw": "aresbench.attacks.cw:CW",
        "ead": "aresbench.attacks.ead:EAD",
        "sigma-zero": "aresbench.attacks.sigma_zero:SigmaZero",
        "fab": "aresbench.attacks.fab:FAB",
        "fab-t": "aresbench.attacks.fab_t:FABT",
        "torchattacks": "aresbench.attacks.foreign:TorchAttacks",
        "foolbox": "aresbench.attacks.foreign:Foolbox",
        "adv-lib": "aresbench.attacks.foreign:AdvLib",
        "boundary": "aresbench.attacks.boundary:Boundary",
        "evolutionary": "aresbench.attacks.evolutionary:Evolutionary",
        "hopskipjump": "aresbench.attacks.hopskipjump:HopSkipJump",
        "rays": "aresbench.attacks.rays:RayS",
    },
    "corruptions": {
        "gaussian_noise": "aresbench.corruptions.noise:GaussianNoise",
        "shot_noise": "aresbench.corruptions.noise:ShotNoise",
        "impulse_noise": "aresbench.corruptions.noise:ImpulseNoise",
        "speckle_noise": "aresbench.corruptions.noise:SpeckleNoise",
        "defocus_blur": "aresbench.corruptions.blur:DefocusBlur",
        "gaussian_blur": "aresbench.corruptions.blur:GaussianBlur",
        "glass_blur": "aresbench.corruptions.glass:GlassBlur",
        "motion_blur": "aresbench.corruptions.motion:MotionBlur",
        "zoom_blur": "aresbench.corruptions.zoom:ZoomBlur",
        "snow": "aresbench.corruptions.snow:Snow",
        "frost": "aresbench.corruptions.frost:Frost",
        "elastic_transform": "aresbench.corruptions.elastic:ElasticTransform",
        "spatter": "aresbench.corruptions.spatter:Spatter",
        "fog": "aresbench.corruptions.weather:Fog",
        "brightness": "aresbench.corruptions.digital:Brightness",
        "contrast": "aresbench.corruptions.digital:Contrast",
        "saturate": "aresbench.corruptions.digital:Saturate",
        "pixelate": "aresbench.corruptions.digital:Pixelate",
        "jpeg_compression": "aresbench.corruptions.digital:JpegCompression",
    },
    "datasets": {
        "samples": "aresbench.data.samples:Samples",
        "imagenet": "aresbench.data.imagenet:ImageNet",
        "imagenet-train": "aresbench.data.imagenet_train:ImageNetTrain",
        "imagenet-real": "aresbench.data.imagenet_real:ImageNetReal",
        "imagenet-robustbench": "aresbench.data.imagenet_robustbench:ImageNetRobustBench",
        "imagenet-v2": "aresbench.data.imagenet_v2:ImageNetV2",
        "imagenet-a": "aresbench.data.imagenet_subsets:ImageNetA",
        "imagenet-a-clean": "aresbench.data.imagenet_subsets:ImageNetAClean",
        "imagenet-r": "aresbench.data.imagenet_subsets:ImageNetR",
        "imagenet-r-clean": "aresbench.data.imagenet_subsets:ImageNetRClean",
        "imagenet-sketch": "aresbench.data.imagenet_sketch:ImageNetSketch",
        "imagenet-stylized": "aresbench.data.stylized:StylizedImageNet",
        "objectnet": "aresbench.data.objectnet:ObjectNet",
        "imagenet-v": "aresbench.data.imagenet_nerf:ImageNetV",
        "imagenet-c": "aresbench.data.imagenet_c:ImageNetC",
        "imagenet-c-bar": "aresbench.data.imagenet_c:ImageNetCBar",
        "tiny-imagenet": "aresbench.data.tiny_imagenet:TinyImageNet",
        "tiny-imagenet-c": "aresbench.data.tiny_imagenet:TinyImageNetC",
        "folder": "aresbench.data.folder:Folder",
        "npz": "aresbench.data.npz:Npz",
        "shards": "aresbench.data.shards:Shards",
        "hf-dataset": "aresbench.data.hf_dataset:HuggingFaceDataset",
        "digits": "aresbench.data.digits:Digits",
        "cifar10": "aresbench.data.cifar:CIFAR10",
        "cifar10-c": "aresbench.data.cifar_c:CIFAR10C",
        "cifar10.1": "aresbench.data.cifar10_1:CIFAR101",
        "cifar100": "aresbench.data.cifar100:CIFAR100",
        "cifar100-c": "aresbench.data.cifar_c:CIFAR100C",
        "fashion-mnist": "aresbench.data.fashion_mnist:FashionMNIST",
    },
    "filters": {
        "lowpass": "aresbench.corruptions.frequency:LowPass",
        "highpass": "aresbench.corruptions.frequency:HighPass",
    },
    "defences": {
        "jpeg": "aresbench.models.defences:Jpeg",
        "bit-depth": "aresbench.models.defences:BitDepth",
        "resize-pad": "aresbench.models.defences:ResizePad",
    },
    "methods": {
        "standard": "aresbench.training.methods.standard:Standard",
        "adversarial": "aresbench.training.methods.adversarial:Adversarial",
        "trades": "aresbench.training.methods.trades:Trades",
        "mart": "aresbench.training.methods.mart:Mart",
        "free": "aresbench.training.methods.free:Free",
        "n-fgsm": "aresbench.training.methods.n_fgsm:NFGSM",
        "grad-align": "aresbench.training.methods.grad_align:GradAlign",
        "advprop": "aresbench.training.methods.advprop:AdvProp",
    },
    "models": {
        "samples": "aresbench.models.sources.samples:SamplesSource",
        "zoo": "aresbench.models.sources.zoo:ZooSource",
        "robustbench": "aresbench.models.sources.robustbench:RobustBenchSource",
        "timm": "aresbench.models.sources.timm:TimmSource",
        "torchvision": "aresbench.models.sources.torchvision:TorchvisionSource",
        "hf": "aresbench.models.sources.hf:HuggingFaceSource",
        "open-clip": "aresbench.models.sources.open_clip:OpenClipSource",
        "onnx": "aresbench.models.sources.onnx:OnnxSource",
        "exported": "aresbench.models.sources.exported:ExportedSource",
        "python": "aresbench.models.sources.python:PythonSource",
        "weights": "aresbench.models.sources.weights:WeightsSource",
        "trained": "aresbench.models.sources.trained:TrainedSource",
    },
}

SINGULAR = {
    "attacks": "attack",
    "corruptions": "corruption",
    "datasets": "dataset",
    "filters": "filter",
    "defences": "defence",
    "methods": "training method",
    "models": "model source",
}

# Names that people look for here, and where to find them.
ELSEWHERE = {
    "sgm": "the skip gradient method is a rule of the surrogate: write it behind a model's name, "
    "timm:resnet50.a1_in1k + sgm(gamma=0.2), or use aresbench.skip_gradient",
}


@dataclass(frozen=True)
class Card:
    """What is known of a component without importing it.

    Args:
        kind: table name, e.g. ``attacks``.
        name: registered name.
        path: ``module:object``.
        summary: first line of the docstring.
        doc: the whole docstring.
        settings: field name → default, as written in the source (``""``: no default).
        facts: class attributes that are plain literals (norms, access, paper …).
    """

    kind: str
    name: str
    path: str
    summary: str = ""
    doc: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@cache
def _plugins(kind: str) -> dict[str, str]:
    found = importlib.metadata.entry_points(group=f"aresbench.{kind}")
    return {point.name: point.value for point in found}


def table(kind: str) -> dict[str, str]:
    """Name → ``module:object`` of every registered component of a kind, built-ins first."""
    return {**TABLES[kind], **{n: p for n, p in _plugins(kind).items() if n not in TABLES[kind]}}


def find(kind: str, name: str) -> Any:
    """Import the component called ``name``, or the object at ``./file.py:Object`` or ``package.module:Object``.

    Raises:
        UnknownName: no such name (the nearest right one is named), file, module or object.
    """
    entries = table(kind)
    if name in entries:
        return _import_object(entries[name], kind)
    if ":" in name:
        return _import_object(name, kind)
    raise UnknownName(
        f"there is no {SINGULAR[kind]} called {name!r}",
        ELSEWHERE.get(name) or did_you_mean(name, entries) or f"`aresbench list {kind}` shows them all",
    )


def _import_object(path: str, kind: str) -> Any:
    where, _, attribute = path.rpartition(":")
    if not where or not attribute.isidentifier():
        raise SpecError(f"{path!r} does not name an object", "write ./file.py:Object or package.module:Object")
    module = load_file(Path(where)) if where.endswith(".py") else _import_module(where, kind)
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise UnknownName(f"{where} has no {attribute!r}", did_you_mean(attribute, public))
    return getattr(module, attribute)


def _import_module(name: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise UnknownName(
            f"there is no module {name!r}", f"check the spelling; for a file write ./{name.replace('.', '/')}.py:Object"
        ) from None


def load_file(path: Path) -> ModuleType:
    """Import a Python file by its path, once per path.

    Raises:
        UnknownName: no such file.
        SpecError: the file raises an error.
    """
    full = path.expanduser().resolve()
    if not full.is_file():
        raise UnknownName(f"there is no file {path}", f"the path is relative to {Path.cwd()}")
    name = f"_aresbench_file_{full.stem}_{abs(hash(str(full))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, full)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, AresError) or not isinstance(error, Exception):
            raise
        where = _line_in(error, full)
        raise SpecError(
            f"{path} cannot be imported: {type(error).__name__}: {error}",
            f"see line {where} of the file" if where else f"try: python {path}",
        ) from error
    return module


def _line_in(error: Exception, file: Path) -> int | None:
    """The last line of a file that an error passed through."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)


def card(kind: str, name: str) -> Card:
    """Read a component's card from its source text, without importing it.

    Raises:
        UnknownName: no such name.
    """
    path = table(kind).get(name)
    if path is None:
        raise UnknownName(
            f"there is no {SINGULAR[kind]} called {name!r}",
            ELSEWHERE.get(name) or did_you_mean(name, table(kind)) or f"`aresbench list {kind}` shows them all",
        )
    module, _, attribute = path.rpartition(":")
    source = _source_of(module)
    tree = ast.parse(source) if source else ast.Module([], [])
    known = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    if attribute in known:
        return _read_card(kind, name, path, known[attribute])
    for node, after in zip_longest(tree.body, tree.body[1:]):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            return _read_object(kind, name, path, node.value, after, known)
    return Card(kind, name, path)


def _source_of(module: str) -> str | None:
    """Source text of a module found without importing its parents (their __init__ may be heavy)."""
    parts = module.split(".")
    top = importlib.util.find_spec(parts[0])
    if top is None:
        return None
    if len(parts) == 1:
        return Path(top.origin).read_text("utf-8") if top.origin else None
    for root in top.submodule_search_locations or ():
        base = Path(root, *parts[1:])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate.read_text("utf-8")
    return None


def _read_card(kind: str, name: str, path: str, node: ast.ClassDef | ast.FunctionDef) -> Card:
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    settings: dict[str, str] = {}
    facts: dict[str, Any] = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            if "ClassVar" in ast.unparse(item.annotation):
                _add_fact(facts, item.target.id, item.value)
            else:
                settings[item.target.id] = ast.unparse(item.value) if item.value else ""
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            _add_fact(facts, item.targets[0].id, item.value)
    return Card(kind, name, path, doc.split("\n")[0], doc, settings, facts)


def _read_object(
    kind: str,
    name: str,
    path: str,
    value: ast.expr,
    after: ast.stmt | None,
    known: dict[str, ast.ClassDef | ast.FunctionDef],
) -> Card:
    """The card of ``NAME = Class(setting=…)``: the class's, with these settings and the text beneath."""
    made = value if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else None
    if made is None or ast.unparse(made.func) not in known:
        return Card(kind, name, path)
    of_class = _read_card(kind, name, path, known[ast.unparse(made.func)])
    text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
    doc = inspect.cleandoc(str(text))
    settings = {**of_class.settings, **{word.arg: ast.unparse(word.value) for word in made.keywords if word.arg}}
    return Card(kind, name, path, doc.split("\n")[0], doc, settings, of_class.facts)


def _add_fact(facts: dict[str, Any], key: str, value: ast.expr | None) -> None:
    if value is None:
        return
    try:
        facts[key] = ast.literal_eval(value)
    except ValueError:
        return  # a computed attribute is no plain fact
