"""The checks to make before spending a night: a model on a few images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aresbench.core.errors import DataError
from aresbench.core.flag import LEVELS, Flag
from aresbench.data.base import Dataset, load_images
from aresbench.engine.class_rule import class_map_for, output_names
from aresbench.engine.prepare import OwnRandomState, Prepared, prepared
from aresbench.metrics import wilson
from aresbench.models.classifier import Classifier

LOOK_AT = 64  # images examined; enough to tell 30 % from 70 %
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def examine(
    model: Classifier, data: Dataset, *, device: torch.device | str = "cpu", on_bad: str = "raise"
) -> list[Flag]:
    """Look for what makes robustness numbers wrong, before any attack is run.

    Input range, eval mode, determinism, softmax outputs, number of outputs, gradients, permuted labels,
    and clean accuracy against the published one. The model comes back as it was.

    Args:
        model: the classifier.
        data: labelled images it should know; the first 64 are used.
        device: where to run.
        on_bad: ``raise`` at an image that cannot be read, or ``skip`` it.

    Raises:
        DataError: the classes of model and data cannot be matched, or an image cannot be read.
    """
    class_map = class_map_for(model, data)
    x, kept, _ = load_images(data, list(range(min(LOOK_AT, len(data)))), data.prepared_by(model.preprocessing), on_bad)  # type: ignore[arg-type]
    if not kept:
        raise DataError(f"none of the first {LOOK_AT} images of {data.name} can be read")
    y = torch.tensor(class_map.target)[torch.as_tensor(data.labels[kept])]
    flags: list[Flag] = []
    training = [name or "the model itself" for name, m in model.named_modules() if m.training]
    if training and any(isinstance(m, nn.Dropout | nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        flags.append(
            Flag(
                "train-mode",
                "info",
                "model",
                f"{len(training)} modules were in training mode; they are measured in eval mode",
                "call model.eval() if you use the model elsewhere; otherwise nothing to do",
                {"modules": len(training)},
            )
        )
    with prepared(model, x, class_map=class_map, device=device) as ready, OwnRandomState(0, ready.device):
        logits = _logits(ready, x)
        if int(y.max()) >= logits.shape[1]:
            return [
                *flags,
                Flag(
                    "too-few-outputs",
                    "error",
                    "model",
                    f"labels reach {int(y.max())}, but the model has {logits.shape[1]} outputs",
                    "check the number of classes of model and data",
                    {"outputs": logits.shape[1], "largest_label": int(y.max())},
                ),
            ]
        right = logits.argmax(1) == y
        flags += _outputs(logits)
        flags += _determinism(ready, x, logits)
        flags += _gradients(ready, x, y)
        flags += _input_range(ready, x, y, right)
    flags += _permuted(logits, y, right, output_names(model, data, class_map) or [*map(str, range(logits.shape[1]))])
    flags += _published(model, data, right)
    return sorted(flags, key=lambda f: LEVELS.index(f.level))


def _logits(model: Prepared, x: Tensor, batch: int = 16) -> Tensor:
    return torch.cat([model.confirm(model.place(part)).cpu() for part in x.split(batch)])


def _outputs(logits: Tensor) -> list[Flag]:
    flags = []
    finite = torch.isfinite(logits).all(1)
    if not finite.all():
        share = 1 - finite.float().mean().item()
        flags.append(
            Flag(
                "not-finite",
                "error",
                "model",
                f"the outputs of {share:.0%} of the images are NaN or infinite",
                "such an answer counts as wrong and proves no attack; find the division or the overflow",
                {"share": share},
            )
        )
    total = logits.sum(1)
    if (logits >= 0).all() and (total - 1).abs().max() < 1e-3:
        flags.append(
            Flag(
                "softmax-outputs",
                "error",
                "model",
                "the outputs are probabilities, not logits: they saturate, and gradients vanish with them",
                "remove the softmax at the end; attacks on probabilities report far too much robustness",
                {"sum": float(total.mean())},
            )
        )
    return flags


def _determinism(model: Prepared, x: Tensor, logits: Tensor) -> list[Flag]:
    flags = []
    again = _logits(model, x)
    change = (again - logits).abs().max().item()
    if change > 1e-5 * max(1.0, logits.abs().max().item()):
        flipped = (again.argmax(1) != logits.argmax(1)).float().mean().item()
        flags.append(
            Flag(
                "not-deterministic",
                "warning",
                "model",
                f"the same images get other outputs each time (up to {change:.2g}; {flipped:.0%} change class)",
                "a single draw is judged: quote robust accuracy over many draws for a randomised defence",
                {"largest_change": change, "flipped": flipped},
            )
        )
        return flags
    alone = _logits(model, x[:4], batch=1)
    difference = (alone - logits[:4]).abs().max().item()
    if difference > 1e-2 * max(1.0, logits.abs().max().item()):
        flags.append(
            Flag(
                "depends-on-the-batch",
                "error",
                "model",
                f"an image gets other outputs when its neighbours in the batch change (by {difference:.2g})",
                "look for batch statistics in the forward pass; such a model has no accuracy of its own",
                {"difference": difference},
            )
        )
    return flags


def _gradients(model: Prepared, x: Tensor, y: Tensor) -> list[Flag]:
    images = model.place(x[:16]).requires_grad_(True)
    with torch.enable_grad():
        try:
            loss = F.cross_entropy(model(images).float(), y[:16].to(images.device), reduction="sum")
            found = torch.autograd.grad(loss, images, allow_unused=True)[0] if loss.requires_grad else None
        except (RuntimeError, NotImplementedError) as error:
            return [_no_gradient(str(error).splitlines()[0])]
    if found is None:
        return [_no_gradient("the outputs do not depend on the images differentiably")]
    broken = (~torch.isfinite(found)).flatten(1).any(1).float().mean().item()
    zero = (found.flatten(1).abs().amax(1) == 0).float().mean().item()
    flags = []
    if broken:
        flags.append(
            Flag(
                "nan-gradient",
                "warning",
                "model",
                f"the gradient of {broken:.0%} of the images holds NaN or infinity",
                "gradient attacks stand still on them; find the square root or logarithm at zero",
                {"share": broken},
            )
        )
    if zero:
        flags.append(
            Flag(
                "zero-gradient",
                "warning",
                "model",
                f"the gradient of {zero:.0%} of the images is zero everywhere",
                "gradient attacks are blind there: attack with logits only as well (square)",
                {"share": zero},
            )
        )
    return flags


def _no_gradient(reason: str) -> Flag:
    return Flag(
        "no-gradient",
        "error",
        "model",
        f"there is no gradient with respect to the images ({reason})",
        "look for detach(), no_grad, rounding or a conversion to numpy; or attack with logits only (square)",
        {},
    )


def _input_range(model: Prepared, x: Tensor, y: Tensor, right: Tensor) -> list[Flag]:
    """Does the model do much better on images in another range than [0, 1]?"""
    own = right.float().mean().item()
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    others = {
        "expects-0-255": (x * 255, "images in [0, 255]", "divide by 255 inside: Classifier(module, mean=0, std=1/255)"),
        "normalisation-missing": (
            (x - mean) / std if x.shape[1] == 3 else x,
            "images normalised with ImageNet's mean and std",
            "let the model own it: Classifier(module, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])",
        ),
    }
    flags = []
    for name, (images, words, remedy) in others.items():
        accuracy = (_logits(model, images).argmax(1) == y).float().mean().item()
        if accuracy > own + max(0.1, 3 * (0.25 / len(y)) ** 0.5):
            flags.append(
                Flag(
                    name,
                    "error",
                    "model",
                    f"accuracy is {own:.0%} on images in [0, 1], but {accuracy:.0%} on {words}",
                    remedy,
                    {"accuracy": own, "other": accuracy, "n": len(y)},
                )
            )
    return flags


def _permuted(logits: Tensor, y: Tensor, right: Tensor, names: Sequence[str]) -> list[Flag]:
    """Would renaming the classes make the model much better? Then the label order is doubtful.

    Some renaming suits even a model that guesses. So it must gain more than it does for the same
    predictions dealt out to the images at random.
    """
    predicted = logits.argmax(1)
    # A label seen once can always be renamed to its prediction: only labels seen at least twice tell anything.
    repeated = torch.bincount(y)[y] >= 2
    n = int(repeated.sum())
    if n < 10:
        return []
    labels, answers = y[repeated].tolist(), predicted[repeated].tolist()
    own = right[repeated].float().mean().item()
    best, hits = _renaming(labels, answers)
    renamed = [label for label in best if best[label] != label]
    deal = np.random.default_rng(0)
    by_chance = max(_renaming(labels, deal.permutation(answers).tolist())[1] for _ in range(200))
    if hits / n > own + 0.3 and hits > by_chance and len(renamed) >= 2:
        examples = ", ".join(f"{names[label]} → {names[best[label]]}" for label in renamed[:5])
        return [
            Flag(
                "labels-look-permuted",
                "error",
                "data",
                f"accuracy is {own:.0%}, but would be {hits / n:.0%} if classes were renamed ({examples} …)",
                "compare the class order of the data with the model's; give class names on both sides",
                {"accuracy": own, "renamed": hits / n, "n": n},
            )
        ]
    return []


def _renaming(labels: list[int], answers: list[int]) -> tuple[dict[int, int], int]:
    """A greedy one-to-one renaming of labels to answers, and how many images it gets right."""
    pairs = Counter(zip(labels, answers, strict=True))
    best: dict[int, int] = {}
    for (label, answer), _ in pairs.most_common():
        if label not in best and answer not in best.values():
            best[label] = answer
    return best, sum(pairs[pair] for pair in best.items())


def _published(model: Classifier, data: Dataset, right: Tensor) -> list[Flag]:
    value = model.published.get(f"{data.name} top1")
    if value is None:
        return []
    n = len(right)
    low, high = wilson(int(right.sum()), n, level=0.999)
    if low <= value <= high:
        return []
    level = "error" if value > high else "warning"
    return [
        Flag(
            "not-as-published",
            level,
            "model",
            f"clean accuracy is {right.float().mean().item():.1%} on {n} images, published is {value:.1%}",
            "check weights, resize, crop, interpolation, mean and std before believing any other number",
            {"accuracy": right.float().mean().item(), "published": value, "n": n},
        )
    ]
