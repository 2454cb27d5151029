"""``aresbench cache``: pictures decoded once and kept, how much room they take, and how to be rid of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aresbench.cli.parser import print_columns, print_json, readable_size
from aresbench.core.errors import AresError, DataError, did_you_mean


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "cache",
        help="decoded pictures: where they are kept, how much room they take, remove them",
        description="Pictures are decoded and resized once, and kept as 8-bit images for every later model; of tar\n"
        "shards it is kept what lies where, and of parquet files the pictures unpacked.\n"
        "ARESBENCH_CACHE names the folder; ARESBENCH_CACHE=off keeps nothing.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))

    path = actions.add_parser("path", help="print the cache's folder")
    path.set_defaults(call=_path)

    status = actions.add_parser("status", help="pictures and size, by dataset and preprocessing")
    status.add_argument("--json", action="store_true", help="for another program to read")
    status.set_defaults(call=_status)

    clear = actions.add_parser("clear", help="remove them; no result is lost, the next run decodes again")
    clear.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="of one dataset, as status names it (default: all)"
    )
    clear.set_defaults(call=_clear)


def _folder() -> Path:
    from aresbench.data.cache import VARIABLE, cache_folder

    folder = cache_folder()
    if folder is None:
        raise AresError(f"the cache is switched off: {VARIABLE} is `off`", f"unset {VARIABLE}, or name a folder in it")
    return folder


def _path(args: argparse.Namespace) -> int:
    print(_folder())
    return 0


def _status(args: argparse.Namespace) -> int:
    from aresbench.data.cache import kept_pictures
    from aresbench.data.packed import derived

    folder = _folder()
    kept, packed = kept_pictures(folder), derived()
    if args.json:
        entries = [{**vars(one), "folder": str(one.folder)} for one in kept]
        print_json(
            {
                "path": str(folder),
                "bytes": sum(one.bytes for one in kept),
                "kept": entries,
                "packed": [vars(one) for one in packed],
            }
        )
        return 0
    print(f"{folder}: {readable_size(sum(one.bytes for one in kept))}")
    print_columns(
        [
            (one.dataset, _words(one.preprocessing), f"{one.pictures:,} pictures", readable_size(one.bytes))
            for one in kept
        ],
        "  ",
    )
    for one in packed:
        print(f"{folder.parent / one.kind}: {one.files:,} files, {readable_size(one.bytes)}")
    return 0


def _clear(args: argparse.Namespace) -> int:
    from aresbench.data.cache import clear_pictures, kept_pictures
    from aresbench.data.packed import clear_derived

    folder = _folder()
    known = sorted({one.dataset for one in kept_pictures(folder)})
    if args.dataset is not None and args.dataset not in known:
        hint = did_you_mean(args.dataset, known) or f"it keeps {', '.join(known) or 'nothing'}"
        raise DataError(f"the cache {folder} keeps no pictures of {args.dataset!r}", hint)
    gone = clear_pictures(folder, args.dataset)
    print(f"{sum(one.pictures for one in gone):,} pictures removed, {readable_size(sum(one.bytes for one in gone))}")
    if args.dataset is None:
        for packed in clear_derived():
            print(f"{packed.kind}: {packed.files:,} files removed, {readable_size(packed.bytes)}")
    return 0


def _words(preprocessing: dict[str, Any]) -> str:
    height, width = preprocessing["size"]
    if preprocessing["squash"]:
        return f"{height}×{width}, both sides resized ({preprocessing['interpolation']})"
    if preprocessing["resize"] is None:
        return f"{height}×{width}, as they are"
    return f"{height}×{width} of {preprocessing['resize']} ({preprocessing['interpolation']})"
