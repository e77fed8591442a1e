"""`run_demo()`: the main job in minutes: fcn and ann trained alike on drawn scenes and compared (the claim of ANN, section 1).

A baseline sees as far as its convolutions reach; ANN's blocks see the whole image (arXiv:1908.07678). In the drawn
scenes four classes depend on something farther away than that reach, which is measured here and printed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from nonlocalseg import drawing
from nonlocalseg.data.source import DataSource
from nonlocalseg.data.synthetic import FAR, LOCAL, SIGNAL, Synthetic
from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.evaluation.scoring import evaluate
from nonlocalseg.files import write_text
from nonlocalseg.inference.borrowed import evaluated
from nonlocalseg.inference.predictor import predict
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.recipes.catalog import find_recipe
from nonlocalseg.training.folder import METRICS
from nonlocalseg.training.history import curves
from nonlocalseg.training.runs import train

MODELS = ("fcn", "ann")
RECIPE = "synthetic/{}-resnet10t"
CURVES = {
    "loss": ("Training loss (main + 0.4 auxiliary)", "nats"),
    "miou": ("Mean IoU on the validation scenes", "%"),
}
SHOWN = (0, 1, 2, 3, 4, 5)  # test scenes in the montage; they are also saved as files to predict on


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What `run_demo` leaves behind.

    results: model -> its scores on the test split. reach: pixels to either side that the outputs of fcn depend on.
    distance: pixels between the fields and the signal along x, the smallest over the test scenes. seconds: model ->
    seconds of training and testing.
    """

    folder: Path
    results: Mapping[str, Evaluation]
    reach: int
    distance: int
    seconds: Mapping[str, float]

    @property
    def difference(self) -> float:
        """mIoU of ann minus that of fcn, over all classes, in [-1, 1]."""
        return self.results["ann"].scores.mean_iou - self.results["fcn"].scores.mean_iou

    def mean(self, model: str, classes: Sequence[int]) -> float:
        """The model's mean IoU over some of the classes."""
        return float(self.results[model].scores.iou[list(classes)].nanmean())


def run_demo(
    out: str | Path = "runs/demo", seed: int = 0, steps: int | None = None, progress: bool = True
) -> DemoResult:
    """Train fcn and ann for equal steps on drawn scenes, compare them on the test scenes and draw pictures.

    Leaves in `out`: montage.png, curves.png, metrics.json, scenes/ (images to predict on), and the run folders fcn/ and
    ann/ with a loadable `best/` each. Raises ValueError or OSError where `out` cannot be written.

    Args:
        out: folder for everything; where it exists, a number is added to its name and nothing is replaced.
        seed: decides scenes, initial weights, order of images and dropout.
        steps: optimizer steps of each model; by default those of the recipes.
        progress: show progress.
    """
    console = Console(quiet=not progress)
    folder = _free_folder(Path(out), console)
    options = {**find_recipe(RECIPE.format("ann")).phases[-1].data_options, "seed": seed}
    scenes = Synthetic(split="test", **options)
    tested = DataSource(data="synthetic", split="test", data_options=options)
    images = _save_scenes(scenes, folder / "scenes")
    results, seconds, models = {}, {}, {}
    for name in MODELS:
        console.print(f"\n{name}: training from random weights", style="bold", highlight=False)
        start = time.perf_counter()
        run = train(
            RECIPE.format(name), out=folder / name, seed=seed, steps=steps, data_options=options, progress=progress
        )
        models[name] = run.model
        results[name] = evaluate(run.model, tested, workers=0, out=run.folder, progress=progress)
        seconds[name] = time.perf_counter() - start
    compared = DemoResult(folder, results, reach(models["fcn"], scenes.options.size), cue_distance(scenes), seconds)
    drawing.save(_montage(scenes, models), folder / "montage.png")
    drawing.save(curves({name: folder / name / METRICS for name in MODELS}, CURVES), folder / "curves.png")
    write_text(folder / "metrics.json", json.dumps(_report(compared, seed), indent=1) + "\n")
    console.print(_summary(compared, images), highlight=False, soft_wrap=True)
    return compared


