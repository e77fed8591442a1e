"""The tables of recipes: every row of the papers is there, with their settings, and what is our choice is noted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import pytest

from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.heads.attending import SamplingOptions
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import resolve
from nonlocalseg.recipes.ann import published_ann, steps_of
from nonlocalseg.recipes.catalog import RECIPES, find_recipe
from nonlocalseg.recipes.gald import comparisons
from nonlocalseg.recipes.gald_ablations import ablations
from nonlocalseg.recipes.others import compared
from nonlocalseg.recipes.own_images import recipes_for_own_images
from nonlocalseg.recipes.schema import Phase, Recipe
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
            if not row.whose:
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


# Typed from the papers: what tells each row from its table's others, by the recipe's name.
OF_ANN = {
    "": {"sampling": "pyramid_average", "anchor_sizes": (1, 3, 6, 8), "fuse": (4,)},
    "-random-15": {"sampling": "random", "anchor_sizes": (15,)},
    "-max-15": {"sampling": "max", "anchor_sizes": (15,)},
    "-average-15": {"sampling": "average", "anchor_sizes": (15,)},
    "-pyramid-random-1.2.3.6": {"sampling": "pyramid_random", "anchor_sizes": (1, 2, 3, 6)},
    "-pyramid-max-1.2.3.6": {"sampling": "pyramid_max", "anchor_sizes": (1, 2, 3, 6)},
    "-pyramid-average-1.2.3.6": {"sampling": "pyramid_average", "anchor_sizes": (1, 2, 3, 6)},
    "-pyramid-average-1.4.8.12": {"sampling": "pyramid_average", "anchor_sizes": (1, 4, 8, 12)},
}
ALONE, LDV1, LDV2 = ({"distribute": name, "arrangement": "gald"} for name in ("none", "ldv1", "ldv2"))


def neighbours(kernel_size: int, dilation: int, **more: object) -> dict[str, object]:
    return {**LDV2, "distribute_kernel_size": kernel_size, "distribute_dilation": dilation, **more}


BOTH = {"distribute_query": "both", "distribute_key": "both"}
DEPTHWISE = {"mask_downsample": "depthwise", "aggregate": "cgnl", **LDV1}
ROWS: Mapping[str, Mapping[str, object]] = {
    **{f"ann-resnet101s{variant}": options for variant, options in OF_ANN.items()},
    "afnb-resnet101s": {"fuse": (4,)},
    "afnb-resnet101s-fuse34": {"fuse": (3, 4)},
    "afnb-resnet101s-fuse234": {"fuse": (2, 3, 4)},
    "aspp-resnet50s": {"aggregate": "aspp", **ALONE},
    "psp-resnet50s": {"aggregate": "psp", **ALONE},
    "cgnl-resnet50s": {"aggregate": "cgnl", **ALONE},
    "gald-resnet50s-nonlocal": {"aggregate": "nonlocal", **ALONE},
    "gald-resnet50s-ldv1": {"aggregate": "none", **LDV1},
    "gald-resnet50s-psp-ldv1": {"aggregate": "psp", **LDV1},
    "gald-resnet50s-aspp-ldv1": {"aggregate": "aspp", **LDV1},
    "gald-resnet50s-nonlocal-ldv1": {"aggregate": "nonlocal", **LDV1},
    "galdv1-resnet50s": DEPTHWISE,
    "galdv1-resnet50s-bilinear": {**DEPTHWISE, "mask_downsample": "bilinear"},
    "galdv1-resnet50s-average": {**DEPTHWISE, "mask_downsample": "average"},
    "galdv1-resnet50s-parallel": {**DEPTHWISE, "arrangement": "parallel"},
    "galdv1-resnet50s-ldga": {**DEPTHWISE, "arrangement": "ldga"},
    "gald-resnet50s-psp-ldv2": neighbours(5, 6, aggregate="psp", **BOTH),
    "gald-resnet50s-nonlocal-ldv2": neighbours(5, 6, aggregate="nonlocal", **BOTH),
    "gald-resnet50s-cgnl-ldv2": neighbours(5, 6, aggregate="cgnl", **BOTH),
    "galdv2-resnet50s": neighbours(5, 6, aggregate="aspp", **BOTH),
    "galdv2-resnet50s-global-key": neighbours(5, 6, aggregate="aspp", distribute_query="both", distribute_key="global"),
    "galdv2-resnet50s-global-query": neighbours(
        5, 6, aggregate="aspp", distribute_query="global", distribute_key="both"
    ),
    **{
        f"gald-resnet50s-ldv2-k{k}r{r}": neighbours(k, r, aggregate="none") for k, r in ((3, 3), (5, 3), (5, 6), (7, 6))
    },
    **{f"galdv2-resnet50s-k{k}r{r}": neighbours(k, r, aggregate="aspp") for k, r in ((3, 3), (3, 6), (5, 3), (7, 6))},
    "aspp-resnet101s": {"aggregate": "aspp", **ALONE},
    "galdv2-resnet101s": neighbours(5, 6, aggregate="aspp", multi_grid=None),
    "galdv2-resnet101s-multigrid": neighbours(5, 6, aggregate="aspp", multi_grid=(1, 2, 4)),
    "galdv1-resnet101s-multigrid": {**DEPTHWISE, "multi_grid": (1, 2, 4)},
    "galdv2-resnet101s-test": neighbours(5, 6, aggregate="aspp", multi_grid=(1, 2, 4)),
    "galdv1-resnet101s-test": {**DEPTHWISE, "multi_grid": (1, 2, 4)},
}


PAPERS = {"ANN": "ann-iccv2019.txt", "GALD": "gald-v2.txt"}


def resolved(recipe: Recipe) -> dict[str, object]:
    """Every option of the recipe's model, those that nobody set included."""
    wiring = str(recipe.options.get("wiring", "default"))
    given = {name: item for name, item in recipe.options.items() if name != "wiring"}
    config = resolve(recipe.model, recipe.backbone, ["a"], None, wiring, given)
    if not isinstance(config.options, SamplingOptions):
        return dict(config.flat())
    return {**config.flat(), "anchor_sizes": list(config.options.make_sampling().sizes)}


