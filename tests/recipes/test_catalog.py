"""The recipes by name: every field of one is seen by whoever resolves or lists it."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest

from nonlocalseg.cli import main
from nonlocalseg.recipes.catalog import RECIPES, find_recipe
from nonlocalseg.recipes.schema import Phase, Published, Recipe
from nonlocalseg.training.plan import resolve


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "synthetic/another"),
        ("model", "apnb"),
        ("backbone", "resnet26t"),
        ("phases", (Phase(data="synthetic"),)),
        ("options", {"channels": 64}),
        ("pretrained", True),
        ("published", (Published("Table 1", "mIoU", 12.3),)),
        ("notes", "Something else."),
    ],
)
def test_every_field_of_a_recipe_is_seen(field, value, monkeypatch, capsys):
    def observed(recipe):
        with monkeypatch.context() as patch:
            patch.delitem(RECIPES, name)
            patch.setitem(RECIPES, recipe.name, recipe)
            assert main(["list", "recipes", "--data", "synthetic"]) == 0
            return resolve(recipe.name, {}), capsys.readouterr().out

    name = "synthetic/fcn-resnet10t"
    recipe = find_recipe(name)
    assert observed(recipe) != observed(replace(recipe, **{field: value}))
    assert {field.name for field in fields(Recipe)} == {
        *("name", "model", "backbone", "phases", "options", "pretrained", "published", "notes")
    }


def test_the_list_shows_the_published_figures(capsys):
    assert main(["list", "recipes", "--data", "voc2012"]) == 0
    text = " ".join(re.sub(r"[│┃]", " ", capsys.readouterr().out).split())
    assert "voc2012/ann-resnet50c-mmseg-512x512-20k" in text
    assert "74.86" in text
    assert "78.06" in text
    assert "note 1: mmsegmentation's settings" in text


def test_one_data_set_is_listed_with_its_files_and_oddities(capsys):
    assert main(["list", "datasets", "--data", "pascal_context"]) == 0
    text = capsys.readouterr().out
    assert "│ 59 " in text
    assert "trainval/NAME.mat" in text
    assert "4996 and 5104" in text
