"""``aresbench store``: where results lie, what is there, and how to move them."""

from __future__ import annotations

import argparse
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aresbench.cli.again import Sources, add_sources
from aresbench.cli.chosen import add_store, cells_of, model_of, open_store
from aresbench.cli.parser import print_columns, print_json, readable_size
from aresbench.core.errors import SpecError, StoreError

if TYPE_CHECKING:
    from aresbench.store import Cell


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "store",
        help="where results lie, what is there, copy out, copy in",
        description="The archive of results. Several runs may write to it at once; archives merge by copying.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))

    path = actions.add_parser("path", help="print the archive's folder")
    path.set_defaults(call=_path)

    status = actions.add_parser("status", help="cells, rows, size and unfinished journals")
    status.add_argument("--json", action="store_true", help="for another program to read")
    status.set_defaults(call=_status)

    export = actions.add_parser("export", help="pack chosen models' results into one file, or a new archive")
    export.add_argument("models", nargs="*", metavar="MODEL", help="a model's name or a pattern such as 'timm:*'")
    export.add_argument(
        "-o", "--output", required=True, metavar="TARGET", help="a bundle FILE.zip, or the folder of a new archive"
    )
    export.add_argument(
        "--images",
        action="store_true",
        help="into a bundle also the adversarial images, so that `verify` can check them; those that the archive does "
        "not keep yet are made again, one attempt for each broken image",
    )
    add_sources(export)
    export.set_defaults(call=_export)

    merge = actions.add_parser("merge", help="copy other archives or bundles into this one; twice changes nothing")
    merge.add_argument("sources", nargs="+", metavar="SOURCE", help="folder of another archive, or a bundle")
    merge.set_defaults(call=_merge)

    for action in (path, status, export, merge):
        add_store(action)


def _path(args: argparse.Namespace) -> int:
    print(open_store(args.store).path.resolve())
    return 0


def _status(args: argparse.Namespace) -> int:
    store = open_store(args.store)
    status = store.status()
    models = Counter(map(model_of, store.cells()))
    if args.json:
        facts = {name: value for name, value in vars(status).items() if name != "path"}
        print_json({"path": str(store.path.resolve()), **facts, "models": dict(models)})
        return 0
    rows = [
        ("folder", str(store.path.resolve())),
        ("cells", str(status.cells)),
        ("rows", ", ".join(f"{count} {kind}" for kind, count in status.rows.items())),
        ("size", f"{readable_size(status.bytes)} in {status.files} files"),
    ]
    if status.journals:
        rows.append(("unfinished", f"{status.journals} journals; the same run again takes them in"))
    print_columns(rows)
    if models:
        print("\nmodels")
        print_columns([(name, f"{count} cells") for name, count in models.items()], "  ")
    return 0


def _export(args: argparse.Namespace) -> int:
    cells = cells_of(open_store(args.store), args.models)
    if args.output.endswith(".zip"):
        return _export_bundle(args, cells)
    if args.images:
        raise SpecError(f"--images goes with a bundle, and {args.output} is a folder", "write -o FILE.zip")
    if Path(args.output).expanduser().resolve() == Path(args.store).expanduser().resolve():
        raise StoreError(f"{args.output} is the archive itself", "name another folder")
    from aresbench.store.files import explain

    target = open_store(args.output)
    for cell in cells:
        # A cell is its files: copying them is how archives are made to move.
        copy = target.cell(cell.description)
        leave = shutil.ignore_patterns(".*", "cell.json")
        with explain(copy.folder):
            shutil.copytree(cell.folder, copy.folder, dirs_exist_ok=True, ignore=leave)
    print(f"{len(cells)} cells copied to {target.path}")
    return 0


def _export_bundle(args: argparse.Namespace, cells: list[Cell]) -> int:
    from aresbench.store import write_bundle

    if Path(args.output).is_dir():
        raise StoreError(f"{args.output} is a folder", "name a file that is to be written")
    if args.images:
        _keep_images(args, cells)
    size = write_bundle(args.output, cells, command=shlex.join(["aresbench", *args.argv]), breaks=args.images)
    print(f"{len(cells)} cells in {args.output}, {readable_size(size)}")
    return 0


def _keep_images(args: argparse.Namespace, cells: list[Cell]) -> None:
    """Have the archive keep the adversarial images of these cells."""
    claims = [cell for cell in cells if cell.description["task"]["kind"] == "adversary"]
    if not claims:
        return
    from aresbench.engine.evaluate import chosen_device
    from aresbench.engine.evidence import keep_breaks

    sources, device = Sources(args, claims), chosen_device(args.device)
    for cell in claims:
        model, data = sources.model(cell), sources.data(cell)
        kept = keep_breaks(cell, model, data, device=device, batch=args.batch)
        task = cell.description["task"]["name"]
        cost = f"{kept.forwards} forwards, {kept.backwards} backwards"
        print(f"{model_of(cell)} · {task}: {kept.made} images made again ({cost}), {kept.there} were there")
        for name, reason in kept.lost:
            print(f"  no image of {name}: {reason}")


def _merge(args: argparse.Namespace) -> int:
    store = open_store(args.store)
    for source in args.sources:
        new = store.merge(source)
        print(f"{source}: {new['cells']} new cells, {new['files']} new files")
    return 0
