"""A store as a real run leaves it: digits (300 images, two models) and photographs (20 images, three models)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aresbench.core.budget import format_fraction
from aresbench.store import Store

CORRUPTIONS = ("gaussian_noise", "defocus_blur", "fog", "brightness", "jpeg_compression")
CORRUPTIONS_15 = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
DIGITS = tuple(Fraction(i, 255) for i in (1, 2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64))
PHOTOS = tuple(Fraction(2**i, 32 * 255) for i in range(12))


@dataclass(frozen=True)
class Made:
    """One imaginary model on one dataset: clean accuracy, and the budget (in 255ths) at which half its images break."""

    model: str
    dataset: str
    n: int
    clean: float
    half: float
    size: int
    resize: int
    seed: int = 0
    card: Mapping[str, Any] = field(default_factory=dict)


MODELS = (
    Made("samples:digits-robust", "digits", 300, 0.955, 40, 32, 32),
    Made("samples:digits-plain", "digits", 300, 0.985, 7, 32, 32),
    Made("samples:efficientnet-lite0", "samples", 20, 0.90, 0.35, 224, 256),
    Made("samples:efficientnet-lite1", "samples", 20, 0.90, 0.30, 240, 274),
    Made("samples:efficientnet-lite2", "samples", 20, 0.95, 0.42, 260, 297),
)

IMAGENET = [f"class {i}, synonym {i}" for i in range(1000)]
SHIFTS = {  # name → parent, class rule, images (None: those of the parent, the same ids), accuracy lost
    "imagenet-v2-matched-frequency": ("imagenet", "full", 150, 0.12),
    "imagenet-real": ("imagenet", "full", None, -0.05),
    "imagenet-r": ("imagenet-r-clean", "subset", 120, 0.4),
    "imagenet-a-1000-way": ("imagenet-a-clean", "full", 90, 0.6),
    "imagenet-sketch": ("imagenet", "full", 80, 0.3),
}
CLASSES = {
    **dict.fromkeys(["imagenet", "imagenet-r-clean", "imagenet-a-clean", *SHIFTS], IMAGENET),
    "digits": [str(d) for d in range(10)],
    "samples": [f"class {i}, synonym {i}" for i in range(998)]
    + ["tench, Tinca tinca", "bicycle-built-for-two, tandem"],
}
TITLES = {"digits": "Handwritten digits", "samples": "ImageNet photographs"}


def describe(made: Made, threat: str, data: dict[str, Any] | None = None, **task: Any) -> dict[str, Any]:
    """The description that the engine would give this cell; ``data``: what else is recorded of the dataset."""
    size = [made.size, made.size]
    protocol = {
        "preprocessing": {"size": size, "resize": made.resize, "interpolation": "bicubic", "squash": False},
        "classes": {"rule": "identity" if made.dataset == "digits" else "full", "hash": "ab12"},
    }  # fmt: skip
    settings: dict[str, Any] = {a: {"revision": 1, "norm": "linf"} for a in task.get("attacks", ())}
    if "autoattack" in settings:
        settings["autoattack"]["version"] = "standard"
    if task.get("corruption"):
        settings[threat] = {"revision": 1, "parameter_set": 224 if made.size < 250 else 299, "parameters": [made.size]}
    return {
        "identity": {
            "model": {"name": made.model, "fingerprint": hashlib.sha256(made.model.encode()).hexdigest()[:16]},
            "dataset": made.dataset,
            "threat": threat,
            "protocol": protocol,
            "settings": settings,
            "seed": made.seed,
        },
        "model": {"name": made.model, "family": "CNN", "architecture": "small_cnn", "parameters": 4_652_008,
                  **made.card},
        "dataset": {"name": made.dataset, "title": TITLES.get(made.dataset, made.dataset),
                    "classes": CLASSES[made.dataset], **(data or {})},
        "task": {"threat": threat, "norm": None, "rungs": [], "pinned": [], "attacks": [], "corruption": None,
                 "severity": None, **task},
        "suite": "quickstart",
    }  # fmt: skip


DERIVED = (
    Made("timm:first", "imagenet", 200, 0.80, 1, 224, 256),
    Made("timm:second", "imagenet", 200, 0.70, 1, 224, 235),
    Made("timm:large", "imagenet", 200, 0.85, 1, 299, 320),
)


class Maker:
    """Fills a store with the rows of imaginary models, the same ones each time."""

    models = MODELS
    derived_models = DERIVED

    def __init__(self, store: Store) -> None:
        self.store = store

    def describe(self, made: Made, threat: str, **task: Any) -> dict[str, Any]:
        return describe(made, threat, **task)

    def rows(self, labels: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
        return self._images(labels, right, 10)

    def everything(self, made: Made) -> None:
        rng = np.random.default_rng([made.seed, made.n, int(made.half * 100), len(made.model)])
        labels = rng.integers(0, len(CLASSES[made.dataset]), made.n)
        right = np.arange(made.n) >= round(made.n * (1 - made.clean))
        right = rng.permutation(right)
        limit = np.where(right, made.half / 255 * np.exp(rng.normal(0, 0.6, made.n)), 0.0)
        self.clean(made, labels, right)
        for name in CORRUPTIONS:
            toughness = rng.normal(0, 0.25, made.n) + rng.uniform(0.5, 1.2)
            for severity in (1, 3, 5):
                self.corruption(made, name, severity, labels, right & (toughness > 0.22 * severity - 0.4), rng)
        rungs = DIGITS if made.dataset == "digits" else PHOTOS
        pins = (rungs[4], rungs[8]) if made.dataset == "digits" else (rungs[3], rungs[5])
        self.adversary(made, "PGD-20 ladder", rungs, (), "pgd(steps=20)", 20, labels, limit * 1.06, rng)
        self.adversary(made, "APGD-CE-50", pins, pins, "apgd-ce(steps=50)", 50, labels, limit, rng)

    def clean(self, made: Made, labels: np.ndarray, right: np.ndarray) -> None:
        cell = self.store.cell(describe(made, "clean", name="clean", kind="clean"))
        cell.append("images", self._images(labels, right, len(CLASSES[made.dataset])))
        cell.add_flags(
            [
                {"name": "clean-accuracy", "level": "warning", "about": "model",
                 "message": "Clean accuracy is 2.1 points below the published one.",
                 "remedy": "Check the resize and crop that belong to these weights.", "evidence": {"published": 0.99}}
            ]
            if "plain" in made.model
            else [{"name": "nondeterministic", "level": "info", "about": "model",
                   "message": "Two forward passes agree to the bit.", "remedy": "", "evidence": {}}]
        )  # fmt: skip
        self._close(cell)

    def classes(self, *names: str) -> None:
        """Further datasets with ImageNet's classes."""
        CLASSES.update(dict.fromkeys(names, IMAGENET))

    def verdicts(
        self, made: Made, right: np.ndarray, threat: str = "clean", data: dict[str, Any] | None = None, **task: Any
    ) -> None:
        """A cell of one number an image: right or wrong, with a confidence that knows a little of it."""
        cell = self.store.cell(describe(made, threat, data, **{"name": threat, "kind": "clean", **task}))
        labels = np.arange(len(right)) % len(CLASSES[made.dataset])
        rows = self._images(labels, right, len(CLASSES[made.dataset]))
        for i, row in enumerate(rows):
            row["confidence"] = 0.55 + 0.04 * (i % 10) if right[i] else 0.3 + 0.05 * (i % 10)
        cell.append("images", rows)
        if task.get("corruption"):
            rng = np.random.default_rng(5)
            clean = picture(96, 3, rng)
            noisy = np.clip(clean + rng.normal(0, 12 * (task["severity"] or 1), clean.shape), 0, 255)
            cell.add_examples([self._example(labels[0], rows[0]["prediction"], None, None, None, clean, noisy)])
        self._close(cell)

    def dose(self, made: Made, name: str, severity: int, right: np.ndarray, mode: str = "memory") -> None:
        """A corruption at one severity, made on the fly."""
        suffix = "" if mode == "memory" else f", mode={mode}"
        title = f"{name} {severity}" + ("" if mode == "memory" else f" ({mode})")
        task = {"kind": "corruption", "corruption": name, "severity": severity, "mode": mode, "name": title}
        self.verdicts(made, right, f"corruption({name}, {severity}{suffix})", **task)

    def published(self, made: Made, name: str, severity: int, right: np.ndarray, benchmark: str) -> None:
        """The clean task on published corrupted files, read without resize."""
        own = replace(made, dataset=f"{benchmark}/{name}/{severity}", resize=0)
        CLASSES.setdefault(own.dataset, CLASSES[made.dataset])
        self.verdicts(own, right, data={"parent": made.dataset, "corruption": [name, severity]})

    def derived(self, made: Made) -> None:
        """Clean, all 75 conditions in memory, a few on disk, frequency filters, and natural shifts."""
        rng = np.random.default_rng(len(made.model))
        toughness = rng.random(made.n)
        right = toughness < made.clean
        self.verdicts(made, right)
        for place, name in enumerate(CORRUPTIONS_15 if made.size == 224 else ("fog",)):
            for severity in range(1, 6):
                self.dose(made, name, severity, toughness < made.clean - 0.02 * severity * (1 + place % 5))
        for severity in (1, 3, 5):
            self.dose(made, "fog", severity, toughness < made.clean - 0.1 * severity, "disk")
            self.dose(made, "speckle_noise", severity, toughness < made.clean - 0.05 * severity)
        for name, sign in (("lowpass", 1), ("highpass", -1)):
            for radius in (4, 16, 48, 110):
                left = made.clean * (radius / 110 if sign > 0 else 1 - radius / 111)
                task = {"kind": "filter", "filter": name, "radius": radius, "name": f"{name} {radius}"}
                self.verdicts(made, toughness < left, f"{name}({radius})", **task)
        for clean in ("imagenet-r-clean", "imagenet-a-clean"):
            self.verdicts(replace(made, dataset=clean), right[:100], data={"class_rule": "subset"})
        for name, (parent, rule, n, lost) in SHIFTS.items():
            hard = toughness if n is None else rng.random(n)
            data = {"parent": parent, "class_rule": rule}
            self.verdicts(replace(made, dataset=name), hard < made.clean - lost, data=data)

    def corruption(
        self, made: Made, name: str, severity: int, labels: np.ndarray, right: np.ndarray, rng: np.random.Generator,
        answer: int | None = None,
    ) -> None:  # fmt: skip
        threat = f"corruption({name}, {severity})"
        cell = self.store.cell(
            describe(made, threat, name=f"{name} {severity}", kind="corruption", corruption=name, severity=severity)
        )
        cell.append("images", self._images(labels, right, len(CLASSES[made.dataset])))
        if severity == 3:
            clean = picture(made.size, int(labels[0]), rng)
            noisy = np.clip(clean + rng.normal(0, 25, clean.shape), 0, 255)
            after = labels[0] if answer is None else answer  # the answer of a corruption's row is the one it changed
            cell.add_examples([self._example(labels[0], after, None, None, None, clean, noisy)])
        self._close(cell)

    def adversary(
        self,
        made: Made,
        name: str,
        rungs: tuple[Fraction, ...],
        pinned: tuple[Fraction, ...],
        attack: str,
        steps: int,
        labels: np.ndarray,
        limit: np.ndarray,
        rng: np.random.Generator,
        norm: str = "linf",
    ) -> None:
        texts = [format_fraction(r) for r in rungs]
        starred = ", ".join(t + "*" * (r in pinned) for t, r in zip(texts, rungs, strict=True))
        threat = f"adversary({norm}, [{starred}], {attack})"
        cell = self.store.cell(
            describe(made, threat, name=name, kind="adversary", norm=norm, rungs=texts, attacks=[attack],
                     pinned=[format_fraction(p) for p in pinned])
        )  # fmt: skip
        images = self._images(labels, limit > 0, len(CLASSES[made.dataset]))
        attempts = []
        for i, row in enumerate(images):
            hit = next((t for t, r in zip(texts, rungs, strict=True) if limit[i] <= r), None)
            row["breaking_budget"] = "0" if limit[i] == 0 else hit
            if limit[i] == 0:
                continue
            by = attack if rng.random() < 0.8 or pinned else "fmn(steps=30)"
            row["broken_by"] = by if hit else None
            row["breaking_distance"] = float(limit[i]) if hit else None
            row["adv_prediction"] = int(labels[i] + 1) % len(CLASSES[made.dataset]) if hit else None
            tried = texts[: texts.index(hit) + 1] if hit else texts
            attempts += [self._attempt(row, by, t, t == hit, steps, bool(pinned), limit[i], rng) for t in tried]
        cell.append("images", images)
        cell.append("attempts", attempts)
        broken = [i for i in range(len(labels)) if images[i]["broken_by"]][:2]
        for i in broken:
            clean = picture(made.size, int(labels[i]), rng)
            step = 255 * float(limit[i])
            changed = np.clip(clean + np.sign(rng.normal(size=clean.shape)) * max(1, round(step)), 0, 255)
            cell.add_examples(
                [self._example(labels[i], labels[i], images[i]["adv_prediction"], images[i]["breaking_budget"], attack,
                               clean, changed)]
            )  # fmt: skip
        self._close(cell)

    def _close(self, cell: Any) -> None:
        cell.add_provenance(
            {
                "command": "aresbench run --suite quickstart --store runs",
                "device": "cpu",
                "versions": {"torch": "2.15.0"},
            }
        )
        cell.seal()

    def _images(self, labels: np.ndarray, right: np.ndarray, classes: int) -> list[dict[str, Any]]:
        return [
            {
                "id": f"test/{i:05d}", "position": i, "shard": i // 320, "label": int(label),
                "prediction": int(label) if ok else int(label + 1) % classes, "top5": [int(label)],
                "margin": 1.0 if ok else -0.5, "confidence": 0.9, "correct": bool(ok),
                "breaking_budget": None, "breaking_distance": None, "broken_by": None, "adv_prediction": None,
            }
            for i, (label, ok) in enumerate(zip(labels, right, strict=True))
        ]  # fmt: skip

    def _attempt(
        self, row: dict[str, Any], attack: str, eps: str, broke: bool, steps: int, pinned: bool, distance: float,
        rng: np.random.Generator,
    ) -> dict[str, Any]:  # fmt: skip
        first = int(min(steps, 1 + rng.exponential(steps / 6))) if broke and pinned else None
        return {
            "id": row["id"], "position": row["position"], "shard": row["shard"], "attack": attack, "norm": "linf",
            "eps": eps, "start": "cold", "pinned": pinned, "verdict": "broken" if broke else "resisted",
            "distance": float(distance) if broke else None, "first_step": first, "first_query": first,
            "forwards": (first or steps) + 1, "backwards": first or steps, "zero_gradients": 0, "nan_gradients": 0,
            "rejected": 0, "adv_prediction": row["adv_prediction"] if broke else None, "seed": 0,
            "survives_rounding": row["position"] % 5 > 0 if broke else None,
        }  # fmt: skip

    def _example(
        self, label: int, before: int, after: int | None, eps: str | None, attack: str | None, clean: np.ndarray,
        changed: np.ndarray,
    ) -> dict[str, Any]:  # fmt: skip
        return {
            "id": f"test/{label:05d}", "label": int(label), "prediction": int(before), "adv_prediction": after,
            "eps": eps, "attack": attack, "clean_png": png(clean), "changed_png": png(changed),
        }  # fmt: skip


