"""From a text to a source; listing names stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aresbench.core.errors import SpecError, UnknownName
from aresbench.core.registry import card, find, table
from aresbench.models.load import load_model
from aresbench.models.sources.base import Source


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("", SpecError, "a model's name is missing"),
        ("samples:", SpecError, "names no model"),
        ("sample:digits-plain", UnknownName, "did you mean 'samples'"),
        ("efficientnet-lite0", UnknownName, "did you mean 'samples:efficientnet-lite0'"),
        ("digit-plain", UnknownName, "did you mean 'samples:digits-plain'"),
        ("timm", UnknownName, "write timm:NAME"),
        ("resnet50", UnknownName, "timm:resnet50"),
        ("samples:digits-plain?x", SpecError, "is not an option"),
        ("samples:digits-plain?x=1", SpecError, "no option 'x'"),
        ("timm:resnet18?pretrained=false&pretrained=true", SpecError, "given twice"),
    ],
)
def test_texts_that_cannot_be_read(spec: str, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        load_model(spec)


@pytest.mark.parametrize("name", list(table("models")))
def test_every_source_has_a_card_that_matches_it(name: str) -> None:
    source = find("models", name)
    facts = card("models", name)
    assert issubclass(source, Source) and facts.summary
    assert facts.facts["example"] == source.example and facts.facts["quick"] == source.quick
    assert all(isinstance(n, str) for n in source().names())


def test_naming_models_does_not_import_torch() -> None:
    program = (
        "import sys\n"
        "from aresbench.core.registry import find, table\n"
        "import aresbench.models.load\n"
        "for name in table('models'):\n"
        "    source = find('models', name)\n"
        "    source.quick and source().names()\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