@pytest.mark.parametrize("name", ROWS)
def test_options_of_each_row_on_cityscapes(name):
    found = resolved(RECIPES[f"cityscapes/{name}"])
    assert {option: found[option] for option in ROWS[name]} == plain_options(ROWS[name])


def plain_options(options: Mapping[str, object]) -> dict[str, object]:
    return {name: list(item) if isinstance(item, tuple) else item for name, item in options.items()}


def test_options_of_the_remaining_data_sets():
    """GALD IV-C2: k = 5 and r = 3."""
    for name, recipe in RECIPES.items():
        own = any(row.table.startswith("GALD") and not row.whose for row in recipe.published)
        if own and recipe.phases[-1].data != "cityscapes":
            found = resolved(recipe)
            assert found["multi_grid"] == [1, 2, 4], name
            if recipe.model == "galdv2":
                assert (found["distribute_kernel_size"], found["distribute_dilation"]) == (5, 3), name


def test_all_rows_of_cityscapes_with_figures_are_typed_above():
    simple = {"fcn", "nonlocal", "apnb", "fusion", "fnb", "fusion_nonlocal", "fnb_nonlocal"}  # a model and nothing else
    rows = {
        name.removeprefix("cityscapes/")
        for name, recipe in RECIPES.items()
        if name.startswith("cityscapes/")
        and any(row.table != "model zoo" and not row.whose for row in recipe.published)
    }
    left = {name for name in rows - set(ROWS) if name.split("-")[0] not in simple}
    assert left == {"ann-resnet101s-test", "galdv1-resnet101s-coarse", "galdv2-resnet101s-coarse"}


@pytest.mark.parametrize("table", sorted({table for table in TABLES if table.startswith("GALD")}))
def test_one_stride_within_a_table(table):
    strides = {
        found["aggregate_stride"]
        for recipe in RECIPES.values()
        if any(row.table == table and not row.whose for row in recipe.published)
        and (found := resolved(recipe)).get("aggregate", "none") != "none"
    }
    assert strides == {2}


def test_what_is_measured_on_test_is_not_validated_on_it():
    for name, recipe in RECIPES.items():
        if any("test" in row.metric for row in recipe.published):
            assert recipe.phases[-1].val_split != "test", name
            noted = "last weights are kept" in recipe.notes or ": see " in recipe.notes
            assert noted or recipe.phases[-1].data in ("cityscapes", "camvid"), name


@pytest.mark.shared
def test_classes_of_each_figure(shared):
    text = (shared / "papers" / "gald-v2.txt").read_text()
    rows = [row for recipe in RECIPES.values() for row in recipe.published if row.classes]
    assert len(rows) == 12
    for row in rows:
        figures = " ".join(f"{value:.1f}" for value in row.classes)
        assert len(row.classes) == 19
        assert f"{row.value} {figures}\n" in text


@pytest.mark.shared
def test_rows_of_others_stand_in_the_papers(shared):
    texts = {name: (shared / "papers" / file).read_text() for name, file in PAPERS.items()}
    rows = [row for recipe in compared() for row in recipe.published]
    assert len({(row.table, row.whose) for row in rows}) == 33
    for row in rows:
        spelt = row.whose.replace("Net", "-?(?:Net)?").replace("+", r"\+")
        lines = re.findall(rf"(?im)^{spelt}(?:et)?(?!\w).*", texts[row.table.split()[0]])
        assert any(row.value in map(float, re.findall(r"\d+\.\d+", line)) for line in lines), row


def test_rows_of_others_are_trained_as_the_tables_own():
    for recipe in compared():
        own = RECIPES[recipe.notes.rpartition("see ")[2].removesuffix(".")]
        assert recipe.phases == own.phases
        assert {row.table for row in recipe.published} <= {row.table for row in own.published}
        assert {row.view for row in recipe.published} <= {row.view for row in own.published}


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
    made = [*small_runs(), *published_ann(), *ablations(), *comparisons(), *compared(), *recipes_for_own_images()]
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
