"""Which corruptions of a test a training has seen: numbers on those say less about what was never seen.

The rule is that of AugMix, whose authors kept their augmentation and ImageNet-C apart (Hendrycks et al., ICLR 2020,
arXiv:1912.02781, section 3): no operation on contrast, colour, brightness or sharpness, no noise, no blur. What they
used stays allowed: rotating, shearing, shifting, posterising, solarising, equalising, stretching the histogram; so do
crops, mirror images, and mixing two images, which they compared with. They also left out Cutout: no corruption of
ImageNet-C covers rectangles, so that random erasing is not counted here. Adversarial noise is what adversarial training
is about, and no corruption.

| what training changes | test corruptions |
|---|---|
| brightness | brightness |
| contrast | contrast |
| saturation (timm's Color) | saturate |
| sharpness, which below 1 is a 3 × 3 blur; Gaussian blur | defocus_blur, gaussian_blur |
"""

from __future__ import annotations

from aresbench.training.policies import changes, keeps_color_jitter
from aresbench.training.recipe_parts import Augment

SEEN = {
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "saturation": ("saturate",),
    "sharpness": ("defocus_blur", "gaussian_blur"),
    "blur": ("defocus_blur", "gaussian_blur"),
}
JITTER = ("brightness", "contrast", "saturation")


def overlaps(augment: Augment) -> dict[str, str]:
    """The corruptions that an augmentation is close to, each with the reason.

    Returns:
        name of the corruption → e.g. ``augment.policy rand-m9-mstd0.5-inc1 changes contrast``; empty: none.
    """
    causes = [(f"augment.policy {augment.policy}", change) for change in sorted(changes(augment.policy))]
    if augment.color_jitter and keeps_color_jitter(augment.policy):
        causes += [(f"augment.color_jitter {augment.color_jitter:g}", change) for change in JITTER]
    found: dict[str, str] = {}
    for cause, change in causes:
        for corruption in SEEN[change]:
            found.setdefault(corruption, f"{cause} changes {change}")
    return dict(sorted(found.items()))
