"""``aresbench doctor``: the checks to make before spending a night."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aresbench.cli.parser import print_json, print_wrapped
from aresbench.core.errors import DataError
from aresbench.core.registry import table
from aresbench.training.recipe import load_recipe, recipe_names

if TYPE_CHECKING:
    from aresbench.core.flag import Flag
    from aresbench.data.base import Dataset
    from aresbench.models.classifier import Classifier

MARKS = {"error": "✗ error", "warning": "! warning", "info": "· note"}
SMALL = ("samples", "digits")  # datasets at hand on which a model without data of its own is looked at


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="the checks to make before spending a night",
        description="Examine a model on a few images, or a dataset file by file; or measure whether the images of a\n"
        "training's recipe are read as fast as its model learns. Exit status 1 if an error was found.",
    )
    parser.add_argument(
        "thing", metavar="MODEL|DATASET|RECIPE", help="e.g. ./mine.py:make, folder:/photos, or ./mine.toml"
    )
    parser.add_argument("--data", metavar="SPEC", help="images to look at the model with, e.g. folder:/photos")
    parser.add_argument("--root", metavar="DIR", help="where the dataset lies")
    parser.add_argument("--n", type=int, metavar="N", help="look at the first N images of a dataset only")
    parser.add_argument(
        "--commercial", action="store_true", help="object to data whose licence does not allow commercial use"
    )
    parser.add_argument(
        "--device", metavar="D", help="where the model runs (default: cpu; for a recipe a GPU if there is one)"
    )
    parser.add_argument("--json", action="store_true", help="for another program to read")
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Print each finding with what it means and what to do."""
    records: list[dict[str, Any]] = []
    examine = (
        _examine_recipe if _is_recipe(args.thing) else _examine_datasets if _is_dataset(args.thing) else _examine_model
    )
    for k, (thing, about, flags) in enumerate(examine(args)):
        records += [{"thing": thing, **flag.record()} for flag in flags]
        if not args.json:
            print(end="\n" if k else "")
            _print(about, flags)
    if args.json:
        print_json(records)
    return int(any(record["level"] == "error" for record in records))


def _examine_datasets(args: argparse.Namespace) -> Iterator[tuple[str, str, list[Flag]]]:
    from aresbench.core.suite import parse_datasets
    from aresbench.engine.doctor_data import examine_dataset

    tell = _tell if sys.stderr.isatty() else None
    for spec in parse_datasets(args.thing):
        data, flags = examine_dataset(spec, args.root, args.n, commercial=args.commercial, tell=tell)
        about = spec if data is None else f"{spec}: {len(data)} images, {len(data.classes)} classes"
        if data is not None and args.n and args.n < len(data):
            about += f"; the first {args.n} were looked at"
        yield spec, about, flags


def _examine_model(args: argparse.Namespace) -> Iterator[tuple[str, str, list[Flag]]]:
    from aresbench.data.licence import refuse_unless_commercial
    from aresbench.data.load import load_dataset
    from aresbench.engine.doctor import examine
    from aresbench.engine.evaluate import chosen_device
    from aresbench.models.load import load_model

    model = load_model(args.thing)
    data = load_dataset(args.data, args.root) if args.data else _data_for(model)
    if args.commercial:
        refuse_unless_commercial(data)
    yield args.thing, f"{args.thing} on {data.name}", examine(model, data, device=chosen_device(args.device or "cpu"))


def _examine_recipe(args: argparse.Namespace) -> Iterator[tuple[str, str, list[Flag]]]:
    from aresbench.training.appetite import examine

    about, flags = examine(load_recipe(args.thing), args.device)
    yield args.thing, f"{args.thing}: {about}", flags


def _tell(done: int, total: int) -> None:
    end = "\r\033[K" if done == total else ""  # the line makes room for the findings
    print(f"\r{done:,} of {total:,} images", end=end, file=sys.stderr, flush=True)


def _is_recipe(thing: str) -> bool:
    return thing.endswith(".toml") or thing in recipe_names()


def _is_dataset(thing: str) -> bool:
    """``samples`` and ``folder:/photos`` are datasets; ``samples:digits-plain`` is a model."""
    scheme, colon, _ = thing.partition(":")
    return scheme.partition("(")[0] in table("datasets") and not (colon and scheme in table("models"))


def _data_for(model: Classifier) -> Dataset:
    from aresbench.data.load import load_dataset
    from aresbench.engine.class_rule import class_map_for

    for name in SMALL:
        data = load_dataset(name)
        try:
            class_map_for(model, data)
        except DataError:
            continue
        return data
    raise DataError(
        f"none of the datasets at hand ({', '.join(SMALL)}) has the classes of {model.name}",
        "say what to look at it with, e.g. --data folder:/photos",
    )


def _print(about: str, flags: list[Flag]) -> None:
    print(about)
    for flag in flags:
        print(f"\n{MARKS[flag.level]}: {flag.name}")
        print_wrapped(flag.message, "  ")
        if flag.remedy:
            print_wrapped(f"→ {flag.remedy}", "  ")
    if not flags:
        print("nothing to complain about")
    sys.stdout.flush()
