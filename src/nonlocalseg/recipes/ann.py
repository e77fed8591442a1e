"""Recipes of ANN: its paper (Zhu et al., ICCV 2019), its supplement, and mmsegmentation's model zoo."""

from __future__ import annotations

import math
from dataclasses import replace

from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.recipes.schema import Phase, Published, Recipe
from nonlocalseg.view import find_view, mmsegmentation_view

# Weights of Cityscapes' 19 classes in the official code; the paper does not mention them.
CITYSCAPES_WEIGHTS = (
    0.8373, 0.9180, 0.8660, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip

CODE = (
    "Steps, crop, batch, rate, OHEM and the auxiliary loss are those of ANN's paper. Where it is silent or its public code "
    "differs, the code's: the network (wiring=official, ResNet-101 with a stem of three 3x3 convolutions; the paper's "
    "equations are wiring=paper), the rate (1 - step/steps)^0.9 (the paper prints 1 - (...)^0.9), one rate for all "
    "layers, OHEM below 0.7 with at least 100,000 pixels on each of 8 GPUs (here each image has its share of that, so "
    "that fewer devices keep as many of the batch), brightness within 10 of 255 levels (here by "
    "a factor). Not as in the code: RGB in place of BGR, and no change of aspect"
)
UNSEEN = (
    "The set that the figure is measured on is not looked at in training: the last weights are kept, none are selected."
)
NOTES = {
    "cityscapes": f"{CODE}. Class weights and weight decay 5e-4 are the code's, its 40,000 steps (hypes) are not: its "
    "script and the paper have 60,000.",
    "ade20k": f"{CODE}. Weight decay 1e-4 is the code's. The rate is the paper's, the code's falls by another rule "
    "(lambda_range); the shorter side of images is 520 as in the code, in the test as well.",
    "pascal_context": f"{CODE}. Weight decay 1e-4 is the code's. 60 classes as in the paper; the code has 59 "
    "(--data-options background=false).",
    "coco_stuff_10k": f"{CODE}. The supplement trains and tests by the protocols of DeepLab-V2 and RefineNet without a "
    f"figure of its own; here it is PASCAL Context's schedule, for as many epochs. {UNSEEN}",
    "nyudv2": f"{CODE}. The supplement trains and tests by the protocols of DeepLab-V2 and RefineNet without a figure of "
    f"its own; here it is PASCAL Context's schedule, for 200 epochs. {UNSEEN}",
}
SAMPLING = "The sampling changes in AFNB as well as in APNB: the paper does not say in which it changed."
BACKBONE = "resnet101s"

CITYSCAPES = Phase(
    data="cityscapes",
    steps=60_000,
    batch_size=8,
    crop=(769, 769),
    brightness=0.04,
    rate=0.01,
    head_rate_multiplier=1.0,
    weight_decay=5e-4,
    ohem_rule="ann_official",
    ohem_min_kept=100_000,
    class_weights=CITYSCAPES_WEIGHTS,
)
PASCAL_CONTEXT = replace(
    CITYSCAPES,
    data="pascal_context",
    data_options={"background": True},
    steps=28_000,
    batch_size=16,
    crop=(480, 480),
    weight_decay=1e-4,
    class_weights=None,
    ohem_min_kept=50_000,  # 8 GPUs with two images each
)


def steps_of(epochs: float, data: str, split: str, batch_size: int) -> int:
    """Steps that pass `epochs` times over the published images of the `+`-joined splits."""
    counts = DATASETS[data].expected_counts
    return math.ceil(epochs * sum(counts[part] for part in split.split("+")) / batch_size)


def published_ann() -> tuple[Recipe, ...]:
    """Every row of ANN's Tables 3 to 7, of the supplement's Tables 1 and 2, and of the model zoo."""
    return *blocks(), *sampling(), *fused_layers(), *other_data(), *model_zoo()


def _recipe(
    model: str,
    variant: str,
    phase: Phase,
    published: tuple[Published, ...],
    **options: object,
) -> Recipe:
    return Recipe(
        name=f"{phase.data}/{model}-{BACKBONE}{variant}",
        model=model,
        backbone=BACKBONE,
        phases=(phase,),
        options={"wiring": "official", **options},
        published=published,
        notes=NOTES[phase.data],
    )


def blocks() -> tuple[Recipe, ...]:
    """Table 6, the blocks; the whole network is a row of Table 7 and the baseline one of the supplement, too."""
    rows = {
        "fcn": 75.8,
        "nonlocal": 78.4,
        "apnb": 78.6,
        "fusion": 76.5,
        "fnb": 77.3,
        "afnb": 77.1,
        "fusion_nonlocal": 79.0,
        "fnb_nonlocal": 79.7,
        "ann": 79.9,
    }
    also = {"fcn": "ANN supplement Table 2", "afnb": "ANN supplement Table 2", "ann": "ANN Table 7"}
    return tuple(
        _recipe(
            model,
            "",
            CITYSCAPES,
            tuple(Published(table, "mIoU", value) for table in ("ANN Table 6", also.get(model)) if table),
        )
        for model, value in rows.items()
    )


def sampling() -> tuple[Recipe, ...]:
    """Table 7, how anchors are sampled."""
    rows = (
        ("random", (15,), 78.2),
        ("max", (15,), 78.1),
        ("average", (15,), 78.4),
        ("pyramid_random", (1, 2, 3, 6), 78.8),
        ("pyramid_max", (1, 2, 3, 6), 79.1),
        ("pyramid_average", (1, 2, 3, 6), 79.3),
        ("pyramid_average", (1, 4, 8, 12), 80.1),
    )
    recipes = (
        _recipe(
            "ann",
            f"-{kind.replace('_', '-')}-{'.'.join(map(str, sizes))}",
            CITYSCAPES,
            (Published("ANN Table 7", "mIoU", value),),
            sampling=kind,
            anchor_sizes=sizes,
        )
        for kind, sizes, value in rows
    )
    return tuple(recipe.noting(SAMPLING) for recipe in recipes)


def fused_layers() -> tuple[Recipe, ...]:
    """The supplement's Table 2, which stages are fused into stage 5; its first rows are in `blocks`."""
    return tuple(
        _recipe(
            "afnb",
            f"-fuse{''.join(map(str, fuse))}",
            CITYSCAPES,
            (Published("ANN supplement Table 2", "mIoU", value),),
            fuse=fuse,
        )
        for fuse, value in (((3, 4), 76.7), ((2, 3, 4), 76.2))
    )


def other_data() -> tuple[Recipe, ...]:
    """Tables 3, 4 and 5 and the supplement's Table 1: the whole network against the state of the art."""
    epochs = PASCAL_CONTEXT.steps * PASCAL_CONTEXT.batch_size / DATASETS["pascal_context"].expected_counts["train"]
    coco, nyud = (
        replace(PASCAL_CONTEXT, data=data, data_options={}, val_split=None, steps=steps_of(count, data, "train", 16))
        for data, count in (("coco_stuff_10k", epochs), ("nyudv2", 200))
    )
    rows = (
        (
            "-test",
            replace(CITYSCAPES, split="train+val", val_split=None, steps=120_000),
            Published("ANN Table 3", "mIoU (test)", 81.3, find_view("ann-cityscapes-test")),
        ),
        (
            "",
            replace(
                PASCAL_CONTEXT,
                data="ade20k",
                data_options={},
                steps=150_000,
                crop=(520, 520),
                rate=0.02,
                short_side=520,
            ),
            Published("ANN Table 4", "mIoU", 45.24, find_view("ann-ade20k")),
        ),
        ("", PASCAL_CONTEXT, Published("ANN Table 5", "mIoU", 52.8, find_view("ann-pascal-context"))),
        ("", coco, Published("ANN supplement Table 1", "mIoU (test)", 37.2)),
        ("", nyud, Published("ANN supplement Table 1", "mIoU (test)", 44.4)),
    )
    return tuple(_recipe("ann", variant, phase, (row,)) for variant, phase, row in rows)


def model_zoo() -> tuple[Recipe, ...]:
    """The rows of mmsegmentation's model zoo: mIoU of one pass, and of six scales with flips."""
    rows = (  # data, crop, steps, then both figures of ResNet-50 and ResNet-101
        ("cityscapes", (512, 1024), 40_000, (77.40, 78.57), (76.55, 78.85)),
        ("cityscapes", (769, 769), 40_000, (78.89, 80.46), (79.32, 80.94)),
        ("cityscapes", (512, 1024), 80_000, (77.34, 78.65), (77.14, 78.81)),
        ("cityscapes", (769, 769), 80_000, (78.88, 80.57), (78.80, 80.34)),
        ("ade20k", (512, 512), 80_000, (41.01, 42.30), (42.94, 44.18)),
        ("ade20k", (512, 512), 160_000, (41.74, 42.62), (42.94, 44.06)),
        ("voc2012", (512, 512), 20_000, (74.86, 76.13), (77.47, 78.70)),
        ("voc2012", (512, 512), 40_000, (76.56, 77.51), (76.70, 78.06)),
    )
    return tuple(
        _zoo(data, crop, steps, backbone, *figures)
        for data, crop, steps, *both in rows
        for backbone, figures in zip(("resnet50c", "resnet101c"), both, strict=True)
    )


def _zoo(data: str, crop: tuple[int, int], steps: int, backbone: str, single: float, several: float) -> Recipe:
    square = crop == (769, 769)
    short_side = None if data == "cityscapes" else 512
    windows = {"mode": "slide", "crop_size": crop, "stride": (513, 513)} if square else None
    phase = Phase(
        data=data,
        split="train_aug" if data == "voc2012" else "train",
        steps=steps,
        batch_size=8 if data == "cityscapes" else 16,
        crop=crop,
        brightness=0.125,
        short_side=short_side,
        class_balance=0.75,
        rate=0.01,
        head_rate_multiplier=1.0,
        weight_decay=5e-4,
        min_rate=1e-4,
        ohem=False,
        loss_average="all",
    )
    return Recipe(
        name=f"{data}/ann-{backbone}-mmseg-{crop[0]}x{crop[1]}-{steps // 1000}k",
        model="ann",
        backbone=backbone,
        phases=(phase,),
        options={"wiring": "mmseg", "align_corners": True} if square else {"wiring": "mmseg"},
        published=(
            Published("model zoo", "mIoU", single, mmsegmentation_view(data, crop, windows)),
            Published("model zoo", "mIoU", several, mmsegmentation_view(data, crop, windows, augmented=True)),
        ),
        notes="mmsegmentation's settings. Of its colour changes only brightness is made, by a factor; its rate ends at "
        "1e-4 by another formula.",
    )
