"""The published recipes: every row of the papers' tables is there, and every field of a recipe does something."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from dataclasses import fields, replace
from typing import Any

import lightning
import pytest
import torch
from rich.console import Console

import nonlocalseg as nls
from nonlocalseg.cli import main
from nonlocalseg.training.datamodule import DrawOrder, SeededImages, SegmentationData, collate
from nonlocalseg.training.fitting import fit_phase
from nonlocalseg.training.groups import block_depths, parameter_groups
from nonlocalseg.training.module import SegmentationTraining, poly_factor
from nonlocalseg.training.options import Plan, resolve
from nonlocalseg.training.own_images import own_images
from nonlocalseg.training.published_ann import published_ann
from nonlocalseg.training.published_gald import published_gald
from nonlocalseg.training.recipes import RECIPES, Phase, Published, Recipe, find_recipe

# Typed from the papers: every figure that is a training of the authors' own.
TABLES = {
    "ANN Table 3": [81.3],
    "ANN Table 4": [45.24],
    "ANN Table 5": [52.8],
    "ANN Table 6": [75.8, 78.4, 78.6, 76.5, 77.3, 77.1, 79.0, 79.7, 79.9],
    "ANN Table 7": [78.2, 78.1, 78.4, 78.8, 79.1, 79.3, 79.9, 80.1],
    "ANN supplement Table 1": [37.2, 44.4],
    "ANN supplement Table 2": [75.8, 77.1, 76.7, 76.2],
    "GALD Table I (a)": [73.7, 77.2, 78.0, 76.2, 78.2],
    "GALD Table I (b)": [73.7, 77.5, 78.9, 79.5, 79.2, 79.6],
    "GALD Table I (c)": [73.7, 77.5, 78.1, 79.6],
    "GALD Table I (d)": [73.7, 78.9, 80.2, 80.8, 79.9, 80.1],
    "GALD Table II (a)": [73.7, 78.2, 79.6, 77.6, 76.5],
    "GALD Table II (b)": [73.7, 76.2, 77.2, 77.5, 78.9, 77.2, 79.9, 79.8, 80.2, 80.8, 80.3],
    "GALD Table II (c)": [80.8, 80.1, 79.8],
    "GALD Table III": [80.8, 81.5, 81.8, 83.0],
    "GALD Table IV": [73.7, 77.2, 79.5, 80.8, 79.3],
    "GALD Table V": [73.7, 74.0, 79.4, 79.7, 82.4, 83.2, 83.5, 84.3],
    "GALD Table VI": [81.8, 83.2],
    "GALD Table VII": [82.8, 83.5],
    "GALD Table VIII": [53.5, 55.2],
    "GALD Table IX": [43.65, 80.13, 44.95, 81.33, 43.85, 81.21, 46.38, 82.22],
    "GALD Table X, ImageNet": [74.9, 76.5],
    "GALD Table X, Cityscapes": [80.3, 81.6],
    "GALD Table XI": [38.5, 40.1],
}


def test_every_row_of_both_papers():
    found = defaultdict(list)
    for recipe in RECIPES.values():
        for row in recipe.published:
            found[row.table].append(row.value)
    assert len(found.pop("model zoo")) == 32
    assert {table: sorted(values) for table, values in found.items()} == {
        table: sorted(values) for table, values in TABLES.items()
    }


@pytest.mark.shared
def test_model_zoo_is_the_published_one(shared):
    text = (shared / "papers" / "ann-model-zoo.txt").read_text()
    rows = re.findall(r"ANN \| R-(\d+)-D8 \| (\S+) \| (\d+) \| .*? \| .*? \| ([\d.]+) \| ([\d.]+) \|", text)
    data = ["cityscapes"] * 8 + ["ade20k"] * 4 + ["voc2012"] * 4
    assert len(rows) == 16
    for name, (depth, crop, steps, single, several) in zip(data, rows, strict=True):
        recipe = RECIPES[f"{name}/ann-resnet{depth}c-mmseg-{crop}-{steps[:-3]}k"]
        phase = recipe.phases[0]
        assert [row.value for row in recipe.published] == [float(single), float(several)]
        assert (phase.steps, "x".join(map(str, phase.crop))) == (int(steps), crop)
        assert recipe.options.get("align_corners", False) == (crop == "769x769")


@pytest.mark.shared
@pytest.mark.parametrize(("paper", "file"), [("ANN", "ann-iccv2019"), ("GALD", "gald-v2")])
def test_figures_stand_in_the_papers(shared, paper, file):
    text = (shared / "papers" / f"{file}.txt").read_text() + (shared / "papers" / "ann-supplement.txt").read_text()
    for recipe in RECIPES.values():
        for row in recipe.published:
            assert not row.table.startswith(paper) or f"{row.value}" in text, row


def test_settings_of_the_papers():
    def phase(name):
        p = RECIPES[name].phases[-1]
        return p.split, p.steps, p.batch_size, p.crop, p.rate

    assert phase("cityscapes/ann-resnet101s") == ("train", 60_000, 8, (769, 769), 0.01)
    assert phase("cityscapes/ann-resnet101s-test") == ("train+val", 120_000, 8, (769, 769), 0.01)
    assert phase("ade20k/ann-resnet101s") == ("train", 150_000, 16, (520, 520), 0.02)
    assert phase("pascal_context/ann-resnet101s") == ("train", 28_000, 16, (480, 480), 0.01)
    assert phase("cityscapes/galdv2-resnet50s") == ("train", 50_000, 8, (832, 832), 0.01)
    assert phase("cityscapes/galdv2-resnet101s-test") == ("train+val", 130_313, 8, (832, 832), 0.01)  # 300 x 3475 / 8
    assert phase("ade20k/galdv2-resnet101s") == ("train", 303_150, 16, (512, 512), 0.01)  # 240 x 20210 / 16
    assert phase("pascal_context/galdv1-resnet101s") == ("train", 56_228, 16, (532, 532), 0.001)  # 180 x 4998 / 16
    assert phase("coco_stuff_10k/galdv1-resnet101s") == ("train", 135_000, 16, (532, 532), 0.001)  # 240 x 9000 / 16
    assert phase("camvid/galdv1-resnet101s-from-cityscapes") == ("train", 2_065, 16, (640, 640), 0.001)  # 90 x 367 / 16
    assert RECIPES["ade20k/galdv2-resnet101s"].options["distribute_dilation"] == 3


def test_coarse_labels_come_in_phases():
    fine, coarse, back = RECIPES["cityscapes/galdv2-resnet101s-coarse"].phases
    assert fine == RECIPES["cityscapes/galdv2-resnet101s-test"].phases[0]
    assert coarse.split == "train+val+train_extra"
    assert (coarse.frozen_batchnorm, coarse.batch_size, coarse.rate) == (True, 16, 0.001)
    assert (back.split, back.frozen_batchnorm, back.rate) == ("train+val", False, 0.001)


def test_choices_that_no_paper_makes_are_noted():
    for name, words in {
        "camvid/galdv2-resnet101s": "180 epochs at rate 0.01 are our choice",
        "cityscapes/galdv1-resnet101s-coarse": "The last phase's batch of 8",
        "cityscapes/ann-resnet101s": "wiring=paper",
        "cityscapes/ann-resnet101s-max-15": "AFNB as well as in APNB",
        "cityscapes/galdv2-resnet50s": "gives no K",
        "pascal_context/galdv1-resnet101s": "are assumed",
    }.items():
        assert words in RECIPES[name].notes


def test_no_name_is_given_twice():
    made = [recipe.name for recipe in (*published_ann(), *published_gald(), *own_images())]
    assert len(made) == len(set(made))
    assert set(made) <= set(RECIPES)
    assert all(RECIPES[name].notes for name in made)


def test_a_root_for_several_data_sets():
    phases = resolve("camvid/galdv1-resnet101s-from-cityscapes", {"root": "data"}).phases
    assert [phase.root for phase in phases] == ["data/cityscapes", "data/camvid"]
    assert {phase.root for phase in resolve("cityscapes/galdv1-resnet101s-coarse", {"root": "data"}).phases} == {"data"}


@pytest.mark.parametrize(
    "option",
    [
        *("class_weights", "class_balance", "layer_decay", "frozen_backbone", "frozen_batchnorm", "norm_decay"),
        *("terms", "loss_average", "gradient_clip", "warmup_steps", "min_rate"),
    ],
)
def test_training_details_are_off_and_used(option):
    default = getattr(Phase(), option)
    assert default in (None, False, {}, 0) or option == "norm_decay"
    assert any(getattr(phase, option) != default for recipe in RECIPES.values() for phase in recipe.phases)


def test_every_loss_term_has_a_recipe():
    used = {term for recipe in RECIPES.values() for phase in recipe.phases for term in phase.terms}
    assert used == {"dice", "lovasz", "focal"}


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [("vit_tiny_patch16_224", 12), ("swin_tiny_patch4_window7_224", 12), ("resnet18", 8), ("convnext_atto", 12)],
)
def test_layer_decay_goes_by_block(backbone, blocks):
    with torch.device("meta"):
        model = nls.create_model("fcn", backbone, num_classes=2, channels=8, auxiliary=False)
    depths = block_depths(model)
    assert set(depths.values()) == set(range(blocks + 1))
    assert list(depths.values()) == sorted(depths.values())
    groups = parameter_groups(model, Phase(rate=1.0, head_rate_multiplier=2.0, layer_decay=0.5))
    rates = {group["lr"] for group in groups}
    assert rates == {2.0, *(0.5 ** (blocks + 1 - depth) for depth in range(blocks + 1))}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    slowest = {names[id(p)] for group in groups if group["lr"] == min(rates) for p in group["params"]}
    assert slowest
    assert not any(".blocks." in name or ".layer1" in name for name in slowest)


NINE = tuple(float(weight) for weight in range(1, 10))
BASE = Phase(
    data="synthetic",
    data_options={"size": (48, 96), "length": 4},
    steps=10,
    batch_size=2,
    crop=(32, 32),
    ohem_min_kept=10,
)
# What each field is changed to, and what else has to hold for it to matter.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "data": ("folder", {"data_options": {}}),
    "root": ("elsewhere", {"data": "folder", "data_options": {}}),
    "split": ("test", {}),
    "val_split": (None, {}),
    "data_options": ({"size": (48, 96), "length": 5}, {}),
    "steps": (11, {}),
    "batch_size": (4, {}),
    "crop": ((32, 48), {}),
    "short_side": (96, {}),
    "scale": ((1.0, 1.5), {}),
    "flip": (1.0, {}),
    "brightness": (0.5, {}),
    "class_balance": (0.2, {}),
    "optimizer": ("adamw", {}),
    "rate": (0.1, {}),
    "head_rate_multiplier": (5.0, {}),
    "layer_decay": (0.5, {}),
    "weight_decay": (0.1, {}),
    "norm_decay": (False, {}),
    "power": (2.0, {}),
    "warmup_steps": (3, {}),
    "min_rate": (0.005, {}),
    "gradient_clip": (1.0, {}),
    "ohem": (False, {"ohem_threshold": 0.05}),
    "ohem_threshold": (0.05, {}),
    "ohem_min_kept": (300, {"ohem_threshold": 0.05}),
    "ohem_rule": ("mmseg", {}),
    "loss_average": ("all", {}),
    "auxiliary_weight": (0.2, {}),
    "class_weights": (NINE, {}),
    "terms": ({"dice": 1.0}, {}),
    "frozen_backbone": (True, {}),
    "frozen_batchnorm": (True, {}),
    "ema": (0.9, {}),
    "val_every": (3, {}),
}


class Stop(Exception):
    """Ends a phase where Lightning's trainer would begin."""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nls.create_model("fcn", "mobilenetv2_035", num_classes=9, channels=8, auxiliary_channels=8)


