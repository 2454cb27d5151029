"""``aresbench verify``: does what a bundle claims hold?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from aresbench.cli.again import Sources, add_sources
from aresbench.cli.parser import count, print_json
from aresbench.core.errors import AresError

if TYPE_CHECKING:
    from aresbench.engine.verify import Finding, Verified

SHOWN = 20  # findings printed of each cell; --json has all


def add(verbs: Any) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "verify",
        help="check what a bundle of results claims, by forward passes only",
        description="Check every claimed break and every clean verdict of a bundle on the model itself. Nothing is\n"
        "attacked: a break is checked where the bundle holds its image (`store export --images`).\n"
        "Exit status 1 if anything does not hold.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle, or the folder of an archive")
    parser.add_argument("--n", type=count, metavar="N", help="look at the first N images of each cell only")
    add_sources(parser)
    parser.add_argument("--json", action="store_true", help="for another program to read")
    parser.set_defaults(call=call)


def call(args: argparse.Namespace) -> int:
    """Print what holds and what does not."""
    from contextlib import ExitStack

    from aresbench.store import Store, unpacked
    from aresbench.store.bundle import is_bundle

    with ExitStack() as stack:
        folder = stack.enter_context(unpacked(args.bundle)) if is_bundle(args.bundle) else args.bundle
        cells = Store(folder).require_cells()
        from aresbench.engine.evaluate import chosen_device
        from aresbench.engine.verify import Verified, problem_of, verify

        device, sources = chosen_device(args.device), Sources(args, cells)
        found = []
        for cell in cells:
            try:
                one = verify(cell, sources.model(cell), sources.data(cell), n=args.n, device=device, batch=args.batch)
            except AresError as error:  # the other cells can still be checked
                one = Verified(repr(cell), findings=[problem_of(error)])
            found.append(one)
            if not args.json:
                _print(one)
    if args.json:
        print_json([one.record() for one in found])
    else:
        _close(found)
    return int(not all(one.sound for one in found))


def _print(one: Verified) -> None:
    print(one.name)
    print(f"  {one.images} images: {one.clean} verdicts before any attack found again")
    if one.claims or one.resisted:
        fails = one.claims - one.holds - one.unpictured
        print(f"  {one.claims} claimed breaks: {one.holds} hold, {fails} do not")
        if one.unpictured:
            print(f"  {one.unpictured} not checkable: no image in the bundle")
        print(f"  {one.resisted} resisted, which forward passes cannot tell")
    if one.noise:
        print(f"  {one.noise} differ within float noise")
    _list("✗", one.findings)
    _list("·", one.notes)


def _list(mark: str, findings: list[Finding]) -> None:
    for finding in findings[:SHOWN]:
        print(f"  {mark} {finding.what}{' ' * bool(finding.id)}{finding.id}: {finding.message}")
    if len(findings) > SHOWN:
        print(f"  {mark} and {len(findings) - SHOWN} more; --json lists all")


def _close(found: list[Verified]) -> None:
    wrong = sum(len(one.findings) for one in found)
    images, claims = sum(one.images for one in found), sum(one.claims for one in found)
    holds, unpictured = sum(one.holds for one in found), sum(one.unpictured for one in found)
    print(f"\n{len(found)} cells, {images} rows, {holds} of {claims} claimed breaks shown to hold", end="")
    print(f", {unpictured} not checkable" if unpictured else "")
    print(f"{wrong} do not hold" if wrong else "nothing was found that does not hold")
