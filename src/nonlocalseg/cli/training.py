"""The verbs that train: train, demo."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from nonlocalseg.cli.terminal import merged, output, percent


def train(
    *,
    wiring: str | None = None,
    output_stride: int | None = None,
    stage_heads: bool = False,
    val_fraction: float | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **options: Any,
) -> None:
    """Train a model on a data set, from a recipe or from the options alone.

    RECIPE is a name from `nonlocalseg list recipes`, or the recipe.yaml of an earlier run, which is then repeated. It
    only presets the options below: every option that is given replaces what the recipe says, and without a recipe
    --data, --model and --backbone are enough. Your own images: --data folder, with images/{train,val},
    masks/{train,val} and a classes.yaml in --root; check them first with `nonlocalseg check-data folder --root DIR`.

    Args:
        wiring: default, official, mmseg or paper: whose variant of the model.
        output_stride: stride of the backbone's last feature map, 8, 16 or 32; smaller is finer and slower.
        stage_heads: train a linear classifier after every step of a GALD head as well, for `nonlocalseg explain --kind
            stages`; the rest of the model is trained as without them.
        val_fraction: for --data folder with one folder of images: the share that is kept for validation.
        model_options: further options of the model, such as key_channels=128.
        data_options: further options of the data set, such as length=200.
        dry_run: print the plan (model, one batch, schedule, arithmetic, GPU memory) and train nothing.

    Examples:
        nonlocalseg train synthetic/ann-resnet10t --steps 100
        nonlocalseg train --data folder --root my-images --model ann --backbone resnet18 --steps 2000 --crop 320 480
        nonlocalseg train camvid/ann-resnet50c --root CamVid --batch-size 4 --out runs/camvid
        nonlocalseg train cityscapes/galdv2-resnet101s --dry-run
        nonlocalseg train --resume runs/camvid
        nonlocalseg train runs/camvid/recipe.yaml --seed 1
        nonlocalseg train --data folder --root my-images --init-from runs/camvid
    """
    named = {"wiring": wiring, "output_stride": output_stride, "stage_heads": stage_heads or None}
    run = (dry_run_function() if dry_run else train_function())(
        model_options=merged(model_options, named),
        data_options=merged(data_options, {"val_fraction": val_fraction}),
        **options,
    )
    if dry_run or os.environ.get("LOCAL_RANK", "0") != "0":  # of several processes, the first speaks
        return
    console = output()
    if run.miou is not None:
        console.print(f"validation mIoU {percent(run.miou)} %")
    console.print(f"next: nonlocalseg evaluate {run.folder} ..., or nonlocalseg predict {run.folder} PHOTOS --out DIR")


def demo(**options: Any) -> None:
    """Train fcn and ann on drawn scenes and compare them: the main job in a few minutes, nothing to download.

    Leaves a folder with a montage of results, training curves, and two models that the other verbs can load.

    Examples:
        nonlocalseg demo
        nonlocalseg demo --out runs/mine
    """
    demo_function()(**options)


def train_function() -> Callable[..., Any]:
    from nonlocalseg.training.running import train

    return train


def dry_run_function() -> Callable[..., Any]:
    from nonlocalseg.training.planning import dry_run

    return dry_run


def demo_function() -> Callable[..., Any]:
    from nonlocalseg.training.demo import demo

    return demo