def data_of(phase: Phase) -> Any:
    """The first batch of a phase and the number of images, or why there are none."""
    try:
        data = SegmentationData(phase, (0.5, 0.5, 0.5), 0, 0, 1)
    except (ValueError, OSError) as error:
        return str(error)
    reader = SeededImages(data.train_images, 0)
    order = DrawOrder(len(data.train_images), phase.steps, phase.batch_size, 1, 0, 1, 0)
    images = collate([reader[draw] for draw in next(iter(order))])["image"]
    columns = torch.arange(images.shape[3])  # tells a picture from its mirror image
    return (
        tuple(images.shape),
        float((images * columns).sum()),
        len(data.train_images),
        len(data.val_images or ()),
        len(order),
    )


def training_of(phase: Phase, network: torch.nn.Module) -> Any:
    """The loss on stored scores, the optimizer and its rates, what is frozen and what is validated."""
    module = SegmentationTraining(copy.deepcopy(network), phase, 0).train()
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(2, 9, 16, 16, generator=generator) for name in ("out", "aux")}
    target = torch.randint(9, (2, 16, 16), generator=generator)
    target[:, :4] = 255
    made = module.configure_optimizers()["optimizer"]
    return (
        float(module.loss(scores, target)["loss"]),
        type(made),
        [(group["initial_lr"], group["weight_decay"], len(group["params"])) for group in made.param_groups],
        [phase.rate * poly_factor(step, phase) for step in (0, 5, 9)],
        sum(part.training for part in module.model.modules()),
        module.evaluated is module.model,
    )


