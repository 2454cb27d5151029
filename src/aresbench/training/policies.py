"""The texts by which timm names augmentation policies, and what a policy does to colours and sharpness."""

from __future__ import annotations

import re

from aresbench.core.errors import SpecError, did_you_mean

RANDAUGMENT, AUGMIX = "rand", "augmix"
AUTOAUGMENT = ("original", "originalr", "v0", "v0r", "3a")
POLICIES = (RANDAUGMENT, AUGMIX, *AUTOAUGMENT)

_NUMBERS = {
    RANDAUGMENT: {"m": int, "n": int, "p": float, "mstd": float, "mmax": int, "inc": int},
    AUGMIX: {"m": int, "w": int, "d": int, "a": float, "b": int, "mstd": float},
}
_AUTOAUGMENT_NUMBERS = {"mstd": float}
_ALL = frozenset({"brightness", "contrast", "saturation", "sharpness"})
_SETS = {"": _ALL, "weights": _ALL, "3a": frozenset({"blur"}), "3aw": _ALL | {"blur"}}  # of RandAugment's operations
_CHANGES = {
    AUGMIX: _ALL,  # timm's has four operations more than the paper's
    "original": _ALL - {"brightness"},
    "originalr": _ALL - {"brightness"},
    "v0": frozenset({"saturation"}),
    "v0r": frozenset({"saturation"}),
    "3a": frozenset({"blur"}),
}


def check_policy(key: str, text: str) -> None:
    """Refuse what timm would refuse in the middle of a run, and what it would pass over without a word.

    Args:
        key: the setting's name, for errors.
        text: e.g. ``rand-m9-mstd0.5-inc1``.

    Raises:
        SpecError: an unknown policy or part of one; the nearest right word is named.
    """
    name, *parts = text.split("-")
    if name not in POLICIES:
        raise SpecError(
            f"{key} = {text!r} is no policy of timm: it begins with {name!r}",
            did_you_mean(name, POLICIES) or f"it begins with one of {', '.join(POLICIES)}",
        )
    numbers = _NUMBERS.get(name, _AUTOAUGMENT_NUMBERS)
    for part in parts:
        if name == RANDAUGMENT and part.startswith("t"):
            if part[1:] not in _SETS or part == "t":
                sets = [f"t{word}" for word in _SETS if word]
                raise SpecError(
                    f"{key} = {text!r}: {part!r} names no set of operations",
                    did_you_mean(part, sets) or f"timm has {', '.join(sets)}",
                )
            continue
        found = re.fullmatch(r"([a-z]*)(\d+(?:\.\d+)?)", part)
        if found is None or found[1] not in numbers:
            words = ", ".join(f"{word}NUMBER" for word in numbers)
            raise SpecError(f"{key} = {text!r}: {part!r} is no part of {name}", f"its parts are {words}")
        if numbers[found[1]] is int and "." in found[2]:
            raise SpecError(f"{key} = {text!r}: {part!r} is no whole number")


def changes(text: str) -> frozenset[str]:
    """What a policy changes among ``brightness``, ``contrast``, ``saturation``, ``sharpness`` and ``blur``."""
    name, *parts = text.split("-")
    if not text:
        return frozenset()
    if name == RANDAUGMENT:
        return _SETS[next((part[1:] for part in parts if part.startswith("t")), "")]
    return _CHANGES[name]


def keeps_color_jitter(text: str) -> bool:
    """Does timm apply colour jitter beside this policy? It does so with its ``3a`` sets alone."""
    return not text or "3a" in text
