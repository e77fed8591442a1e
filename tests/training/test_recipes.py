"""Recipes and options: names, presets, the file that repeats a run, and that every option has a reader."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import nonlocalseg.training
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.models.presets import MODELS
from nonlocalseg.training.options import PHASE_FIELDS, PLAN_FIELDS, Plan, read_plan, resolve, write_plan
from nonlocalseg.training.recipes import RECIPES, Phase, find_recipe
from nonlocalseg.training.running import train


def test_names_and_parts():
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        data, rest = name.split("/")
        assert rest.startswith(f"{recipe.model}-{recipe.backbone}")
        assert recipe.phases[-1].data == data
        assert recipe.model in MODELS
        assert all(phase.data in DATASETS for phase in recipe.phases)
        assert resolve(name, {}).recipe == name  # its values pass the checks


@pytest.mark.parametrize("model", ["fcn", "apnb", "afnb", "ann"])
def test_models_are_compared_on_equal_terms(model):
    for backbone in ("mobilenetv2_100", "resnet50c", "resnet18"):
        assert find_recipe(f"camvid/{model}-{backbone}").phases == find_recipe(f"camvid/ann-{backbone}").phases


def test_nearest_recipe_is_named():
    with pytest.raises(ValueError, match="'camvid/ann-resnet50c'") as error:
        find_recipe("camvid/ann-resnet50")
    assert "\n" not in str(error.value)


def test_given_options_win_over_the_recipe():
    plan = resolve("camvid/ann-resnet18", {"steps": 7, "seed": 3, "model_options": {"wiring": "mmseg"}})
    assert (plan.phases[0].steps, plan.phases[0].batch_size) == (7, RECIPES["camvid/ann-resnet18"].phases[0].batch_size)
    assert (plan.seed, plan.model_options, plan.pretrained) == (3, {"wiring": "mmseg"}, True)
    assert not resolve("camvid/ann-resnet18", {"backbone_weights": "file"}).pretrained


def test_file_gives_the_same_plan(tmp_path):
    given = {"class_weights": [1.0, 2.0], "terms": {"dice": 0.5}, "crop": (64, 96), "val_split": "none", "ema": 0.9}
    plan = resolve("camvid/ann-resnet18", given | {"root": "somewhere", "precision": "bf16", "accumulate": 2})
    write_plan(tmp_path / "recipe.yaml", plan)
    assert Plan(**read_plan(tmp_path / "recipe.yaml")) == plan
    assert resolve(tmp_path / "recipe.yaml", {}) == plan


@pytest.mark.parametrize("text", ["", "- 1", "phases: [{stepz: 3}]", "phases: 3", "a: [", "phases: []\nmodel: ann"])
def test_wrong_file_is_one_line(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        resolve(path, {})
    assert "\n" not in str(error.value)


def test_missing_file_and_unknown_option(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        resolve(tmp_path / "recipe.yaml", {})
    with pytest.raises(ValueError, match="stepz"):
        resolve(None, {"stepz": 3})
    with pytest.raises(ValueError, match="--data"):
        resolve(None, {"steps": 3})


def test_train_takes_every_option_and_no_other():
    parameters = set(inspect.signature(train).parameters) - {"recipe", "out", "resume", "progress"}
    assert parameters == PHASE_FIELDS | PLAN_FIELDS
    described = set(re.findall(r"^        (\w+): ", inspect.getdoc(train).replace("\n    ", "\n        "), re.M))
    assert parameters <= described


def test_every_field_is_read():
    folder = Path(nonlocalseg.training.__file__).parent
    code = "".join(path.read_text() for path in folder.glob("*.py") if path.name not in ("recipes.py", "options.py"))
    for owner, name in ((Phase, "phase"), (Plan, "plan")):
        for field in dataclasses.fields(owner):
            assert re.search(rf"{name}\.{field.name}\b", code) or field.name in ("power", "min_rate", "val_every"), (
                field
            )