def trainer_of(phase: Phase, network: torch.nn.Module, monkeypatch, tmp_path) -> Any:
    """What Lightning's trainer is told."""
    told: dict[str, Any] = {}

    def trainer(**options: Any) -> None:
        told.update({name: value for name, value in options.items() if isinstance(value, (int, float, str))})
        raise Stop

    monkeypatch.setattr(lightning, "Trainer", trainer)
    plan = Plan(phases=(phase,), workers=0)
    try:
        fit_phase(plan, 0, copy.deepcopy(network), tmp_path, None, Console(quiet=True))  # pyright: ignore
    except (Stop, ValueError, OSError):
        return {name: value for name, value in told.items() if name != "default_root_dir"}


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What was observed of a phase, so that the common one is observed once."""
    return {}


@pytest.mark.parametrize("field", [field.name for field in fields(Phase)])
def test_every_field_of_a_phase_changes_the_training(field, network, seen, monkeypatch, tmp_path):
    def observed(phase):
        if repr(phase) not in seen:
            training = training_of(phase, network)
            seen[repr(phase)] = data_of(phase), training, trainer_of(phase, network, monkeypatch, tmp_path)
        return seen[repr(phase)]

    value, others = CHANGES[field]
    before = replace(BASE, **others)
    assert observed(before) != observed(replace(before, **{field: value}))


def test_what_is_observed_of_a_phase_is_no_accident(network, monkeypatch, tmp_path):
    for observe in (data_of, lambda phase: training_of(phase, network)):
        assert observe(BASE) == observe(replace(BASE))
    told = trainer_of(BASE, network, monkeypatch, tmp_path)
    assert told == trainer_of(BASE, network, monkeypatch, tmp_path)
    assert told["max_steps"] == 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "synthetic/another"),
        ("model", "apnb"),
        ("backbone", "resnet26t"),
        ("phases", (BASE,)),
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
