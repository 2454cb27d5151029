"""Train the two committed digits models: a plain one and one trained on adversarial images.

    python scripts/train_digits.py                  # writes src/aresbench/models/weights/
    python scripts/train_digits.py --evaluate       # only measures the weights that are there

Data: scikit-learn's 1,797 real handwritten digits (8×8, 17 grey levels), shown to the models as
32×32 RGB pictures; 1,297 for training, 500 held out by a fixed rule that does not look at them.
The robust model is trained on PGD images in the L∞ ball (Madry et al., "Towards Deep Learning
Models Resistant to Adversarial Attacks", ICLR 2018); the plain one by the same loop with radius 0.
The weights of the last epoch are kept; nothing is chosen by the held-out images.

Measured (torch 2.15, CPU, one thread; 16 s and 84 s of training), accuracy in percent on the 500
held-out digits, clean and under PGD-50 (one random start) at an L∞ radius in [0,1] units:

    model           clean  0.01  0.02  0.03  0.05   0.1  0.15   0.2  0.25
    digits-plain     99.8  93.0  61.0  14.0   0.0   0.0   0.0   0.0   0.0
    digits-robust    97.2  96.4  95.8  94.4  91.2  79.4  57.2  23.2   0.6

Under torchattacks' APGD-CE (50 steps, one start) on the first 300 of them the robust model keeps
78.0 at 0.1, 56.3 at 0.14, 50.3 at 0.15, 42.7 at 0.16 and 14.0 at 0.2; in L2, 57.7 at 1.5.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from aresbench.models.architectures.small_cnn import SmallCNN

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "aresbench" / "models" / "weights"
MEAN, STD = 0.5, 0.5
BUDGETS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25)


def load_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, held-out images and labels; images are [N, 3, 32, 32] in [0, 1]."""
    digits = load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)
    pictures = [Image.fromarray(g).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR) for g in grey]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    y = torch.from_numpy(digits.target).long()

    def place(i: int) -> bytes:
        return hashlib.blake2b(f"digits/{i:05d}".encode(), digest_size=8).digest()

    order = sorted(range(len(y)), key=place)
    held_out, training = order[:500], sorted(order[500:])
    return x[training].contiguous(), y[training], x[held_out].contiguous(), y[held_out]


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Logits of images in [0, 1]."""
    logits: Tensor = model((x - MEAN) / STD)
    return logits


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, rng: torch.Generator) -> Tensor:
    """Images in the L∞ ball of radius ``eps`` that raise the cross-entropy (random start, step 2.5·eps/steps)."""
    low, high = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
    x_adv = low + (high - low) * torch.rand(x.shape, generator=rng)
    for _ in range(steps):
        x_adv.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits_of(model, x_adv), y, reduction="sum"), x_adv)
        x_adv = (x_adv.detach() + 2.5 * eps / steps * gradient.sign()).clamp(low, high)
    return x_adv.detach()


def shift(x: Tensor, rng: torch.Generator, most: int = 2) -> Tensor:
    """Each image moved by up to ``most`` pixels in both directions (black comes in)."""
    padded = F.pad(x, (most,) * 4)
    corners = torch.randint(0, 2 * most + 1, (len(x), 2), generator=rng).tolist()
    return torch.stack([image[:, r : r + 32, c : c + 32] for image, (r, c) in zip(padded, corners, strict=True)])


def train(x: Tensor, y: Tensor, eps: float, epochs: int, steps: int, seed: int = 0) -> SmallCNN:
    """Minimise the cross-entropy on PGD images of radius ``eps`` (0: on the images themselves).

    The radius grows linearly over the first half; with batch norm the attack sees eval mode.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model, batch = SmallCNN(), 64
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    total = epochs * (len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=total)
    done = 0
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=rng)
        for i in range(len(x) // batch):
            rows = order[i * batch : (i + 1) * batch]
            images, labels = shift(x[rows], rng), y[rows]
            if eps:
                model.eval()
                images = pgd(model, images, labels, eps * min(1.0, 2 * done / total), steps, rng)
            model.train()
            optimiser.zero_grad()
            F.cross_entropy(logits_of(model, images), labels).backward()
            optimiser.step()
            schedule.step()
            done += 1
    return model.eval()


def measure(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy in percent: clean, and under PGD-50 at every budget (0.2 L∞ is written ``"0.2"``)."""
    model.eval()
    with torch.no_grad():
        figures = {"clean": (logits_of(model, x).argmax(1) == y).float().mean().item() * 100}
    for eps in BUDGETS:
        x_adv = pgd(model, x, y, eps, 50, torch.Generator().manual_seed(0))
        with torch.no_grad():
            figures[str(eps)] = (logits_of(model, x_adv).argmax(1) == y).float().mean().item() * 100
    return figures


def save(model: nn.Module, path: Path, text: str) -> None:
    """Write weights with the facts a loader needs: class names, mean and std."""
    facts = {"classes": json.dumps([str(i) for i in range(10)]), "mean": str(MEAN), "std": str(STD), "about": text}
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path, metadata=facts)


RECIPES = {
    "digits-plain": {"eps": 0.0, "epochs": 40, "steps": 0},
    "digits-robust": {"eps": 0.15, "epochs": 60, "steps": 7},
}


def main() -> None:
    """Train (unless told only to measure), write, measure, print."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--evaluate", action="store_true", help="only measure the weights that are there")
    options.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights")
    chosen = options.parse_args()
    torch.set_num_threads(1)  # one thread adds in one order: the same weights again
    x, y, x_test, y_test = load_data()
    for name, recipe in RECIPES.items():
        path = chosen.out / f"{name}.safetensors"
        if chosen.evaluate:
            model = SmallCNN()
            model.load_state_dict(load_file(path))
        else:
            start = time.monotonic()
            model = train(x, y, recipe["eps"], int(recipe["epochs"]), int(recipe["steps"]))
            print(f"{name}: trained in {time.monotonic() - start:.0f} s")
            save(model, path, f"SmallCNN on scikit-learn's digits, L∞ training radius {recipe['eps']}")
        print(name, {k: round(v, 1) for k, v in measure(model, x_test, y_test).items()})


if __name__ == "__main__":
    main()
