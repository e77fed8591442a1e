"""From options to a trained model in a run folder: `train()`; resuming, repeating and starting from older models."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from nonlocalseg.models.pretrained import find_weights
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.storage import BEST, LAST
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.runtime import process_grid, training_rank, worker_count
from nonlocalseg.training.checkpoints import check_unchanged, newest_whole, read_checkpoint
from nonlocalseg.training.data import DrawOrder
from nonlocalseg.training.folder import RECIPE, RunFolder
from nonlocalseg.training.history import tell
from nonlocalseg.training.launching import Crew
from nonlocalseg.training.loggers import check_installed
from nonlocalseg.training.plan import Plan, read_plan, resolve, write_plan
from nonlocalseg.training.signals import leaving_at_once
from nonlocalseg.training.trainer import Fitted, fit_phase, start_model
from nonlocalseg.values import changed, is_mapping, is_row
from nonlocalseg.zoo.pretrained import pretrained_network


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What `train` leaves behind. `model` is the best one, `miou` its score on the validation split, None without one.

    In `folder` lies the best model as `best/`, which `from_pretrained(folder)` takes, and that of the last step as `last/`.
    """

    folder: Path
    model: Segmenter = field(repr=False)
    miou: float | None
    step: int


def train(
    recipe: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
    **changes: object,
) -> TrainingRun:
    """Train a model on a data set, from a recipe or from the options alone.

    The options are the fields of `Phase` and `Plan`; one that is not given comes from the recipe, or is the default
    there. Two runs with the same options on the same machine end with the same weights. Mistakes raise ValueError or
    OSError in one line.

    Args:
        recipe: a recipe's name (`nonlocalseg list recipes`), or the recipe.yaml of a run that is to be repeated.
        out: folder of the run; by default runs/DATA-MODEL-BACKBONE, with a number where that exists.
        resume: folder of an interrupted run, continued with its own options; those given here replace them from there
            on, or are refused where a run that has begun cannot change them (`checkpoints.FIXED`).
        progress: show progress.
        changes: options by name, such as data="folder", root="my-images", steps=2000. Where a recipe has several data
            sets, root is the folder that holds one for each, by its name.
    """
    plan, folder = planned(recipe, out, resume, changes)
    console = Console(quiet=not progress or training_rank() > 0)
    try:
        with _quiet_lightning(), leaving_at_once():
            plan = _with_weights(_on_this_machine(plan), folder, console)
            crew = Crew(*process_grid(plan.devices, plan.num_nodes))
            with crew.ended_together():
                return _run(plan, folder, console, crew)
    except SystemExit:  # after a signal
        kept = folder.holds_checkpoints()
        cure = f"continue with --resume {folder.path}" if kept else "nothing was saved yet: start again"
        console.print(f"interrupted; {cure}", highlight=False)
        raise


def planned(
    recipe: str | Path | None, out: str | Path | None, resume: str | Path | None, changes: Mapping[str, object]
) -> tuple[Plan, RunFolder]:
    """What `train` does with these arguments, and where; nothing is made yet. Raises what `train` raises for them."""
    if resume is not None and (recipe is not None or out is not None):
        raise ValueError("--resume RUN continues a run with its own options: leave out the recipe and --out")
    given = {name: value for name, value in changes.items() if value is not None}
    if resume is None:
        plan = _with_saved_model(resolve(recipe, given), given)
    else:
        plan = resolve(Path(resume) / RECIPE, given)
        check_unchanged(Path(resume), read_plan(Path(resume) / RECIPE), plan, given)
    name = f"{plan.phases[-1].data}-{plan.model}-{plan.backbone}"
    return plan, RunFolder(out, resume, name, len(plan.phases))


def _with_saved_model(plan: Plan, given: Mapping[str, object]) -> Plan:
    """With --init-from, model and backbone are those of the saved model; ValueError where others are asked for."""
    if plan.init_from is None:
        return plan
    config = pretrained_network(plan.init_from).config
    if config is None:
        raise ValueError(f"{plan.init_from} does not say which model it is: save it with save_pretrained")
    found = {"model": config.model, "backbone": config.backbone}
    for name, value in found.items():
        asked = given.get(name, getattr(plan, name) if plan.recipe else value)
        if asked != value:
            raise ValueError(f"{plan.init_from} has {name} {value}, not {asked}: leave out --{name}, or --init-from")
    known, options = {"wiring": config.wiring, **config.flat()}, given.get("model_options")
    for name, asked in options.items() if is_mapping(options) else ():
        attached = name == "stage_heads" and known.get(name) is False
        if _listed(asked) != known.get(name) and not attached:
            raise ValueError(
                f"{plan.init_from} has {name} {known.get(name)}, not {asked}: leave out {name}, or --init-from"
            )
    return changed(plan, found)


