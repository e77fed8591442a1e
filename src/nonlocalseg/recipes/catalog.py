"""The recipes by name."""

from __future__ import annotations

from nonlocalseg.choices import pick
from nonlocalseg.recipes.ann import published_ann
from nonlocalseg.recipes.gald import comparisons
from nonlocalseg.recipes.gald_ablations import ablations
from nonlocalseg.recipes.others import compared
from nonlocalseg.recipes.own_images import recipes_for_own_images
from nonlocalseg.recipes.schema import Recipe
from nonlocalseg.recipes.small import small_runs

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *small_runs(),
        *published_ann(),
        *ablations(),
        *comparisons(),
        *compared(),
        *recipes_for_own_images(),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`; ValueError that suggests the nearest name where there is none."""
    return RECIPES[pick("recipe", name, RECIPES)]
