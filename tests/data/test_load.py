"""From a text to a dataset; cards; nothing heavy is imported before an image is read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from aresbench.core.errors import AresError, DataError, SpecError, UnknownName
from aresbench.core.registry import TABLES, card, find
from aresbench.data.base import Dataset
from aresbench.data.load import load_dataset


def test_settings_in_the_text_or_as_arguments() -> None:
    assert load_dataset("digits(split=train)").name == load_dataset("digits", split="train").name == "digits-train"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: load_dataset("digit"), UnknownName, "did you mean 'digits'"),
        (lambda: load_dataset("mnist"), UnknownName, "did you mean 'fashion-mnist'"),
        (lambda: load_dataset("digits(spilt=train)"), SpecError, "did you mean 'split'"),
        (lambda: load_dataset("digits(train)"), SpecError, "write key=value"),
        (lambda: load_dataset("digits(split=train)", split="test"), SpecError, "'split' is given twice"),
        (lambda: load_dataset("samples", root="/tmp"), SpecError, "samples has no setting 'root'"),
        (lambda: load_dataset("folder"), SpecError, "folder needs 'root'"),
        (lambda: load_dataset("folder:"), SpecError, "names no path"),
        (lambda: load_dataset("folder:/tmp", root="/tmp"), SpecError, "root='/tmp' is given too"),
        (lambda: load_dataset("imagenet(root=/a)", root="/b"), SpecError, "'root' is given twice"),
        (lambda: load_dataset("aresbench.core.classes:Classes", names=()), DataError, "is not a dataset"),
    ],
)
def test_texts_that_cannot_be_read(call, error: type[AresError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_dataset_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from aresbench.core.classes import Classes\n"
        "from aresbench.data.base import Dataset, Listing\n"
        "@dataclass(frozen=True, eq=False, repr=False)\n"
        "class Mine(Dataset):\n"
        "    n: int = 3\n"
        "    def read(self):\n"
        "        x = np.zeros((self.n, 2, 2, 3), np.uint8)\n"
        "        return Listing('mine', Classes(('a',)), tuple(map(str, range(self.n))), np.zeros(self.n, int), x)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert len(load_dataset("./mine.py:Mine")) == 3
    assert len(load_dataset("./mine.py:Mine(n=5)")) == 5


@pytest.mark.parametrize("name", TABLES["datasets"])
def test_cards_say_what_the_class_says(name: str) -> None:
    shown, factory = card("datasets", name), find("datasets", name)
    assert issubclass(factory, Dataset)
    assert shown.summary == factory.__doc__.split("\n")[0] and shown.summary.endswith(".")
    for fact in ("title", "licence", "citation", "obtain", "image_size"):
        assert shown.facts[fact] == getattr(factory, fact)
    assert list(shown.settings) == [field.name for field in fields(factory)]


def test_the_samples_card_warns() -> None:
    assert "never to be presented as ImageNet accuracy" in card("datasets", "samples").doc
    assert card("datasets", "samples").facts["caution"] == "20 photographs, never to be presented as ImageNet accuracy"


def test_listing_images_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from aresbench.data.load import load_dataset\n"
        "data = load_dataset('samples')[:3]\n"
        "data.picture(0), data.labels, data.ids\n"
        "assert not {'torch', 'torchvision', 'timm', 'foolbox', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
