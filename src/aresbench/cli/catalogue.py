"""What there is: every component and suite as plain facts, read from cards without importing anything heavy."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import asdict
from typing import Any

from aresbench.core.errors import UnknownName, did_you_mean
from aresbench.core.registry import ELSEWHERE, SINGULAR, Card, card, find, table
from aresbench.core.spec import parse_call
from aresbench.core.suite import load_suite, suite_names
from aresbench.models.sources.base import KnownSource
from aresbench.training.recipe import load_recipe, recipe_names

KINDS = ("models", "attacks", "corruptions", "filters", "datasets", "defences", "suites", "methods", "recipes")
WORDS = {**SINGULAR, "suites": "suite", "recipes": "recipe"}


def names(kind: str) -> list[str]:
    """Names of one kind, in registry order."""
    if kind == "recipes":
        return recipe_names()
    return suite_names() if kind == "suites" else list(table(kind))


def describe(kind: str, name: str) -> dict[str, Any]:
    """The facts of one component, suite or recipe, ready for JSON.

    Raises:
        UnknownName: no such name.
    """
    if kind == "recipes":
        return _recipe(name)
    return _suite(name) if kind == "suites" else _component(card(kind, name))


def listing(kind: str) -> list[dict[str, Any]]:
    """Everything of one kind; a model source that knows its models' names is followed by them."""
    found = []
    for name in names(kind):
        found.append(describe(kind, name))
        if kind == "models" and found[-1]["facts"].get("quick"):
            found += [describe_model(f"{name}:{model}") for model in find(kind, name)().names()]
    return found


def describe_model(spec: str) -> dict[str, Any]:
    """A model by its full name; a source that knows its models tells more of it than how to call it.

    Raises:
        UnknownName: the source knows all its models, and not this one.
    """
    scheme, _, model = spec.partition("?")[0].partition(":")
    source = find("models", scheme)()
    if not isinstance(source, KnownSource):
        return {"kind": "model", "name": spec, "summary": "", "call": model_calls(spec)}
    summary, facts = source.about(model)
    call = model_calls(spec)
    return {"kind": "model", "name": spec, "summary": summary, "doc": "", "settings": {}, "facts": facts, "call": call}


def locate(thing: str, kind: str | None = None) -> tuple[str, str]:
    """The kind and registered name meant by a name, or by a spec such as ``pgd(steps=20)`` or ``timm:resnet50``.

    Raises:
        UnknownName: nothing is called that, or more than one thing is.
    """
    name = parse_call(thing).name.partition(":")[0]
    kinds = [kind] if kind else KINDS
    hits = [k for k in kinds if name in names(k)]
    if len(hits) == 1:
        return hits[0], name
    if hits:
        spellings = " or ".join(f"`aresbench show {WORDS[k].split()[0]} {thing}`" for k in hits)
        raise UnknownName(f"{name!r} is a {' and a '.join(WORDS[k] for k in hits)}", f"say which: {spellings}")
    known = [n for k in kinds for n in names(k)]
    raise UnknownName(
        f"there is no {WORDS[kind] if kind else 'component'} called {name!r}",
        ELSEWHERE.get(name)
        or did_you_mean(name, known)
        or f"`aresbench list attacks` ({', '.join(k for k in KINDS if k != 'attacks')}) shows them all",
    )


def _component(found: Card) -> dict[str, Any]:
    facts = {k: v for k, v in found.facts.items() if not k.startswith("_")}
    about = inspect.cleandoc(found.doc.partition("\n")[2]).strip()
    return {**asdict(found), "kind": WORDS[found.kind], "facts": facts, "doc": about, "call": _calls(found)}


def _calls(found: Card) -> list[str]:
    """How to call a component: from Python, and in a threat or on the command line."""
    if found.kind == "attacks":
        norm = (found.facts.get("norms") or ("linf",))[0]
        size = "4/255" if norm == "linf" else "0.5"
        spec = found.facts.get("example", found.name)
        return [
            f'ab.attack(model, x, y, "{spec}", "{norm}:{size}")',
            f'ab.Task("digits", "adversary({norm}, {size}, {spec})")',
        ]
    if found.kind == "corruptions":
        return [f'ab.corrupt(x, "{found.name}", severity=3)', f'ab.Task("digits", "corruption({found.name}, 3)")']
    if found.kind == "filters":
        return [f'ab.filtered(x, "{found.name}", r=40)', f'ab.Task("digits", "{found.name}(10)")']
    if found.kind == "datasets":
        spec = found.facts.get("example", found.name)
        return [f'ab.load_dataset("{spec}")', f"aresbench run MODEL --suite SUITE --data {shlex.quote(spec)}"]
    if found.kind == "defences":
        guarded = f"samples:digits-plain + {found.name}"
        return [f'ab.defend(model, "{found.name}")', *model_calls(guarded)]
    if found.kind == "methods":
        return [f'aresbench train RECIPE method="{found.name}"']
    return model_calls(found.facts.get("example", f"{found.name}:NAME"))


def model_calls(spec: str) -> list[str]:
    """How to use a model."""
    return [f'ab.load_model("{spec}")', f"aresbench run {shlex.quote(spec)} --suite quickstart"]


def _recipe(name: str) -> dict[str, Any]:
    recipe = load_recipe(name)
    return {
        "kind": "recipe",
        "name": recipe.name,
        "summary": recipe.title,
        "hash": recipe.hash,
        "paper": recipe.paper,
        "notes": list(recipe.notes),
        "recipe": recipe.toml(),
        "call": [f"aresbench train {name}", f'ab.train("{name}")'],
    }


def _suite(name: str) -> dict[str, Any]:
    suite = load_suite(name)
    return {
        "kind": "suite",
        "name": suite.name,
        "summary": suite.title,
        "version": suite.version,
        "hash": suite.hash(),
        "headline": suite.headline,
        "models": list(suite.models),
        "tasks": [{"name": t.name, "dataset": t.dataset, "n": t.n, "threat": str(t.threat)} for t in suite.tasks],
        "call": [f"aresbench run --suite {name}", f'ab.evaluate(model, "{name}")'],
    }
