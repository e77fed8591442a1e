"""Recipes of GALD: global aggregation then local distribution (Li et al., IEEE TIP 2021), its Tables I to XI."""

from __future__ import annotations

from dataclasses import replace

from nonlocalseg.recipes.ann import UNSEEN, steps_of
from nonlocalseg.recipes.gald_classes import TABLE_V, TABLE_VI, TABLE_VII
from nonlocalseg.recipes.schema import Phase, Published, Recipe
from nonlocalseg.view import find_view

BACKBONES = {50: "resnet50s", 101: "resnet101s"}
GRID: dict[str, object] = {"multi_grid": (1, 2, 4)}
# "The best setting with kernel size k=5 and dilation rate r=3 is used for the remaining datasets" (IV-C2)
REMAINING: dict[str, dict[str, object]] = {"galdv1": GRID, "galdv2": {**GRID, "distribute_dilation": 3}}

SINGLE, SINGLE_MULTI = find_view("gald-crop"), find_view("gald-crop-multi-scale")
WHOLE_MULTI = find_view("gald-multi-scale")
# "We downsample X by a factor of 2" (III-A), with and without what distributes behind it.
HALF: dict[str, object] = {"aggregate_stride": 2}

PAPER = (
    "Network and schedule follow GALD's paper (the forms of its public code are wiring=official). OHEM is the code's "
    "(threshold 0.7, at least 100,000 pixels of each of 8 GPUs; here each image has its share of that, so that fewer devices "
    "keep as many of the batch): the paper keeps the top K and gives no K. Also the code's: "
    "weight decay 5e-4 (PSPNet, which the paper follows, has 1e-4), one rate for all layers, a ResNet whose stem is three "
    "3x3 convolutions of 64, 64 and 128 channels (the paper says ResNet). Global aggregation works at half the map's size"
)
REST = f"{PAPER}. Multi-grid as in the best setting on Cityscapes"
TEST = "How the table was measured the paper does not say: whole images, the six scales of ADE20K and flips are assumed"
NOTES = {
    "cityscapes": f"{PAPER}.",
    "ade20k": f"{REST}; the scales of training are those of the test, where flips are assumed.",
    "pascal_context": f"{REST}; 60 classes. {TEST}. The text says 55.3 for GALDv2.",
    "camvid": f"{REST}. For 960x720 images; trained on train, which the paper does not say (or --split train+val). From "
    "ImageNet, 180 epochs at rate 0.01 are our choice, after the text's phase on Cityscapes: it gives no schedule for "
    f"CamVid but the one after Cityscapes. {TEST}.",
    "coco_stuff_10k": f"{REST}. {TEST}. {UNSEEN}",
}
COARSE = (
    "Fine, coarse and fine again, in the order of the public code's advice. From the paper: 40 epochs with batch 16 and "
    "frozen batch norm on the coarse labels (here with the fine ones beside them), 20 epochs back on the fine ones, rate "
    "0.001. The last phase's batch of 8 and batch norm that is trained again are our choice: the paper gives neither. The "
    "text says 82.9 for GALDv1."
)
BOUNDARY = "Table V does not name the network: the best of Table III is assumed."

CITYSCAPES = Phase(
    data="cityscapes",
    steps=50_000,
    batch_size=8,
    crop=(832, 832),
    brightness=0.0,
    rate=0.01,
    head_rate_multiplier=1.0,
    weight_decay=5e-4,
    ohem_rule="gald",
    ohem_min_kept=100_000,
)


def comparisons() -> tuple[Recipe, ...]:
    """Every row of Tables III to XI that is a training of its own, and the public code's."""
    return *deeper(), *test_server(), official(), *other_data(), *camvid_from_cityscapes()


def recipe_of(
    model: str, depth: int, variant: str, phases: tuple[Phase, ...], *rows: Published, **options: object
) -> Recipe:
    data = phases[-1].data
    return Recipe(
        name=f"{data}/{model}-{BACKBONES[depth]}{variant}",
        model=model,
        backbone=BACKBONES[depth],
        phases=phases,
        options=options,
        published=rows,
        notes=NOTES[data],
    )


def deeper() -> tuple[Recipe, ...]:
    """Tables III and IV on ResNet-101, and Table V."""
    boundary = {
        model: tuple(
            Published("GALD Table V", f"boundary F {pixels} px", value, find_view("gald-whole"), classes)
            for (name, pixels), (value, classes) in TABLE_V.items()
            if name == model
        )
        for model in ("galdv1", "galdv2")
    }
    best = (
        Published("GALD Table III", "mIoU", 81.8, SINGLE),
        Published("GALD Table III", "mIoU", 83.0, SINGLE_MULTI),
    )
    phases = (CITYSCAPES,)
    with_grid = (
        recipe_of("galdv2", 101, "-multigrid", phases, *best, *boundary["galdv2"], **GRID),
        recipe_of("galdv1", 101, "-multigrid", phases, *boundary["galdv1"], **GRID),
    )
    return (
        recipe_of("aspp", 101, "", phases, Published("GALD Table IV", "mIoU", 79.3, SINGLE), **HALF),
        recipe_of("galdv2", 101, "", phases, Published("GALD Table III", "mIoU", 81.5, SINGLE)),
        *(recipe.noting(BOUNDARY) for recipe in with_grid),
    )


