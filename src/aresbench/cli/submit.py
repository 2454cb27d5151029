"""``aresbench submit``: adversarial images found elsewhere, judged and entered."""

from __future__ import annotations

import argparse
from typing import Any

from aresbench.cli.chosen import add_store, open_store
from aresbench.cli.parser import count, print_json

SHOWN = 20  # rejected images printed; --json has all


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "submit",
        help="enter adversarial images found elsewhere, if they hold",
        description="Judge adversarial images that anyone made, and enter those that break the model inside the\n"
        "budget as attempts of an attack submission(NAME): worst cases take them in. The others are listed.",
    )
    parser.add_argument(
        "file", metavar="FILE", help=".npz with x_adv (uint8 or float32 [n, 3, H, W], as the model sees them) and ids"
    )
    parser.add_argument("--model", required=True, metavar="SPEC", help="the model that they break")
    parser.add_argument("--data", required=True, metavar="SPEC", help="the dataset that the ids belong to")
    parser.add_argument("--budget", required=True, metavar="B", help="e.g. linf:4/255")
    parser.add_argument("--name", required=True, metavar="NAME", help="whose images they are")
    parser.add_argument("--root", metavar="DIR", help="where the dataset lies")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--batch", type=count, metavar="B", help="images in flight (default: what suits the machine)")
    parser.add_argument("--json", action="store_true", help="for another program to read")
    add_store(parser)
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Print what was entered and what was not, and why; 1 if nothing was accepted."""
    store = open_store(args.store)
    from aresbench.data.load import load_dataset
    from aresbench.engine.evaluate import chosen_device
    from aresbench.engine.submission import submit
    from aresbench.models.load import load_model

    found = submit(
        args.file,
        load_model(args.model).eval(),
        load_dataset(args.data, args.root),
        args.budget,
        store=store,
        name=args.name,
        device=chosen_device(args.device),
        batch=args.batch,
    )
    if args.json:
        rejected = [{"id": name, "reason": reason} for name, reason in found.rejected]
        print_json({"accepted": found.accepted, "new": found.new, "rejected": rejected})
    else:
        print(f"{len(found.accepted)} images accepted, {len(found.new)} of them not broken by anybody before")
        for name, reason in found.rejected[:SHOWN]:
            print(f"  rejected {name}: {reason}")
        if len(found.rejected) > SHOWN:
            print(f"  and {len(found.rejected) - SHOWN} more; --json lists all")
    return int(not found.accepted)
