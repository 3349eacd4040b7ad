"""The recipes by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mdprop_ext._words import did_you_mean
from mdprop_ext.recipes.advprop_st import AdvPropST
from mdprop_ext.recipes.base import Recipe
from mdprop_ext.recipes.mdprop import MDProp
from mdprop_ext.recipes.mdprop_noise import MDPropNoise
from mdprop_ext.recipes.mdprop_shared import MDPropShared
from mdprop_ext.recipes.plain import Plain
from mdprop_ext.recipes.user_objects import is_user_object, load_object

_CLASSES: tuple[type[Recipe[Any]], ...] = (Plain, MDProp, MDPropShared, AdvPropST, MDPropNoise)

#: Every recipe by its name, in the order in which ``mdprop recipes`` lists them.
RECIPES: Mapping[str, type[Recipe[Any]]] = MappingProxyType({recipe.name: recipe for recipe in _CLASSES})


def recipe_class(name: str) -> type[Recipe[Any]]:
    """Finds a recipe.

    Args:
        name: Its name, or ``"module:Class"`` for a recipe of the user's own.

    Returns:
        The recipe's class.

    Raises:
        ValueError: If there is no such recipe; the message names the one that is likely meant.
    """
    if is_user_object(name):
        found = load_object("recipe", name)
        if not (isinstance(found, type) and issubclass(found, Recipe)):
            raise ValueError(f"recipe: expected {name!r} to be a subclass of Recipe, got {found!r}")
        return found
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES) or "."
        raise ValueError(f"recipe: no recipe {name!r}{hint} There are {', '.join(RECIPES)}")
    return RECIPES[name]


def run_folder_name(name: str, seed: int) -> str:
    """Returns what a comparison calls the folder of one of its runs; not every file system takes ``module:Class``."""
    return f"{name.replace(':', '.')}-seed{seed}"


def name_of(recipe: type[Recipe[Any]]) -> str:
    """Returns what :func:`recipe_class` finds a class by."""
    return recipe.name if RECIPES.get(recipe.name) is recipe else f"{recipe.__module__}:{recipe.__qualname__}"