def _listed(value: object) -> object:
    """Tuples as the lists that JSON keeps."""
    return list(value) if is_row(value) else value


def _on_this_machine(plan: Plan) -> Plan:
    """The plan with what depends on the machine filled in; ValueError for combinations that cannot work here."""
    check_installed(plan.logger)
    found: dict[str, object] = {"workers": worker_count(plan.workers)}
    count = math.prod(process_grid(plan.devices, plan.num_nodes))
    for phase in plan.phases:
        DrawOrder(1, phase.steps, phase.batch_size, plan.accumulate, 0, count, 0)  # checks that it can be split
    plan = changed(plan, found)
    if torch.cuda.is_available():
        return plan
    if plan.precision == "16":
        raise ValueError("precision 16 needs a GPU: use --precision bf16 or 32 on the CPU")
    if plan.precision == "bf16" and plan.channels_last:
        # torch 2.15 returns weight gradients of 1e28 for dilated depthwise convolutions, about one step in 80
        raise ValueError("precision bf16 with channels_last breaks gradients on the CPU: leave out one of the two")
    return plan


def _with_weights(plan: Plan, folder: RunFolder, console: Console) -> Plan:
    """The plan in which it is settled whether the backbone starts from ImageNet weights."""
    if plan.pretrained is not None:
        return plan
    wanted = plan.phases[-1].kind().needs_root and not (plan.backbone_weights or plan.init_from or folder.resumed)
    try:
        if wanted:
            find_weights(plan.backbone)
    except ValueError as error:
        console.print(
            f"note: no ImageNet weights of {plan.backbone} ({error}); from random weights a training needs many more steps",
            highlight=False,
            soft_wrap=True,
        )
        wanted = False
    return changed(plan, {"pretrained": wanted})


def _run(plan: Plan, folder: RunFolder, console: Console, crew: Crew) -> TrainingRun:
    """Run the phases of `plan` one after the other; each starts from the last weights of the one before."""
    source, fitted, final = plan.init_from, None, len(plan.phases) - 1
    if folder.resumed and not folder.checkpoints(0):
        told = f"{folder.path} was killed before its first checkpoint: it begins with the first step again"
        console.print(told, highlight=False, soft_wrap=True)
    for index, phase in enumerate(plan.phases):
        if not (index < final and _over(folder, index, phase)):
            model = start_model(plan, phase, source, folder.last(index) if folder.checkpoints(index) else None)
            with _claimed(folder, plan):
                crew.start()
                fitted = fit_phase(plan, index, model, folder, console)
        source = str(folder.last(index))
    assert isinstance(fitted, Fitted)  # the last phase always runs
    saved = pretrained_network(folder.phase(final) / BEST)
    if folder.several and training_rank() == 0:
        saved.save_pretrained(folder.path / BEST)
        pretrained_network(folder.phase(final) / LAST).save_pretrained(folder.path / LAST)
    if training_rank() == 0:
        tell(folder.phase(final), saved.classes, None if fitted.best is None else fitted.best_step, console)
    best = "" if fitted.best is None else f" (the best validation, mIoU {fitted.best:.4f})"
    console.print(
        f"saved {folder.path / BEST}, the weights of step {fitted.best_step}{best}, and {folder.path / LAST}, "
        f"those of step {fitted.step}",
        highlight=False,
        soft_wrap=True,
    )
    return TrainingRun(folder.path, saved, fitted.best, fitted.step)


def _over(folder: RunFolder, index: int, phase: Phase) -> bool:
    """Whether a phase of a resumed run, which another follows, has nothing left to do."""
    checkpoint = newest_whole(folder.checkpoints(index), Console(quiet=True))
    if checkpoint is None or not folder.last(index).is_dir():
        return False
    begun = folder.checkpoints(index + 1)  # the next one is not taken back, whatever --steps says now
    return bool(begun) or read_checkpoint(checkpoint)["global_step"] >= phase.steps


@contextmanager
def _claimed(folder: RunFolder, plan: Plan) -> Generator[None, None, None]:
    """The folder, made, with its recipe from the first moment on; gone again after a failure that leaves nothing to go on
    from."""
    folder.claim()
    try:
        if training_rank() == 0 and not folder.recipe.exists():
            write_plan(folder.recipe, plan)
        yield
    except BaseException:
        if not folder.holds_checkpoints():
            folder.discard()
        raise
    finally:
        folder.release()


@contextmanager
def _quiet_lightning() -> Generator[None, None, None]:
    """Without Lightning's tips and warnings: ours say what a user can act on."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*lightning.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
