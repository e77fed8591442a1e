"""Recipes for a folder of one's own images, each for a situation that the papers' settings do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nonlocalseg.data.source import DataSource
from nonlocalseg.recipes.schema import Phase, Recipe

VIT = "vit_small_patch14_dinov2"

CONVOLUTIONAL = Phase(
    data="folder",
    steps=20_000,
    batch_size=8,
    crop=(512, 512),
    rate=0.01,
    warmup_steps=200,
    weight_decay=5e-4,
    ohem=False,
)
TRANSFORMER = replace(
    CONVOLUTIONAL,
    crop=(518, 518),  # 37 patches
    optimizer="adamw",
    rate=1e-4,
    weight_decay=0.05,
    norm_decay=False,
    warmup_steps=500,
    gradient_clip=1.0,
)


ATTENDING = ("vit", "deit", "beit", "eva", "swin", "convnext", "maxvit", "mobilevit", "pvt", "twins", "mit")
"""How the names of timm's networks begin that are trained as transformers are."""
PASSES, FEWEST, MOST = 100, 1_000, 40_000
"""Passes over the images, and the steps that it is at least and at most."""
LONGEST, BROADEST = 512, 1024
"""Pixels of a crop's side, and of an image's shorter side, at most."""
LOOKED_AT = 5


def suited_to(source: DataSource, backbone: str) -> Phase:
    """The phase for these images where nothing else is asked for: schedule by their number, crop by their size.

    The sizes are those of a few images. Raises what opening the data raises.
    """
    parts = source.open()
    count = sum(map(len, parts))
    chosen = [round(index * (count - 1) / max(LOOKED_AT - 1, 1)) for index in range(LOOKED_AT)]
    every = [(part, index) for part in parts for index in range(len(part))]
    sizes = [part.read_image(index).shape[:2] for part, index in (every[number] for number in sorted(set(chosen)))]
    return suited(count, [(int(height), int(width)) for height, width in sizes], backbone)


def suited(count: int, sizes: Sequence[tuple[int, int]], backbone: str) -> Phase:
    """The phase for `count` images of about these sizes (height, width)."""
    height, width = (sorted(sides)[len(sizes) // 2] for sides in zip(*sizes, strict=True))
    short_side = BROADEST if min(height, width) > BROADEST else None
    shrunk = 1.0 if short_side is None else short_side / min(height, width)
    start = TRANSFORMER if backbone.startswith(ATTENDING) else CONVOLUTIONAL
    unit = 14 if "patch14" in backbone else 32
    sides = [max(32, round(side * shrunk) // unit * unit) for side in (height, width)]
    crop = (min(sides[0], LONGEST // unit * unit), min(sides[1], LONGEST // unit * unit))
    steps = min(MOST, max(FEWEST, -(-PASSES * count // start.batch_size // 100) * 100))
    warmup = min(start.warmup_steps, steps // 10)
    return replace(start, data="folder", steps=steps, crop=crop, short_side=short_side, warmup_steps=warmup)


def recipes_for_own_images() -> tuple[Recipe, ...]:
    """Few images, a transformer, and classes that are small or rare."""
    return *transformers(), *losses()


def transformers() -> tuple[Recipe, ...]:
    """A DINOv2 backbone, left as it is or trained with a rate that shrinks from block to block."""
    frozen = replace(TRANSFORMER, steps=4_000, frozen_backbone=True, auxiliary_weight=0.0)
    finetuned = replace(TRANSFORMER, layer_decay=0.8)
    return (
        Recipe(
            name=f"folder/fcn-{VIT}-frozen",
            model="fcn",
            backbone=VIT,
            phases=(frozen,),
            options={"auxiliary": False},
            notes="folder, frozen: for a few dozen images; the backbone stays as it is and only the head is trained.",
        ),
        Recipe(
            name=f"folder/ann-{VIT}-finetuned",
            model="ann",
            backbone=VIT,
            phases=(finetuned,),
            notes="folder, finetuned: for some hundred images; lower blocks of the transformer learn more slowly.",
        ),
    )


def losses() -> tuple[Recipe, ...]:
    """Cross-entropy beside a term for small or rare classes, and crops that no class fills."""
    purposes = {
        "dice": "small objects on a large background: every class counts alike, whatever its area",
        "lovasz": "the highest mIoU: the term is a smooth form of it",
        "focal": "many easy pixels and few hard ones",
    }
    return tuple(
        Recipe(
            name=f"folder/ann-resnet50c-{term}",
            model="ann",
            backbone="resnet50c",
            phases=(replace(CONVOLUTIONAL, terms={term: 1.0}, class_balance=0.75),),
            notes=f"folder, {term}: for {purpose}.",
        )
        for term, purpose in purposes.items()
    )
