"""The 8-bit result of every corruption, as a hash that stays: stored results are comparable only while it does.

``golden.json`` holds a SHA-256 per corruption, image side and severity, for one synthetic picture in float64.
A new corruption gets its entry by

    python tests/corruptions/test_golden.py NAME

and a corruption whose numbers change needs a higher ``revision`` first; then the same command renews its entry.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aresbench.core.registry import TABLES
from aresbench.corruptions.load import make_corruption
from aresbench.ops.random import Streams

FILE = Path(__file__).with_name("golden.json")
NAMES = sorted(TABLES["corruptions"])
SIDES = (32, 64, 224, 299)
OWN_IN_THE_PACKAGE = ("elastic_transform", "frost", "motion_blur", "snow")  # others in the mode imagecorruptions


def picture(side: int) -> Tensor:
    """Ramps, a texture, and patches of white, black, grey and pure colour, from whole numbers alone: float64."""
    i, j = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    ramps = torch.stack((255 * i // side, 255 * j // side, 255 * (i + j) // (2 * side)))
    texture = (i * i * 7 + i * j * 13 + j * j * 29) // 5 % 97
    levels = (ramps + texture - 48).clamp(0, 255)
    k = side // 8
    for place, colour in enumerate(((255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 0, 0), (0, 0, 255))):
        levels[:, place * k : (place + 1) * k, 2 * k : 4 * k] = torch.tensor(colour)[:, None, None]
    return (levels.double() / 255)[None]


def hashes(name: str, side: int, mode: str = "memory") -> str:
    """One hash for each severity: the first 16 hex digits of the SHA-256 of the levels [3, side, side]."""
    found = []
    for severity in (1, 2, 3, 4, 5):
        corruption = make_corruption(name, severity, mode)
        result = corruption(picture(side), Streams(0, corruption.component, ["golden"]))
        levels = (result * 255).round().to(torch.uint8).numpy()
        found.append(hashlib.sha256(levels.tobytes()).hexdigest()[:16])
    return " ".join(found)


def entry(name: str) -> dict[str, Any]:
    """What ``golden.json`` says of a corruption."""
    record: dict[str, Any] = {"revision": make_corruption(name, 1).revision}
    record |= {str(side): hashes(name, side) for side in SIDES}
    if name in OWN_IN_THE_PACKAGE:
        record["64 imagecorruptions"] = hashes(name, 64, "imagecorruptions")
    return record


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_this_revision(name: str) -> None:
    golden = json.loads(FILE.read_text())
    again = f"python tests/corruptions/test_golden.py {name}"
    assert name in golden, f"{name} has no golden hashes yet: run {again}"
    assert golden[name]["revision"] == make_corruption(name, 1).revision, f"a new revision: run {again}"
    assert golden[name] == entry(name), f"the numbers of {name} changed: raise its revision, then run {again}"


def test_golden_hashes_are_of_registered_corruptions() -> None:
    assert set(json.loads(FILE.read_text())) <= set(NAMES)


def main(names: list[str]) -> None:
    """Write the entries of new corruptions and new revisions; refuse a change without one."""
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in names or NAMES:
        new = entry(name)
        old = golden.get(name, {})
        if any(old[key] != new[key] for key in old.keys() & new) and old["revision"] >= new["revision"]:
            sys.exit(f"the numbers of {name} changed: raise its revision first")
        golden[name] = new
    FILE.write_text(json.dumps(dict(sorted(golden.items())), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
