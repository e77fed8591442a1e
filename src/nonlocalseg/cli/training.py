"""The verbs that train and measure: train, evaluate, demo."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nonlocalseg.cli.terminal import check_device, check_folder, output, percent


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
        model_options=_merged(model_options, named),
        data_options=_merged(data_options, {"val_fraction": val_fraction}),
        **options,
    )
    if dry_run or os.environ.get("LOCAL_RANK", "0") != "0":  # of several processes, the first speaks
        return
    console = output()
    if run.miou is not None:
        console.print(f"validation mIoU {percent(run.miou)} %")
    console.print(f"next: nonlocalseg evaluate {run.folder} ..., or nonlocalseg predict {run.folder} PHOTOS --out DIR")


def evaluate(
    model: str,
    *,
    out: str | None = None,
    val_fraction: float | None = None,
    data_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Measure a model against the labels of a data set: IoU per class, mIoU, accuracies.

    MODEL is the folder of a run, a saved model, or a name on the Hugging Face hub. The figures are written as JSON and
    CSV, too: all of them, the table per class, and one line per image.

    Args:
        model: the model.
        out: folder for the JSON and CSV files; by default evaluation/ in the folder of the model.
        val_fraction: for --data folder with one folder of images: the same share as in training.
        data_options: further options of the data set, such as length=200.

    Examples:
        nonlocalseg evaluate runs/camvid --data camvid --root CamVid --split test
        nonlocalseg evaluate runs/mine --data folder --root my-images --flip --scales 0.75 1.0 1.25
        nonlocalseg evaluate runs/mine --data folder --root my-images --mode slide --crop 512 --stride 0.667
    """
    from rich.table import Table

    check_device(options.get("device"))
    folder = check_folder(_beside(model) if out is None else out)
    result = evaluate_function()(
        model,
        out=folder,
        data_options=_merged(data_options, {"val_fraction": val_fraction}),
        progress=sys.stderr.isatty(),
        **options,
    )
    table = Table("class", *(("IoU %", "accuracy %", "precision %", "pixels")))
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result.scores.per_class(result.classes):
        figures = (percent(row[name]) for name in ("iou", "recall", "precision"))
        table.add_row(str(row["class"]), *figures, f"{row['pixels']:,}")
    console, scores = output(), result.scores
    console.print(table)
    low, high = result.interval
    console.print(f"mIoU            {percent(scores.mean_iou)} %  (95 % interval {percent(low)} to {percent(high)})")
    console.print(f"mean accuracy   {percent(scores.mean_accuracy)} %")
    console.print(f"pixel accuracy  {percent(scores.pixel_accuracy)} %")
    console.print(f"{len(result.images)} images in {result.seconds:.1f} s; figures in {folder}")


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


def evaluate_function() -> Callable[..., Any]:
    from nonlocalseg.training.evaluation import evaluate

    return evaluate


def demo_function() -> Callable[..., Any]:
    from nonlocalseg.training.demo import demo

    return demo


def _merged(options: Mapping[str, Any] | None, named: Mapping[str, Any]) -> dict[str, Any] | None:
    """`options` and those of `named` that are given; None where there are none."""
    return {**(options or {}), **{name: value for name, value in named.items() if value is not None}} or None


def _beside(model: str) -> Path:
    """evaluation/ in the folder of the model, or here for a model from the hub."""
    folder = Path(model)
    return folder / "evaluation" if folder.is_dir() else Path("evaluation") / model.replace("/", "-")
