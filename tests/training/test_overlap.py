"""What timm's policies change, and which corruptions of a test that comes close to."""

from __future__ import annotations

import pytest
from timm.data.transforms_factory import transforms_imagenet_train

from aresbench.core.errors import SpecError
from aresbench.core.registry import table
from aresbench.training.overlap import SEEN, overlaps
from aresbench.training.policies import changes, check_policy, keeps_color_jitter
from aresbench.training.recipe_parts import Augment

READABLE = (
    *("rand", "rand-m9-mstd0.5-inc1", "rand-m10-n3-p0.3-mmax20", "rand-m9-tweights", "rand-t3a-m5", "rand-m9-t3aw"),
    *("augmix", "augmix-m5-w4-d2-a1.5-b1-mstd0.5"),
    *("original", "originalr-mstd0.5", "v0", "v0r", "3a"),
)
WORDS = {
    "Brightness": "brightness",
    "Contrast": "contrast",
    "Color": "saturation",
    "Sharpness": "sharpness",
    "GaussianBlur": "blur",
    "GaussianBlurRand": "blur",
}
HARMLESS = {
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "PosterizeOriginal", "Solarize", "SolarizeAdd"),
    *("ShearX", "ShearY", "TranslateXRel", "TranslateYRel", "Desaturate"),
}


@pytest.mark.parametrize("text", READABLE)
def test_the_table_is_timms(text: str) -> None:
    check_policy("augment.policy", text)
    _, rest, _ = transforms_imagenet_train(64, auto_augment=text, color_jitter=0.4, separate=True)
    names = {type(transform).__name__ for transform in rest.transforms}
    assert ("ColorJitter" in names) == keeps_color_jitter(text)
    policy = rest.transforms[0]
    ops = policy.ops if "AutoAugment" not in names else [op for pair in policy.policy for op in pair]
    found = {op.name.removesuffix("Increasing") for op in ops}
    assert found <= HARMLESS | set(WORDS)
    assert {WORDS[name] for name in found if name in WORDS} == changes(text)


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("randd-m9", "begins with 'randd'", "'rand'"),
        ("orignal", "begins with 'orignal'", "'original'"),
        ("imagenet", "begins with 'imagenet'", "rand, augmix, original"),
        ("rand-m9-std0.5", "'std0.5' is no part of rand", "mstdNUMBER"),
        ("rand-m9-inc", "'inc' is no part of rand", "incNUMBER"),  # timm would pass over it
        ("rand-9", "'9' is no part of rand", "mNUMBER"),
        ("rand-m9-tweigths", "'tweigths' names no set", "'tweights'"),
        ("rand-m9.5", "'m9.5' is no whole number", ""),
        ("augmix-n3", "'n3' is no part of augmix", "wNUMBER"),
        ("v0-m9", "'m9' is no part of v0", "mstdNUMBER"),
    ],
)
def test_texts_that_mean_nothing(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(SpecError, match=f"augment.policy = '{text}'.*{problem}") as caught:
        check_policy("augment.policy", text)
    assert remedy in caught.value.remedy
    with pytest.raises(SpecError):
        Augment(policy=text)


def test_what_trainings_have_seen() -> None:
    assert set().union(*SEEN.values()) <= set(table("corruptions"))
    assert overlaps(Augment(erase=0.25, mixup=0.8, cutmix=1.0, flip=0.5, smoothing=0.1)) == {}
    assert overlaps(Augment(policy="rand-m9-mstd0.5-inc1")) == {
        "brightness": "augment.policy rand-m9-mstd0.5-inc1 changes brightness",
        "contrast": "augment.policy rand-m9-mstd0.5-inc1 changes contrast",
        "defocus_blur": "augment.policy rand-m9-mstd0.5-inc1 changes sharpness",
        "gaussian_blur": "augment.policy rand-m9-mstd0.5-inc1 changes sharpness",
        "saturate": "augment.policy rand-m9-mstd0.5-inc1 changes saturation",
    }
    assert overlaps(Augment(color_jitter=0.1)) == {
        "brightness": "augment.color_jitter 0.1 changes brightness",
        "contrast": "augment.color_jitter 0.1 changes contrast",
        "saturate": "augment.color_jitter 0.1 changes saturation",
    }
    assert set(overlaps(Augment(policy="v0", color_jitter=0.4))) == {"saturate"}, "jitter is off under a policy"
    assert len(overlaps(Augment(policy="3a", color_jitter=0.4))) == 5, "but not under this one"
