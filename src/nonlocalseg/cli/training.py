"""The verbs that train: train, demo."""

from __future__ import annotations

from typing import Annotated

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OfFolder, joined
from nonlocalseg.cli.terminal import first_process, output, percent
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.plan import Plan
from nonlocalseg.values import Count, Metavar, Natural, Positional, value


@value
class Train(OfFolder):
    """The verb's own options."""

    recipe: Annotated[str | None, Positional()] = None
    """A recipe's name (`nonlocalseg list recipes`), or the recipe.yaml of a run that is to be repeated."""
    out: Annotated[str | None, Metavar("DIR")] = None
    """Folder of the run; by default runs/DATA-MODEL-BACKBONE, with a number where that exists."""
    resume: Annotated[str | None, Metavar("RUN")] = None
    """Folder of an interrupted run, continued with its own options; those given here replace them from there on, or are
    refused where a run that has begun cannot change them."""
    dry_run: bool = False
    """Print the plan (model, one batch, schedule, arithmetic, GPU memory) and train nothing."""
    wiring: Annotated[str | None, Metavar("NAME")] = None
    """Default, official, mmseg or paper: whose variant of the model."""
    output_stride: Count | None = None
    """Stride of the backbone's last feature map, 8, 16 or 32; smaller is finer and slower."""
    stage_heads: bool = False
    """Train a linear classifier after every step of a GALD head as well, for `nonlocalseg explain --kind stages`; the
    rest of the model is trained as without them; with --init-from they are attached to a trained model."""

    def changes(self, given: Given) -> Given:
        """`given`, with what has an option of its own here among the options of data set and model."""
        model = {"wiring": self.wiring, "output_stride": self.output_stride, "stage_heads": self.stage_heads or None}
        found = joined(self.joined(given), "model_options", **model)
        return {name: "none" if item is None else item for name, item in found.items()}  # None is "not given" there


@verb(Train, Phase, Plan)
def train(own: Train, given: Given) -> None:
    """Train a model on a data set, from a recipe or from the options alone.

    RECIPE is a name from `nonlocalseg list recipes`, or the recipe.yaml of an earlier run, which is then repeated. It
    only presets the options below: every option that is given replaces what the recipe says, and without a recipe
    --data, --model and --backbone are enough. Your own images: --data folder, with images/{train,val},
    masks/{train,val} and a classes.yaml in --root; check them first with `nonlocalseg check-data folder --root DIR`.
    What --model-options can hold is told by `nonlocalseg list models --model NAME`.

    Examples:
        nonlocalseg train synthetic/ann-resnet10t --steps 100
        nonlocalseg train --data folder --root my-images --model ann --backbone resnet18 --steps 2000 --crop 320 480
        nonlocalseg train camvid/ann-resnet50c --root CamVid --batch-size 4 --out runs/camvid
        nonlocalseg train cityscapes/galdv2-resnet101s --dry-run
        nonlocalseg train --resume runs/camvid
        nonlocalseg train runs/camvid/recipe.yaml --seed 1
        nonlocalseg train --data folder --root my-images --init-from runs/camvid
        nonlocalseg train --data folder --root my-images --init-from mmseg:ann-r50-ade20k
    """
    changes = own.changes(given)
    if own.dry_run:
        from nonlocalseg.training.forecast import dry_run

        dry_run(own.recipe, out=own.out, resume=own.resume, **changes)
        return
    from nonlocalseg.training.runs import train

    run = train(own.recipe, out=own.out, resume=own.resume, **changes)
    if not first_process():
        return
    console = output()
    if run.miou is not None:
        console.print(f"validation mIoU {percent(run.miou)} %")
    console.print(f"next: nonlocalseg evaluate {run.folder} ..., or nonlocalseg predict {run.folder} PHOTOS --out DIR")


@value
class Demo:
    """The verb's own options."""

    out: Annotated[str, Metavar("DIR")] = "runs/demo"
    """Folder for everything; where it exists, a number is added to its name and nothing is replaced."""
    seed: Natural = 0
    """Decides scenes, initial weights, order of images and dropout."""
    steps: Count | None = None
    """Optimizer steps of each model; by default those of the recipes."""


@verb(Demo)
def demo(own: Demo, given: Given) -> None:
    """Train fcn and ann on drawn scenes and compare them: the main job in a few minutes, nothing to download.

    Leaves a folder with a montage of results, training curves, and two models that the other verbs can load.

    Examples:
        nonlocalseg demo
        nonlocalseg demo --out runs/mine
    """
    from nonlocalseg.demo import run_demo

    run_demo(own.out, own.seed, own.steps)
