"""Models made by the user's own code."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.models.classifier import UNDECLARED
from aresbench.models.load import load_model

Write = Callable[[str, str | bytes], Path]
FULL = """
from aresbench.models.architectures.small_cnn import SmallCNN
from aresbench.models.classifier import Classifier

def make():
    return Classifier(SmallCNN(3), mean=0.25, std=0.5, classes=["cat", "dog", "eel"], preprocessing=32)
"""


def test_a_plain_module_is_wrapped_and_the_missing_statistics_recorded(factory: Path) -> None:
    model = load_model("./mine.py:make")
    assert isinstance(model.module, nn.Module) and type(model.module).__name__ == "SmallCNN"
    assert model.card["notes"] == [UNDECLARED]
    assert not model.training and not model.module.training
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_options_say_what_a_plain_module_cannot(factory: Path, write: Write) -> None:
    write("names.txt", "\n".join("abcdefghij"))
    model = load_model("./mine.py:make?mean=[0.1, 0.2, 0.3]&std=0.5&classes=names.txt&size=32")
    assert model.card["mean"] == [0.1, 0.2, 0.3] and model.card["std"] == [0.5] * 3
    assert model.classes is not None and model.classes.names[9] == "j"
    assert model.preprocessing is not None and model.preprocessing.size == (32, 32)


def test_a_classifier_speaks_for_itself(write: Write) -> None:
    write("full.py", FULL)
    model = load_model("./full.py:make")
    assert model.classes is not None and model.classes.names == ("cat", "dog", "eel")
    assert model.card["mean"] == [0.25] * 3 and model.name == "full.py:make" and not model.training
    with pytest.raises(SpecError, match="'mean' is too much"):
        load_model("./full.py:make?mean=0.5&std=0.5")


def test_a_module_on_the_path_works_too(factory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (factory.parent / "my_pack").mkdir()
    (factory.parent / "my_pack" / "models.py").write_text(factory.read_text())
    monkeypatch.syspath_prepend(str(factory.parent))
    model = load_model("my_pack.models:make")
    assert model.name == "my_pack.models:make" and model(torch.rand(1, 3, 32, 32)).shape == (1, 10)


def test_a_module_object_is_taken_as_it_is(write: Write) -> None:
    write("ready.py", "from torch import nn\nnet = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n")
    assert load_model("./ready.py:net")(torch.rand(2, 3, 8, 8)).shape == (2, 3)


def test_the_fingerprint_reads_the_program_text_and_edits_are_seen(write: Write) -> None:
    text = "from torch import nn\n\nclass Pool(nn.Module):\n    def forward(self, x):\n        return x.{}((2, 3))\n"
    path = write("edit.py", text.format("mean"))
    first = load_model("./edit.py:Pool")
    path.write_text(text.format("amax"))
    os.utime(path, (2e9, 2e9))  # or Python may trust its cached bytecode: same size, same second
    second = load_model("./edit.py:Pool")
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(first(x), x.mean((2, 3))) and torch.equal(second(x), x.amax((2, 3)))
    assert first.fingerprint != second.fingerprint
    assert second.fingerprint == load_model("./edit.py:Pool").fingerprint


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("./absent.py:make", UnknownName, "there is no file absent.py"),
        ("./mine.py:mkae", UnknownName, "did you mean 'make'"),
        ("no_such_pack.models:make", UnknownName, "there is no module 'no_such_pack.models'"),
        ("./mine.py", SpecError, "mine.py:FACTORY"),
        ("./mine.py:__name__", ModelError, "is a str, not a factory"),
        ("./bad.py:text", ModelError, "bad.py:text returns a str, not a model"),
        ("./bad.py:needs", ModelError, r"needs\(\) raises TypeError: .*missing 1 required"),
        ("./bad.py:fails", ModelError, "raises ZeroDivisionError"),
        ("./broken.py:make", ModelError, "broken.py cannot be imported: SyntaxError"),
        ("./imports.py:make", ModelError, "cannot be imported: ModuleNotFoundError: No module named 'no_such_pack'"),
        ("./mine.py:make?colour=red", SpecError, "options here: mean, std, classes, size"),
        ("./mine.py:make?mean=0.5", ModelError, "mean is given without std"),
    ],
)
def test_failures_name_the_thing(factory: Path, write: Write, spec: str, kind: type, message: str) -> None:
    write("bad.py", "def text(): return 'x'\ndef needs(a): return a\ndef fails(): return 1 / 0\n")
    write("broken.py", "def make(:\n")
    write("imports.py", "import no_such_pack\n")
    with pytest.raises(kind, match=message):
        load_model(spec)


def test_names_carry_no_machine_folders(factory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = load_model(f"{factory}:make").name
    assert inside == "mine.py:make"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_model(f"{factory}:make").name == f"{tmp_path.name}/mine.py:make"
