"""What a reader must know of a whole section before its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aresbench.report import corruptions
from aresbench.report.best_known import submission_name, told
from aresbench.report.flags import flag_names
from aresbench.report.reading import UNVERIFIED, Reading


def notes(models: Mapping[str, Sequence[Reading]]) -> tuple[str, ...]:
    """Sentences for the head of a section."""
    found = [f"{model}: {text}" for model, group in models.items() for text in told(group)]
    for model, group in models.items():
        if UNVERIFIED in flag_names(group):
            found.append(f"⚑ {model} is unverified: read its flag below before any of its numbers.")
    measured = [r for group in models.values() for r in group if submission_name(r) is None]
    counts = {len(r.images) for r in measured}
    if len(counts) > 1:
        found.append(
            "Not every cell has the same number of images (a run may still be going on); "
            "aresbench compare pairs two models on the images that both have."
        )
    if len(modes := corruptions.modes(r for group in models.values() for r in group)) > 1:
        found.append(
            f"Corruptions were measured in the modes {' and '.join(modes)}: different protocols, and no number here is "
            "a mean over two of them."
        )
    sizes = {size for group in models.values() for r in group if (size := corruptions.parameter_set(r))}
    if len(sizes) > 1:
        found.append(
            f"Corruptions take their doses from the size of a model's input; here those for {_sizes(sizes)} pixels."
        )
    attacks = {
        tuple(
            sorted(
                {
                    a
                    for r in group
                    if r.plain_adversary and submission_name(r) is None
                    for a in r.task.get("attacks", ())
                }
            )
        )
        for group in models.values()
    }
    if len(attacks) > 1:
        found.append(
            "Not every model was attacked by the same attacks: the worst case over fewer attacks is a kinder one."
        )
    return tuple(found)


def _sizes(sizes: Iterable[int]) -> str:
    return " and ".join(map(str, sorted(sizes)))