def test_server() -> tuple[Recipe, ...]:
    """Tables VI and VII: 300 epochs on train + val; then with the coarse labels and frozen batch norm, and back."""
    fine, every = "train+val", "train+val+train_extra"
    first = replace(CITYSCAPES, split=fine, val_split=None, steps=steps_of(300, "cityscapes", fine, 8))
    coarse = replace(
        first,
        split=every,
        steps=steps_of(40, "cityscapes", every, 16),
        batch_size=16,
        ohem_min_kept=50_000,
        rate=0.001,
        frozen_batchnorm=True,
    )
    back = replace(first, steps=steps_of(20, "cityscapes", fine, 8), rate=0.001)
    recipes = []
    for model in ("galdv1", "galdv2"):
        value, classes = TABLE_VI[model]
        row = Published("GALD Table VI", "mIoU (test)", value, SINGLE_MULTI, classes)
        recipes.append(recipe_of(model, 101, "-test", (first,), row, **GRID))
        value, classes = TABLE_VII[model]
        row = Published("GALD Table VII", "mIoU (test)", value, SINGLE_MULTI, classes)
        recipe = recipe_of(model, 101, "-coarse", (first, coarse, back), row, **GRID)
        recipes.append(recipe.noting(COARSE))
    return tuple(recipes)


def official() -> Recipe:
    """GALDv1 as its public code trains it: crop 769, factors 0.7 to 2.1, every dilation of its backbone, 50k steps."""
    phase = replace(CITYSCAPES, crop=(769, 769), scale=(0.7, 2.1))
    options: dict[str, object] = {"wiring": "official", "dilated_blocks": "all", **GRID}
    recipe = recipe_of("galdv1", 101, "-official", (phase,), **options)
    return replace(
        recipe, notes="Network and training follow GALD's public code, but for its BGR; it states no figure."
    )


def other_data() -> tuple[Recipe, ...]:
    """Tables VIII, IX, X (ImageNet start) and XI, with the rows of Table IX that have the aggregation alone."""
    context = replace(
        CITYSCAPES,
        data="pascal_context",
        data_options={"background": True},
        batch_size=16,
        ohem_min_kept=50_000,
        crop=(532, 532),
        rate=0.001,
        steps=steps_of(180, "pascal_context", "train", 16),
    )
    ade = replace(
        CITYSCAPES,
        data="ade20k",
        batch_size=16,
        ohem_min_kept=50_000,
        crop=(512, 512),
        scale=(0.5, 1.75),
        steps=steps_of(240, "ade20k", "train", 16),
    )
    coco = replace(
        context,
        data="coco_stuff_10k",
        data_options={},
        val_split=None,
        steps=steps_of(240, "coco_stuff_10k", "train", 16),
    )
    rows = (
        ("galdv1", context, "VIII", {"mIoU": 53.5}),
        ("galdv2", context, "VIII", {"mIoU": 55.2}),
        ("cgnl", ade, "IX", {"mIoU": 43.65, "pixel accuracy": 80.13}),
        ("galdv1", ade, "IX", {"mIoU": 44.95, "pixel accuracy": 81.33}),
        ("aspp", ade, "IX", {"mIoU": 43.85, "pixel accuracy": 81.21}),
        ("galdv2", ade, "IX", {"mIoU": 46.38, "pixel accuracy": 82.22}),
        ("galdv1", _camvid(180, 0.01), "X, ImageNet", {"mIoU (test)": 74.9}),
        ("galdv2", _camvid(180, 0.01), "X, ImageNet", {"mIoU (test)": 76.5}),
        ("galdv1", coco, "XI", {"mIoU (test)": 38.5}),
        ("galdv2", coco, "XI", {"mIoU (test)": 40.1}),
    )
    return tuple(
        recipe_of(
            model,
            101,
            "",
            (phase,),
            *(Published(f"GALD Table {table}", metric, value, WHOLE_MULTI) for metric, value in figures.items()),
            **REMAINING.get(model, GRID | HALF),
        )
        for model, phase, table, figures in rows
    )


def camvid_from_cityscapes() -> tuple[Recipe, ...]:
    """Table X, Cityscapes start: 180 epochs there, then 90 at a tenth of the rate on CamVid, with new classifiers.

    --root is the folder that holds `cityscapes` and `camvid`.
    """
    first = replace(
        CITYSCAPES, batch_size=16, ohem_min_kept=50_000, crop=(640, 640), steps=steps_of(180, "cityscapes", "train", 16)
    )
    return tuple(
        recipe_of(
            model,
            101,
            "-from-cityscapes",
            (first, _camvid(90, 0.001)),
            Published("GALD Table X, Cityscapes", "mIoU (test)", value, WHOLE_MULTI),
            **REMAINING[model],
        )
        for model, value in (("galdv1", 80.3), ("galdv2", 81.6))
    )


def _camvid(epochs: int, rate: float) -> Phase:
    return replace(
        CITYSCAPES,
        data="camvid",
        batch_size=16,
        ohem_min_kept=50_000,
        crop=(640, 640),
        rate=rate,
        steps=steps_of(epochs, "camvid", "train", 16),
    )
