"""Recipes for a folder of one's own images, each for a situation that the papers' settings do not fit."""

from __future__ import annotations

from dataclasses import replace

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
