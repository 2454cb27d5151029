"""The layers of the house, and the rooms that stay light."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "timm", "pandas", "numpy", "sklearn", "altair", "rich", "pyarrow")


def _loaded_after(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of ``names`` a fresh Python has imported after running ``code``."""
    ask = f"{code}\nimport sys; print('LOADED', *[n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def _modules(room: str) -> list[str]:
    folder = Path(str(resources.files("aresbench"))) / room
    dotted = (".".join(("aresbench", room, *p.relative_to(folder).with_suffix("").parts)) for p in folder.rglob("*.py"))
    return sorted(name.removesuffix(".__init__") for name in dotted)


def test_layers_hold() -> None:
    """import-linter's contracts in pyproject.toml."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_the_front_door_imports_nothing_heavy() -> None:
    assert _loaded_after("import aresbench", HEAVY) == []


def test_asking_for_an_error_class_imports_nothing_heavy() -> None:
    assert _loaded_after("import aresbench; aresbench.AresError", HEAVY) == []


@pytest.mark.parametrize("room", ["core", "suites", "metrics", "store", "report"])
def test_light_rooms_never_import_torch(room: str) -> None:
    code = "\n".join(f"import {module}" for module in _modules(room))
    assert _loaded_after(code, ("torch", "torchvision", "timm")) == []


def test_the_plain_words_need_only_the_standard_library() -> None:
    code = "\n".join(f"import {module}" for module in _modules("core"))
    assert _loaded_after(code, HEAVY) == []


def test_every_door_opens() -> None:
    """Each name of the front door exists, is what it says, and is listed by ``dir``."""
    code = (
        "import aresbench as ab\n"
        "for name in ab.__all__:\n"
        "    assert callable(getattr(ab, name)) or name == '__version__', name\n"
        "assert set(ab.__all__) <= set(dir(ab))"
    )
    _loaded_after(code, ())


def test_the_report_room_can_be_called_however_it_was_imported() -> None:
    code = "import aresbench.report.words; import aresbench as ab; assert callable(ab.report); ab.report.words.TITLE"
    _loaded_after(code, ())


def test_a_wrong_door_names_the_right_one() -> None:
    import aresbench

    with pytest.raises(AttributeError, match="did you mean 'load_model'"):
        aresbench.load_modle  # noqa: B018
