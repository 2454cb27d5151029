"""Plant the known mistakes of this field, one at a time, and see that the tests catch each.

    python scripts/mutations.py [word …]      all, or those whose name holds one of the words

Every mistake is one that a published library has shipped, or one that would look harmless in a review. The source
is copied, one line of the copy is changed, and a few tests run on the copy: they must fail. A mistake that no test
notices ends the run with status 1, as does one whose line is no longer there.
"""

from __future__ import annotations

# ruff: noqa: E501 - lines of the source are quoted whole
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    Args:
        name: what goes wrong.
        file: below ``src/aresbench``.
        right, wrong: the text there, and what it becomes; ``right`` occurs exactly once.
        tests: the pytest arguments that must fail.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: str


CLOSED = "tests/attacks/test_closed_form.py"
BEHAVIOUR = "tests/attacks/test_behaviour.py"
PEERS = "tests/oracles/test_peers_attacks.py"

MUTATIONS = (
    Mutation(
        "only the last iterate of PGD counts",
        "attacks/pgd.py",
        "    problem.offer(x, logits)\n    moved",
        "    moved",
        f"{BEHAVIOUR} -k on_the_way",
    ),
    Mutation(
        "FMN never projects under L2",
        "attacks/geometry.py",
        "    factor = torch.where(length > 0, per_image(eps, x) / length, 0.0).clamp_max(1e38)",
        "    factor = torch.ones_like(length)",
        f"{CLOSED} -k fmn_finds_the_nearest_break",
    ),
    Mutation(
        "Square under L2 divides where it must multiply",
        "attacks/square.py",
        "fresh = fresh * (mass / (geometry.channel_size(fresh, norm) + 1e-12))",
        "fresh = fresh / (mass / (geometry.channel_size(fresh, norm) + 1e-12))",
        "tests/attacks/test_square.py tests/oracles/test_peers_l1.py -k square",
    ),
    Mutation(
        "AutoAttack with 10 iterations",
        "attacks/autoattack.py",
        '"linf": ("apgd-ce", "apgd-t", "fab-t", "square"),',
        '"linf": ("apgd-ce(steps=10)", "apgd-t(steps=10)", "fab-t(steps=10)", "square"),',
        "tests/engine/test_autoattack.py -k field",
    ),
    Mutation(
        "C&W holds values at the edge of the box",
        "attacks/cw.py",
        "        descent = gradient * geometry.per_image(push, delta)\n",
        "        descent = gradient * geometry.per_image(push, delta) * ((x0 > 0) & (x0 < 1))\n",
        "tests/attacks/test_optimised.py -k cw_finds_the_nearest_break",
    ),
    Mutation(
        "clean errors are attacked and repaired",
        "engine/attack.py",
        "        rows = correct.nonzero().squeeze(1).tolist()",
        "        rows = list(range(len(x)))",
        "tests/contracts/test_attacks.py -k clean_errors",
    ),
    Mutation(
        "8-bit values are cut instead of rounded",
        "engine/driver.py",
        "    nearest = levels.round() / 255",
        "    nearest = levels.floor() / 255",
        "tests/engine/test_driver.py -k eight_bits",
    ),
    Mutation(
        "losses are averaged over the batch, and the L2 step has an absolute epsilon",
        "attacks/geometry.py",
        "        scale = torch.where(length > 0, step / length, 0.0).clamp_max(1e38)\n        return torch.addcmul(x, gradient",
        "        scale = step / (length / len(x) + 1e-10) / len(x)\n        return torch.addcmul(x, gradient",
        f"tests/attacks/test_geometry.py {CLOSED} -k 'l2 and not square'",
    ),
    Mutation(
        "APGD-T is driven to more classes than there are wrong ones",
        "attacks/apgd_t.py",
        "min(self.targets, problem.num_classes - 1)",
        "min(self.targets, problem.num_classes)",
        f"tests/attacks/test_apgd_t.py {BEHAVIOUR} {CLOSED} -k every_wrong_class",
    ),
    Mutation(
        "momentum divides by a gradient of zero",
        "attacks/geometry.py",
        "    scale = torch.where(length > 0, 1 / length, 0.0).clamp_max(1e38)\n    return gradient * per_image",
        "    scale = 1 / length\n    return gradient * per_image",
        f"{BEHAVIOUR} tests/attacks/test_parts.py -k 'mim or nothing_becomes_nan'",
    ),
    Mutation(
        "DLR is divided by the spread of the wrong logits",
        "attacks/losses.py",
        "    return -margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)",
        "    return -margin(logits, y) / (top[:, 1] - top[:, 2] + 1e-12)",
        "tests/attacks/test_losses.py tests/attacks/test_behaviour.py -k 'dlr or its_ratio'",
    ),
    Mutation(
        "the margin is cut at 0 where all other logits are negative",
        "attacks/losses.py",
        "logits.scatter(1, own, -torch.inf).amax(1)",
        "logits.scatter(1, own, 0.0).amax(1)",
        "tests/attacks/test_losses.py tests/attacks/test_behaviour.py -k the_margin",
    ),
    Mutation(
        "the box is forgotten after a step",
        "attacks/geometry.py",
        "        torch.minimum(x, torch.add(x0, eps, out=bound), out=x)\n        return x.clamp_(0, 1)",
        "        torch.minimum(x, torch.add(x0, eps, out=bound), out=x)\n        return x",
        "tests/contracts/test_attacks.py -k 'real_in_the_ball and fgsm-linf'",
    ),
    Mutation(
        "APGD never halves its step",
        "attacks/apgd_rules.py",
        "    halve = due & ((rises <= rho * s.window) | stuck)",
        "    halve = due & (rises < 0)",
        f"{PEERS} -k 'same_path_as and ce and linf and robust'",
    ),
    Mutation(
        "random draws belong to the batch, not to the image",
        "engine/problem.py",
        'f"{label}|{image_id}" for label, image_id in zip(labels, ids, strict=True)',
        'f"{label}|{place}" for label, place in zip(labels, range(len(ids)), strict=True)',
        "tests/contracts/test_attacks.py -k 'batch_or_order and pgd-linf'",
    ),
    Mutation(
        "a break outside the ball counts",
        "engine/problem.py",
        "(distance <= geometry.allowance(self.eps[at]))",
        "(distance <= 2 * geometry.allowance(self.eps[at]))",
        "tests/engine/test_driver.py -k rejected",
    ),
    Mutation(
        "the fast copy's word is taken for the model's",
        "engine/driver.py",
        "        book.confirmed[at] = sure\n",
        "        book.confirmed[at] = True\n",
        "tests/engine/test_driver.py -k confirm",
    ),
    Mutation(
        "a stochastic model is judged by one draw",
        "engine/prepare.py",
        "            draws = DRAWS if spread > 1e-4 * answers[0].abs().amax() else 1",
        "            draws = 1",
        "tests/engine/test_driver.py -k many_draws",
    ),
    Mutation(
        "finite differences are taken on one side only",
        "attacks/sampling.py",
        "torch.cat((centre + radius * noise, centre - radius * noise), dim=1)",
        "torch.cat((centre + radius * noise, centre + 0 * noise), dim=1)",
        "tests/attacks/test_sampling.py -k 'walks or right_as'",
    ),
    Mutation(
        "SPSA looks around the clean image at every step",
        "attacks/spsa.py",
        "sampling.slope(problem, s.x, s.logits,",
        "sampling.slope(problem, problem.x, s.logits,",
        "tests/attacks/test_sampling.py -k spsa_walks",
    ),
    Mutation(
        "DeepFool takes the last class, not the nearest",
        "attacks/deepfool.py",
        "            nearer = away < nearest\n",
        "            nearer = torch.ones_like(away, dtype=torch.bool)\n",
        "tests/attacks/test_minimal.py -k deepfool_is_exact",
    ),
    Mutation(
        "the search for c goes the wrong way in C&W",
        "attacks/cw.py",
        "            high = torch.where(over & s.found, s.sought, s.high)\n            low = torch.where(fruitless,",
        "            high = torch.where(fruitless, s.sought, s.high)\n            low = torch.where(over & s.found,",
        "tests/attacks/test_optimised.py -k 'cw_finds_the_nearest_break or cw_searches'",
    ),
    Mutation(
        "translation invariance smooths after the norm",
        "attacks/mim.py",
        "            raised = made.smoothing(raised)\n        momentum = self.decay * state.momentum + geometry.normalised(raised)",
        "            raised = made.smoothing(geometry.normalised(raised))\n        momentum = self.decay * state.momentum + raised",
        "tests/attacks/test_parts.py -k translation",
    ),
)


def caught(mutation: Mutation) -> str:
    """``caught``, or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        path = source / "aresbench" / mutation.file
        text = path.read_text("utf-8")
        if text.count(mutation.right) != 1:
            return f"the line to change occurs {text.count(mutation.right)} times"
        path.write_text(text.replace(mutation.right, mutation.wrong), "utf-8")
        command = f"{sys.executable} -m pytest -q -x --no-header -p no:cacheprovider {mutation.tests}"
        ran = subprocess.run(
            command,
            shell=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(source), "ARESBENCH_MUTATED": "1"},
            capture_output=True,
            text=True,
        )
    if ran.returncode == 1:
        return "caught"
    return "NOT NOTICED" if ran.returncode == 0 else f"pytest ended with {ran.returncode}: {ran.stdout[-300:]}"


def main() -> None:
    words = sys.argv[1:]
    failed = 0
    for mutation in MUTATIONS:
        if words and not any(word in mutation.name for word in words):
            continue
        verdict = caught(mutation)
        failed += verdict != "caught"
        print(f"{verdict:12s} {mutation.name}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
