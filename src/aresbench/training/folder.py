"""The folder of a training: one recipe, one folder."""

from __future__ import annotations

import tomllib
from pathlib import Path

from aresbench.core.errors import StoreError
from aresbench.store.files import write_atomic
from aresbench.training.recipe import Recipe, read_recipe
from aresbench.training.world import World

RECIPE = "recipe.toml"


def claim(recipe: Recipe, folder: Path, world: World) -> None:
    """Write the recipe into the folder, or see that it is the one that is there.

    Raises:
        StoreError: another training lies there; the first setting that differs is named.
    """
    path = folder / RECIPE
    if path.is_file():
        other = read_recipe(tomllib.loads(path.read_text("utf-8")), str(path))
        if other.hash != recipe.hash:
            raise StoreError(
                f"{folder} holds the training of another recipe: {_difference(other, recipe)}",
                "choose another folder with --out, or go on with the recipe that is there: "
                f"aresbench train {path} --out {folder}",
            )
    world.wait()
    if world.first:
        write_atomic(path, recipe.toml().encode())
    world.wait()


def _difference(there: Recipe, asked: Recipe) -> str:
    """The settings in which two recipes differ, at most three."""
    found = []
    for key, value in asked.identity().items():
        old = there.identity()[key]
        pairs = [(f"{key}.{name}", old[name], value[name]) for name in value] if isinstance(value, dict) else []
        for name, before, now in pairs or [(key, old, value)]:
            if before != now:
                found.append(f"{name} is {before!r} there and {now!r} here")
    return "; ".join(found[:3]) + ("; …" if len(found) > 3 else "")
