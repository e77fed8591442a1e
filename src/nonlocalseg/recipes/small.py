"""Recipes of small runs: CamVid in SegNet's split, CamVid on a CPU, and the drawn scenes."""

from __future__ import annotations

from nonlocalseg.recipes.schema import Phase, Recipe

# square root of (median frequency / frequency) of the eleven classes over train and val
CAMVID_WEIGHTS = (0.57, 0.46, 2.36, 0.40, 0.96, 0.67, 2.12, 1.79, 1.00, 2.78, 2.65)


def small_runs() -> tuple[Recipe, ...]:
    """All of them."""
    return (
        *(
            _camvid(model, backbone)
            for backbone in ("mobilenetv2_100", "resnet50c", "resnet18")
            for model in ("fcn", "apnb", "afnb", "ann")
        ),
        *(_camvid_on_cpu(model) for model in ("fcn", "ann")),
        *(_synthetic(model) for model in ("fcn", "ann")),
    )


def _camvid(model: str, backbone: str) -> Recipe:
    """CamVid at 360x480 in SegNet's split."""
    phase = Phase(
        data="camvid",
        steps=12_000,
        batch_size=16,
        crop=(360, 480),
        rate=0.01,
        head_rate_multiplier=10.0,
        warmup_steps=200,
        ohem_min_kept=12_500,
    )
    return Recipe(
        name=f"camvid/{model}-{backbone}",
        model=model,
        backbone=backbone,
        phases=(phase,),
        notes="Validated on val; for the final figure train with --split train+val --val-split none.",
    )


def _camvid_on_cpu(model: str) -> Recipe:
    """CamVid in an hour or two on two CPU cores: fewer, smaller crops, lighter heads, weighted classes, averaged weights."""
    phase = Phase(
        data="camvid",
        split="train+val",
        val_split=None,
        steps=3_200,
        batch_size=2,
        crop=(320, 416),
        scale=(0.7, 1.6),
        optimizer="adamw",
        rate=3e-4,
        head_rate_multiplier=4.0,
        weight_decay=0.01,
        warmup_steps=100,
        ohem_min_kept=33_000,
        class_weights=CAMVID_WEIGHTS,
        ema=0.998,
        val_every=100,
    )
    options = {"channels": 256, "auxiliary_channels": 128}
    attention = {} if model == "fcn" else {"key_channels": 128, "value_channels": 128}
    return Recipe(
        name=f"camvid/{model}-mobilenetv2_100-cpu",
        model=model,
        backbone="mobilenetv2_100",
        phases=(phase,),
        options=options | attention,
        notes="With --precision bf16 on a CPU that has its instructions. Trains on train+val and measures on test only.",
    )


def _synthetic(model: str) -> Recipe:
    """The drawn scenes and a network with a fraction of resnet10t's channels: minutes on two CPU cores."""
    phase = Phase(
        data="synthetic",
        data_options={"size": (64, 256)},
        steps=400,
        batch_size=8,
        crop=(64, 256),
        scale=(1.0, 1.0),
        optimizer="adamw",
        rate=2e-3,
        head_rate_multiplier=1.0,
        weight_decay=1e-2,
        warmup_steps=20,
        ohem=False,
    )
    options = {"backbone_options": {"channels": (32, 48, 96, 128)}, "channels": 128, "auxiliary_channels": 64}
    attention = {} if model == "fcn" else {"key_channels": 64, "value_channels": 64}
    return Recipe(
        name=f"synthetic/{model}-resnet10t",
        model=model,
        backbone="resnet10t",
        phases=(phase,),
        options=options | attention,
        pretrained=False,
        notes="From random weights: nothing is downloaded.",
    )
