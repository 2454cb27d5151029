"""Tasks and suites: a task is a dataset under a threat; a suite is a versioned list of tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from aresbench.core.builtin import file_names, read_file
from aresbench.core.errors import SpecError, did_you_mean
from aresbench.core.spec import parse_call
from aresbench.core.threat import SEVERITIES, Threat, benchmark, parse_threat, parse_threats, unlisted

DERIVED = ("mCE", "mean corruption accuracy")


@dataclass(frozen=True, init=False)
class Task:
    """One column of a benchmark: a dataset under a threat.

    Args:
        dataset: dataset spec, e.g. ``samples`` or ``folder:/photos``.
        threat: what happens to its images; a text is parsed.
        name: how tables call it; default: the threat's short name.
        n: how many images of the published order; ``None``: all.
    """

    dataset: str
    threat: Threat
    name: str
    n: int | None

    def __init__(self, dataset: str, threat: Threat | str, name: str = "", n: int | None = None) -> None:
        parsed = parse_threat(threat) if isinstance(threat, str) else threat
        for key, value in {"dataset": dataset, "threat": parsed, "name": name or parsed.title, "n": n}.items():
            object.__setattr__(self, key, value)


def tasks(dataset: str, *threats: str, n: int | None = None) -> list[Task]:
    """One task for each of many threats on a dataset, lists of corruptions, severities and radii taken apart.

    Args:
        dataset: dataset spec, e.g. ``samples``, or many as in ``imagenet-c(corruption=imagenet-c, severity=all)``.
        threats: e.g. ``clean``, ``corruption(imagenet-c, all)`` (its 15 corruptions at 5 severities),
            ``corruption([fog, snow], [1, 3, 5])``, ``lowpass([110, 60, 10])``.
        n: how many images of the published order; ``None``: all.

    Raises:
        SpecError, UnknownName: a threat cannot be read.
    """
    return [
        Task(each, threat, n=n)
        for each in parse_datasets(dataset)
        for text in threats
        for threat in parse_threats(text)
    ]


def parse_datasets(text: str) -> list[str]:
    """The datasets of a text in which corruptions and severities may be lists, one for each combination.

    ``imagenet-c(corruption=[fog, snow], severity=all)`` is ten datasets, ``corruption=imagenet-c`` stands for the
    fifteen corruptions of that benchmark. Any other text stands for itself.
    """
    body, bracket, path = text.strip().partition("):")  # name(settings):/path
    call = parse_call(body + ")" if bracket else text)
    if not {"corruption", "severity"} & set(call.kwargs):
        return [text]
    many = {"corruption": benchmark, "severity": lambda value: SEVERITIES if value == "all" else ()}
    options = [
        [f"{key}={one}" for one in (key in many and many[key](value)) or unlisted(value)]
        for key, value in call.kwargs.items()
    ]
    where = f":{path}" if bracket else ""
    return [f"{call.name}({', '.join([*call.args, *chosen])}){where}" for chosen in product(*options)]


@dataclass(frozen=True)
class Suite:
    """A versioned list of tasks with a headline metric.

    Args:
        name, version, title: what it is called.
        tasks: in the order in which tables show them.
        models: models it runs on when the user names none.
        headline: what ranks models: a task's name, or a number that follows from several (``DERIVED``).
    """

    name: str
    version: int
    title: str
    tasks: tuple[Task, ...]
    models: tuple[str, ...] = ()
    headline: str = ""

    def hash(self) -> str:
        """Short hash of what is measured: datasets, image counts and threats in order."""
        text = "\n".join(f"{t.dataset}\t{t.n}\t{t.threat}" for t in self.tasks)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def suite_names() -> list[str]:
    """Names of the built-in suites."""
    return file_names("suites")


def load_suite(name: str) -> Suite:
    """A built-in suite by name, or one of the user's own from a ``.toml`` file.

    Raises:
        UnknownName: no such suite or file.
        SpecError: the file is not a suite; the message names the key.
    """
    return read_suite(read_file("suites", name, f"suites are {', '.join(suite_names())}"), name)


_TOP = ("name", "version", "title", "headline", "models", "tasks")
_TASK = ("data", "n", "threats")


def read_suite(raw: dict[str, Any], where: str) -> Suite:
    """A suite from its parsed TOML; ``where`` names it in errors.

    Each ``[[tasks]]`` block is ``data`` (one dataset, or many: :func:`parse_datasets`), ``n`` (how many images) and
    ``threats``: a list of texts, or of tables with ``threat`` and ``name``. A text may stand for many threats, as
    ``corruption(imagenet-c, all)`` does.
    """
    _known_keys(raw, _TOP, where)
    tasks: list[Task] = []
    for block in raw.get("tasks", []):
        _known_keys(block, _TASK, f"{where}: [[tasks]]")
        for threat in block.get("threats", []):
            entry = threat if isinstance(threat, dict) else {"threat": threat}
            _known_keys(entry, ("threat", "name"), f"{where}: threats")
            name, text = entry.get("name", ""), entry["threat"]
            parsed = [parse_threat(text)] if name else parse_threats(text)
            tasks += [Task(data, one, name, block.get("n")) for data in parse_datasets(block["data"]) for one in parsed]
    if not tasks:
        raise SpecError(f"{where} has no tasks", 'a suite needs [[tasks]] with data = "…" and threats = ["clean", …]')
    names = [(t.dataset, t.name) for t in tasks]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(
                f"{where}: the task {name[1]!r} on {name[0]!r} stands there twice", "give one of them a name"
            )
    return Suite(
        name=raw.get("name", Path(where).stem),
        version=int(raw.get("version", 1)),
        title=raw.get("title", ""),
        tasks=tuple(tasks),
        models=tuple(raw.get("models", ())),
        headline=raw.get("headline", ""),
    )


def _known_keys(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise SpecError(f"{where}: unknown key {key!r}", did_you_mean(key, known) or f"keys are {', '.join(known)}")
    if "data" in known and "data" not in table:
        raise SpecError(f"{where}: a block has no dataset", 'add data = "digits"')
    if "threat" in known and "threat" not in table:
        raise SpecError(f"{where}: a table has no threat", 'add threat = "clean"')
