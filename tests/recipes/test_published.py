"""The tables of recipes: every row of the papers is there, with their settings, and what is our choice is noted."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.recipes.ann import published_ann, steps_of
from nonlocalseg.recipes.catalog import RECIPES, find_recipe
from nonlocalseg.recipes.gald import comparisons
from nonlocalseg.recipes.gald_ablations import ablations
from nonlocalseg.recipes.own_images import recipes_for_own_images
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.recipes.small import small_runs

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


def test_names_and_parts():
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        data, rest = name.split("/")
        assert rest.startswith(f"{recipe.model}-{recipe.backbone}")
        assert recipe.phases[-1].data == data
        assert recipe.model in MODELS
        assert all(phase.data in DATASETS for phase in recipe.phases)


def test_no_name_is_given_twice():
    made = [*small_runs(), *published_ann(), *ablations(), *comparisons(), *recipes_for_own_images()]
    assert len({recipe.name for recipe in made}) == len(made) == len(RECIPES)
    assert all(recipe.notes for recipe in made)


@pytest.mark.parametrize("model", ["fcn", "apnb", "afnb", "ann"])
def test_models_are_compared_on_equal_terms(model):
    for backbone in ("mobilenetv2_100", "resnet50c", "resnet18"):
        assert find_recipe(f"camvid/{model}-{backbone}").phases == find_recipe(f"camvid/ann-{backbone}").phases


def test_nearest_recipe_is_named():
    with pytest.raises(ValueError, match="unknown recipe 'camvid/ann-resnet50': did you mean") as error:
        find_recipe("camvid/ann-resnet50")
    assert "\n" not in str(error.value)


def test_steps_are_counted_in_epochs():
    assert steps_of(1, "camvid", "train", 16) == 23  # 367 / 16
    assert steps_of(2, "cityscapes", "train+val", 8) == 869  # 2 * 3475 / 8


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