def reach(model: nn.Module, size: tuple[int, int], stride: int = 8) -> int:
    """Pixels to the left or right that the logits of one pixel depend on at most, up to 1.5 widths of `size`.

    Measured: the gradient of the logits of `stride` neighbouring pixels, one after the other, with respect to a random
    image that is wide enough. `model`: images [B, 3, H, W] -> {"out": [B, K, H, W]}; it runs in evaluation mode.
    """
    height, width = size[0], 3 * size[1]
    device = next(model.parameters()).device
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    farthest = 0
    with torch.enable_grad():
        logits = evaluated(model)(image)["out"]
        for x in range(width // 2, width // 2 + stride):
            (gradient,) = torch.autograd.grad(logits[0, :, height // 2, x].sum(), image, retain_graph=True)
            columns = gradient.abs().amax((0, 1, 2)).nonzero().flatten()
            farthest = max(farthest, *(abs(int(column) - x) for column in columns[[0, -1]]))
    return farthest


def cue_distance(scenes: Synthetic) -> int:
    """Columns between the fields and the signal, the smallest over all scenes: no field pixel is nearer to its cue."""
    smallest = scenes.options.size[1]
    for index in range(len(scenes)):
        label = scenes.read(index)[1]
        fields = np.flatnonzero(np.isin(label, FAR).any(0))
        signal = np.flatnonzero((label == SIGNAL).any(0))
        if len(fields) and len(signal):
            smallest = min(smallest, int(max(fields[0] - signal[-1], signal[0] - fields[-1])))
    return smallest


def _free_folder(folder: Path, console: Console) -> Path:
    """`folder`, or where it is not empty the first of folder-2, folder-3, ... that is not there."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: choose another --out")
    if not folder.is_dir() or not any(folder.iterdir()):
        return folder
    number = 2
    while (free := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    console.print(f"{folder} exists and stays as it is; this demo goes to {free}", highlight=False)
    return free


def _save_scenes(scenes: Synthetic, folder: Path) -> Path:
    for index in SHOWN:
        if index < len(scenes):
            drawing.save(scenes.read(index)[0], folder / f"{scenes.name(index)}.png")
    return folder


def _montage(scenes: Synthetic, models: Mapping[str, Segmenter]) -> np.ndarray:
    """Image, truth and both predictions of some test scenes, one scene per row, each pixel as 2 x 2."""
    rows, titles = [], []
    for index in SHOWN:
        image, label = scenes.read(index)
        masks = [label, *(predict(model, image).mask.numpy() for model in models.values())]
        pictures = [image, *(drawing.colour(mask, scenes.palette) for mask in masks)]
        rows.append([picture.repeat(2, axis=0).repeat(2, axis=1) for picture in pictures])
        titles.append([f"image: test {index}", "truth", *models])
    width = drawing.table_width(rows)
    listed = drawing.legend(scenes.classes, scenes.palette, text=drawing.TABLE_TEXT, width=width)
    title = "The lamps at one end say which blue and green fields lie at the other end"
    return drawing.montage(rows, titles, [listed], title)


def _report(compared: DemoResult, seed: int) -> dict[str, Any]:
    """What metrics.json holds."""
    return {
        "seed": seed,
        "difference": compared.difference,
        "reach_pixels": compared.reach,
        "cue_distance_pixels": compared.distance,
        "models": {
            name: {
                "local_miou": compared.mean(name, LOCAL),
                "far_miou": compared.mean(name, FAR),
                "seconds": round(compared.seconds[name], 1),
                **result.scores.to_dict(result.classes),
            }
            for name, result in compared.results.items()
        },
    }


def _summary(compared: DemoResult, images: Path) -> str:
    """The table and what it means, as text."""
    classes = compared.results["fcn"].classes
    table = drawing.score_table(
        {name: result.scores.iou.tolist() for name, result in compared.results.items()}, classes, "mean (mIoU)"
    )
    share = {
        name: f"{100 * compared.mean(name, LOCAL):.1f} and {100 * compared.mean(name, FAR):.1f}" for name in MODELS
    }
    folder, near = compared.folder, ", ".join(classes[index] for index in LOCAL)
    far = ", ".join(classes[index] for index in FAR)
    return f"""
IoU in per cent on {len(compared.results["fcn"].images)} test scenes

{table}

ann is {100 * compared.difference:+.1f} points of mIoU above fcn. Means of the local and the far classes:
fcn {share["fcn"]}, ann {share["ann"]}. Local ({near}) can be told from nearby;
far ({far}) only from the lamps, which are at least {compared.distance} pixels away.
The outputs of fcn depend on at most {compared.reach} pixels to either side.

{folder / "montage.png"}  image, truth, fcn, ann
{folder / "curves.png"}   loss and validation mIoU
{folder / "metrics.json"}

Next: nonlocalseg predict {folder / "ann"} {images} --out {folder / "predictions"}"""
