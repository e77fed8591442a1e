"""The plan of a run: presets, what is given, the file that repeats it, that a mistake names its cure; and no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest

from nonlocalseg import runtime
from nonlocalseg.recipes.catalog import RECIPES
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.plan import PHASE_FIELDS, PLAN_FIELDS, Plan, read_plan, resolve, write_plan
from nonlocalseg.values import options_of


def test_given_options_win_over_the_recipe():
    plan = resolve("camvid/ann-resnet18", {"steps": 7, "seed": 3, "model_options": {"wiring": "mmseg"}})
    assert (plan.phases[0].steps, plan.phases[0].batch_size) == (7, RECIPES["camvid/ann-resnet18"].phases[0].batch_size)
    assert (plan.seed, plan.model_options, plan.pretrained) == (3, {"wiring": "mmseg"}, True)
    assert not resolve("camvid/ann-resnet18", {"backbone_weights": "file"}).pretrained
    assert not resolve("camvid/ann-resnet18", {"init_from": "folder"}).pretrained
    assert resolve("camvid/ann-resnet18", {"init_from": "folder", "pretrained": True}).pretrained
    assert resolve("camvid/ann-resnet18", {"steps": None}) == resolve("camvid/ann-resnet18", {})


def test_model_options_are_merged():
    start = resolve("cityscapes/galdv2-resnet101s-multigrid", {})
    assert start.model_options == {"multi_grid": (1, 2, 4)}
    plan = resolve("cityscapes/galdv2-resnet101s-multigrid", {"model_options": {"channels": 64}})
    assert plan.model_options == {"multi_grid": (1, 2, 4), "channels": 64}


def test_file_gives_the_same_plan(tmp_path):
    given = {"class_weights": [1.0, 2.0], "terms": {"dice": 0.5}, "crop": (64, 96), "val_split": "none", "ema": 0.9}
    plan = resolve("camvid/ann-resnet18", given | {"root": "somewhere", "precision": "bf16", "accumulate": 2})
    write_plan(tmp_path / "recipe.yaml", plan)
    assert read_plan(tmp_path / "recipe.yaml") == plan
    assert resolve(tmp_path / "recipe.yaml", {}) == plan


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_file(name, tmp_path):
    plan = resolve(name, {})
    assert plan.recipe == name
    write_plan(tmp_path / "recipe.yaml", plan)
    assert resolve(tmp_path / "recipe.yaml", {}) == plan


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no phases"),
        ("- 1", "lists no phases"),
        ("phases: 3", "lists no phases"),
        ("phases: []\nmodel: ann", "it lists no phases"),
        ("phases: [{stepz: 3}]", "unknown option 'stepz': did you mean 'steps'"),
        ("phases: [3]", "expected names and values, found int"),
        ("phases: [{data: synthetic, steps: many}]", "steps: 'many' is not a whole number"),
        ("phases: [{data: synthetic}]\nmodell: ann", "unknown option 'modell': did you mean 'model'"),
        ("a: [", "is no recipe.yaml"),
        ("a: &a [1]\nphases: [*a]", "it has aliases"),
        ("[" * 5000, "is no recipe.yaml"),
        ("#" * (1 << 21), "it has more than"),
    ],
)
def test_wrong_file_is_one_line(tmp_path, text, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        resolve(path, {})
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stepz": 3}, "unknown training option 'stepz': did you mean 'steps'"),
        ({"phases": 3}, "unknown training option 'phases'"),
        ({"data": ""}, "--data"),
        ({"data": "synthetik"}, "unknown data set 'synthetik': did you mean 'synthetic'"),
        ({"split": "train+vall"}, "'vall': did you mean 'val'"),
        ({"val_split": "vall"}, "val_split .*'vall': did you mean 'val'"),
        ({"data_options": {"lenght": 3}}, "data_options: .*'lenght': did you mean 'length'"),
        ({"model_options": 3}, "model_options: 3 is not names with values"),
        ({"crop": (-8, 64)}, "crop: "),
        ({"steps": 0}, "steps: 0; give 1 or more"),
        ({"batch_size": 3, "accumulate": 2}, "multiple of 2"),
        ({"precision": "8"}, "precision: '8' is unknown; choose from 32, bf16, 16"),
        ({"devices": "many"}, "devices: "),
        ({"logger": [{}, []]}, "logger: "),
        ({"logger": ["tensorboard", "wand"]}, "logger: 'wand' is unknown; did you mean 'wandb'"),
        ({"optimizer": "adam"}, "optimizer: 'adam' is unknown; did you mean 'adamw'"),
        ({"ohem_rule": "amn"}, "ohem_rule: 'amn' is unknown; did you mean 'ann'"),
        ({"terms": {"dise": 1.0}}, "terms: 'dise' is unknown; did you mean 'dice'"),
        ({"ema": 1.0}, "ema: 1.*; give less than 1"),
        ({"layer_decay": 1.5}, "layer_decay: 1.5; give 1"),
    ],
)
def test_mistakes_are_one_line(given, words):
    with pytest.raises(ValueError, match=words) as error:
        resolve(None, {"data": "synthetic", **given})
    assert "\n" not in str(error.value)


def test_missing_file_and_unknown_recipe(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        resolve(tmp_path / "recipe.yaml", {})
    with pytest.raises(ValueError, match="unknown recipe 'camvid/ann-resnet19': did you mean 'camvid/ann-resnet18'"):
        resolve("camvid/ann-resnet19", {})
    with pytest.raises(ValueError, match="--data"):
        resolve(None, {"steps": 3})


def test_words_of_the_command_line():
    """Text in place of numbers and lists, one logger in place of several, and a word for nothing."""
    plan = resolve(
        None,
        {"data": "synthetic", "crop": ["64", "96"], "steps": "1e3", "val_split": "none", "devices": "2"}
        | {"logger": "wandb", "scale": ("0.5", "1"), "workers": "0"},
    )
    phase = plan.phases[0]
    assert (phase.crop, phase.steps, phase.val_split, phase.scale) == ((64, 96), 1000, None, (0.5, 1.0))
    assert (plan.devices, plan.logger, plan.workers) == (2, ("wandb",), 0)
    assert resolve(None, {"data": "synthetic", "logger": ["mlflow", "mlflow"]}).logger == ("mlflow",)


def test_a_root_for_several_data_sets():
    phases = resolve("camvid/galdv1-resnet101s-from-cityscapes", {"root": "/data"}).phases
    assert [phase.root for phase in phases] == ["/data/cityscapes", "/data/camvid"]
    assert {phase.root for phase in resolve("cityscapes/galdv1-resnet101s-coarse", {"root": "/data"}).phases} == {
        "/data"
    }


def test_every_option_is_described_and_none_is_named_twice():
    assert not set(PHASE_FIELDS) & set(PLAN_FIELDS)
    for owner in (Phase, Plan):
        assert all(option.help.endswith(".") for option in options_of(owner).values())


def test_precisions_are_those_of_the_runtime():
    assert options_of(Plan)["precision"].kind == runtime.Precision
    assert set(get_args(runtime.Precision)) == {"32", "bf16", "16"}


def test_interval_and_validation():
    phase = Phase(data="camvid", root="/somewhere", steps=100)
    assert (phase.interval, replace(phase, steps=10**6).interval, replace(phase, val_every=7).interval) == (10, 4000, 7)
    assert phase.validation == phase.source("val")
    assert phase.source("val").describe() == "camvid, val in /somewhere"
    assert replace(phase, val_split=None).validation is None


def test_importing_plans_needs_no_torch():
    code = (
        "import sys, nonlocalseg.training.plan; print([name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
