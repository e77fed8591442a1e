"""From options to a trained model in a run folder: `train()`; resuming, repeating and starting from older models."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from nonlocalseg.models.hub import from_pretrained
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.training.evaluation import evaluate
from nonlocalseg.training.fitting import check_resumable, fit_phase, start_model
from nonlocalseg.training.loggers import LoggerName, check_installed
from nonlocalseg.training.options import Plan, device_count, resolve

__all__ = ["TrainingRun", "evaluate", "train"]


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What `train` leaves behind. `miou` is that of the saved model on the validation split, None without one."""

    folder: Path
    model: Segmenter = field(repr=False)
    miou: float | None
    step: int


def train(
    recipe: str | Path | None = None,
    *,
    data: str | None = None,
    root: str | None = None,
    model: str | None = None,
    backbone: str | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    crop: tuple[int, int] | None = None,
    split: str | None = None,
    val_split: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    pretrained: bool | None = None,
    backbone_weights: str | None = None,
    init_from: str | None = None,
    optimizer: Literal["sgd", "adamw"] | None = None,
    rate: float | None = None,
    head_rate_multiplier: float | None = None,
    layer_decay: float | None = None,
    weight_decay: float | None = None,
    norm_decay: bool | None = None,
    power: float | None = None,
    warmup_steps: int | None = None,
    min_rate: float | None = None,
    gradient_clip: float | None = None,
    ohem: bool | None = None,
    ohem_threshold: float | None = None,
    ohem_min_kept: int | None = None,
    ohem_rule: Literal["ann", "ann_official", "gald", "mmseg", "top_k"] | None = None,
    loss_average: Literal["valid", "all"] | None = None,
    auxiliary_weight: float | None = None,
    class_weights: Sequence[float] | None = None,
    terms: Mapping[str, float] | None = None,
    scale: tuple[float, float] | None = None,
    flip: float | None = None,
    short_side: int | None = None,
    brightness: float | None = None,
    class_balance: float | None = None,
    frozen_backbone: bool | None = None,
    frozen_batchnorm: bool | None = None,
    ema: float | None = None,
    val_every: int | None = None,
    precision: Literal["32", "bf16", "16"] | None = None,
    channels_last: bool | None = None,
    accumulate: int | None = None,
    checkpointing: bool | None = None,
    sync_batchnorm: bool | None = None,
    deterministic: bool | None = None,
    devices: int | str | None = None,
    workers: int | None = None,
    seed: int | None = None,
    logger: LoggerName | Sequence[LoggerName] | None = None,
    progress: bool = True,
) -> TrainingRun:
    """Train a model on a data set, from a recipe or from the options alone.

    Every option that is not given comes from the recipe, or is the default of `Phase` and `Plan`. Two runs with the
    same options on the same machine end with the same weights. Mistakes raise ValueError or OSError in one line.

    Args:
        recipe: a recipe's name (`nonlocalseg list recipes`), or the recipe.yaml of a run that is to be repeated.
        data: name of the data set (`nonlocalseg list datasets`).
        root: folder of the data; where a recipe has several data sets, the folder that holds one for each, by its name.
        model: fcn, apnb, afnb, ann, ... (`nonlocalseg list models`).
        backbone: any timm backbone with `features_only`.
        out: folder of the run; by default runs/DATA-MODEL-BACKBONE, with a number where that exists.
        resume: folder of an interrupted run, continued with its own options; those given here replace them.
        steps: optimizer steps.
        batch_size: images per optimizer step, over all devices and accumulated parts together.
        crop: height and width of the training crop in pixels.
        split: split to train on, several joined with +, as in train+val.
        val_split: split to validate on; `none` for no validation.
        data_options: further options of the data set.
        model_options: further options of the model, such as wiring or output_stride.
        pretrained: download ImageNet weights of the backbone.
        backbone_weights: local file with weights of the backbone.
        init_from: saved model to start from; its classifiers are made anew where the classes differ.
        optimizer: sgd (momentum 0.9) or adamw.
        rate: learning rate of the backbone.
        head_rate_multiplier: learning rate of everything else, as a multiple of `rate`.
        layer_decay: the backbone's rate shrinks by this factor from each block to the one below, for transformers.
        weight_decay: weight decay.
        norm_decay: false spares biases and the weights of normalisation layers from weight decay.
        power: exponent of the poly schedule (1 - step/steps)^power.
        warmup_steps: steps of linear warm-up.
        min_rate: lower bound of the learning rate.
        gradient_clip: largest gradient norm.
        ohem: online hard example mining on the main output.
        ohem_threshold: pixels whose true class has a lower probability count as hard.
        ohem_min_kept: pixels kept at least, over the batch of one device.
        ohem_rule: whose definition of OHEM.
        loss_average: divide the loss by the valid pixels, or by all, ignored ones too; by default as the OHEM rule does.
        auxiliary_weight: weight of the auxiliary loss.
        class_weights: one weight per class.
        terms: weights of further loss terms: dice, lovasz, focal.
        scale: smallest and largest factor of the random resize.
        flip: probability of a horizontal flip.
        short_side: pixels to which the shorter side of every image is brought, in training and validation; by default
            images keep their size.
        brightness: largest relative change of brightness.
        class_balance: largest share of one class in a crop.
        frozen_backbone: leave the backbone as it is.
        frozen_batchnorm: leave batch norm as it is.
        ema: decay of a moving average of the weights, which is then validated and saved.
        val_every: steps between validations and checkpoints; by default a tenth of `steps`.
        precision: 32, bf16 or 16 (mixed precision).
        channels_last: memory format channels_last, often faster on GPUs.
        accumulate: split each batch into this many parts, to save memory.
        checkpointing: recompute the backbone's activations, to save memory.
        sync_batchnorm: batch norm over all devices; by default where there are several GPUs.
        deterministic: false allows faster GPU kernels, with which no two runs are alike.
        devices: number of GPUs (or CPU processes), or auto.
        workers: processes that read images; by default up to four.
        seed: decides initial weights, order of images, augmentation and dropout.
        logger: where the curves go beside metrics.csv, one or several of tensorboard, wandb (Weights & Biases; offline
            with WANDB_MODE=offline) and mlflow; by default tensorboard.
        progress: show progress.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    for name in ("recipe", "out", "resume", "progress"):
        given.pop(name, None)
    if resume is not None:
        if recipe is not None or out is not None:
            raise ValueError("--resume RUN continues a run with its own options: leave out the recipe and --out")
        plan = resolve(Path(resume) / "recipe.yaml", given)
    else:
        plan = resolve(recipe, given)
    plan = _on_this_machine(_with_saved_model(plan, given))
    console = Console(quiet=not progress or rank_zero_only.rank > 0)
    with _quiet_lightning():
        return _run(plan, _run_folder(plan, out, resume), resume is not None, console)


def _with_saved_model(plan: Plan, given: Mapping[str, Any]) -> Plan:
    """With --init-from, model and backbone are those of the saved model; ValueError where others are asked for."""
    if plan.init_from is None:
        return plan
    saved = from_pretrained(plan.init_from).config or {}
    found = {name: saved[name] for name in ("model", "backbone")}
    for name, value in found.items():
        asked = given.get(name, getattr(plan, name) if plan.recipe else value)
        if asked != value:
            raise ValueError(f"{plan.init_from} has {name} {value}, not {asked}: leave out --{name}, or --init-from")
    known = {"wiring": saved["wiring"], **saved["options"]}
    for name, asked in given.get("model_options", {}).items():
        if _listed(asked) != _listed(known.get(name)):
            raise ValueError(
                f"{plan.init_from} has {name} {known.get(name)}, not {asked}: leave out {name}, or --init-from"
            )
    return replace(plan, **found)


def _listed(value: Any) -> Any:
    """Tuples as the lists that JSON keeps."""
    return list(value) if isinstance(value, tuple) else value


def _on_this_machine(plan: Plan) -> Plan:
    """The plan with what depends on the machine filled in; ValueError for combinations that cannot work here."""
    check_installed(plan.logger)
    if plan.workers is None:
        plan = replace(plan, workers=min(4, os.cpu_count() or 1))
    if plan.sync_batchnorm is None:
        plan = replace(plan, sync_batchnorm=torch.cuda.is_available() and device_count(plan) > 1)
    if torch.cuda.is_available():
        return plan
    if plan.precision == "16":
        raise ValueError("precision 16 needs a GPU: use --precision bf16 or 32 on the CPU")
    if plan.sync_batchnorm:
        raise ValueError("sync_batchnorm needs GPUs: leave it out")
    if plan.precision == "bf16" and plan.channels_last:
        # torch 2.15 returns weight gradients of 1e28 for dilated depthwise convolutions, about one step in 80
        raise ValueError("precision bf16 with channels_last breaks gradients on the CPU: leave out one of the two")
    return plan


def _run_folder(plan: Plan, out: str | Path | None, resume: str | Path | None) -> Path:
    """The folder of the run: the resumed one, `out`, or a fresh name below runs/. None is made yet."""
    if resume is not None:
        return Path(resume)
    if rank_zero_only.rank:  # a further process of a run on several devices
        if out is None and "NONLOCALSEG_RUN" not in os.environ:
            raise ValueError("several processes were started from outside: name the folder of the run with --out")
        return Path(out or os.environ["NONLOCALSEG_RUN"])
    if out is not None:
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: choose another --out")
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty: continue it with --resume {folder}, or choose another --out")
        return folder
    name = f"{plan.phases[-1].data}-{plan.model}-{plan.backbone}".replace("/", "-")
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def _run(plan: Plan, folder: Path, resumed: bool, console: Console) -> TrainingRun:
    """Run the phases of `plan` one after the other; each starts from the last weights of the one before.

    One phase writes to `folder`; several write to `folder/phase-1` and so on, and a phase that holds `last/` is over.
    """
    several = len(plan.phases) > 1
    source, place, fitted = plan.init_from, folder, None
    for index, phase in enumerate(plan.phases):
        place = folder / f"phase-{index + 1}" if several else folder
        checkpoint = place / "checkpoints" / "last.ckpt"
        if resumed and several and (place / "last").is_dir() and index + 1 < len(plan.phases):
            source = str(place / "last")
            continue
        if resumed and not checkpoint.is_file() and index == 0:
            raise FileNotFoundError(f"{folder} holds no {checkpoint.relative_to(folder)} to resume from")
        start = checkpoint if resumed and checkpoint.is_file() else None
        model = start_model(plan, phase, source)
        if start is not None:
            check_resumable(start, model.classes, phase.optimizer)
        if rank_zero_only.rank == 0:
            os.environ["NONLOCALSEG_RUN"] = str(folder)  # read by the processes that Lightning starts
            folder.mkdir(parents=True, exist_ok=True)
        try:
            fitted = fit_phase(plan, index, model, place, start, console)
        except BaseException as error:
            kept = resumed or any(folder.rglob("last.ckpt"))
            if not kept and rank_zero_only.rank == 0:
                shutil.rmtree(folder, ignore_errors=True)  # nothing to go on from, and in the way of the next try
            if isinstance(error, SystemExit):  # Lightning's answer to Ctrl-C
                cure = f"continue with --resume {folder}" if kept else "nothing was saved yet: start again"
                console.print(f"interrupted; {cure}", highlight=False)
            raise
        finally:
            os.environ.pop("NONLOCALSEG_RUN", None)
        if several and rank_zero_only.rank == 0:
            fitted.last.save_pretrained(place / "last")
            source = str(place / "last")
    assert fitted is not None  # the last phase always runs
    saved = from_pretrained(place / "model")
    if several and rank_zero_only.rank == 0:
        saved.save_pretrained(folder / "model")
    console.print(f"saved {folder / 'model'}, the weights of step {fitted.best_step}", highlight=False)
    return TrainingRun(folder, saved, fitted.best, fitted.step)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
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