def picture(size: int, seed: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth coloured picture [size, size, 3] in 0 … 255."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(2 * np.pi * (a * x + b * y) + seed) for a, b in rng.uniform(0.3, 2.0, (3, 2))]
    return np.round(127 + 90 * np.stack(waves, axis=-1))


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Five models on two datasets under everything that the suite quickstart asks. Read only."""
    store = Store(tmp_path_factory.mktemp("report") / "runs")
    for made in MODELS:
        Maker(store).everything(made)
    return store


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """Writes into an empty store of this test's own."""
    return Maker(Store(tmp_path / "runs"))


@pytest.fixture(scope="session")
def derived_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three models on ImageNet by name: all corruptions, filters and natural shifts. Read only."""
    maker = Maker(Store(tmp_path_factory.mktemp("derived") / "runs"))
    for made in DERIVED:
        maker.derived(made)
    return maker.store


@pytest.fixture(scope="session")
def doubtful_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Digits, 40 images: a model under PGD, AutoAttack and two submissions; one that nobody checked. Read only.

    At 8/255: 2 images are wrong untouched, PGD breaks 10, AutoAttack 20, "me" 3 more, "you" one of these and another.
    """
    maker = Maker(Store(tmp_path_factory.mktemp("doubtful") / "runs"))
    known = Made("samples:digits-robust", "digits", 40, 0.95, 8, 32, 32)
    card = {"verified": False, "notes": ["written from the paper", "never run with the authors' weights"]}
    labels, rng, eps = np.arange(40) % 10, np.random.default_rng(3), (Fraction(8, 255),)
    for made in (known, Made("zoo:resnet152_fd", "digits", 40, 0.95, 8, 32, 32, card=card)):
        maker.clean(made, labels, np.arange(40) > 1)
        for name, last, pinned in (
            ("pgd(steps=20)", 12, eps), ("autoattack", 22, eps),
            ("submission(me)", 25, ()), ("submission(you)", 26, ()),
        ):  # fmt: skip
            first = {"submission(me)": 20, "submission(you)": 24}.get(name, 2)
            if not name.startswith("submission") or made is known:
                broken = (np.arange(40) >= first) & (np.arange(40) < last)
                limit = np.where(np.arange(40) < 2, 0.0, np.where(broken, 4 / 255, np.inf))
                maker.adversary(made, name, eps, pinned, name, 20, labels, limit, rng)
    return maker.store
