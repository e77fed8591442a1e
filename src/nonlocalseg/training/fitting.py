"""One phase on Lightning's Trainer: the model it starts from, memory savings, and what a resumed run must agree on."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console
from timm.layers import convert_sync_batchnorm

from nonlocalseg.models.hub import from_pretrained
from nonlocalseg.models.presets import create_model
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.training.bookkeeping import Checkpoints, MetricsFile, ProgressBar, RecipeFile
from nonlocalseg.training.datamodule import SegmentationData, mix_seed, open_data
from nonlocalseg.training.loggers import logging_to
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.options import PRECISIONS, Plan
from nonlocalseg.training.recipes import Phase


@dataclass(frozen=True, eq=False)
class Fitted:
    """The end of a phase: the weights of its last step, its best validation mIoU and the step of that."""

    last: Segmenter
    best: float | None
    best_step: int
    step: int


def start_model(plan: Plan, phase: Phase, source: str | None) -> Segmenter:
    """The model before the first step, for the classes of the phase's data.

    From the saved model `source` where there is one, with new classifiers if its classes are others.
    """
    data = open_data(phase, phase.split)[0]
    lightning.seed_everything(plan.seed, verbose=False)
    if source is None:
        return create_model(
            plan.model,
            backbone=plan.backbone,
            classes=data.classes,
            palette=data.palette,
            pretrained=plan.pretrained,
            backbone_weights=plan.backbone_weights,
            **plan.model_options,
        )
    model = from_pretrained(source)
    if tuple(model.classes) != tuple(data.classes):
        model = from_pretrained(source, classes=data.classes, palette=data.palette)
    return model.train()


def fit_phase(
    plan: Plan, index: int, model: Segmenter, folder: Path, checkpoint: Path | None, console: Console
) -> Fitted:
    """Train `model` through phase `index` of `plan`, from `checkpoint` on where one is given."""
    phase, seed = plan.phases[index], mix_seed(plan.seed, index)
    save_memory(model, plan)
    if plan.sync_batchnorm:
        convert_sync_batchnorm(model)  # timm's: torch's, which Lightning takes, drops the activation in timm's norms
    mean = model.mean.flatten().tolist()
    images = SegmentationData(phase, (mean[0], mean[1], mean[2]), seed, plan.workers, plan.accumulate)
    module = SegmentationTraining(model, phase, seed, plan.channels_last)
    recipe = (folder.parent if len(plan.phases) > 1 else folder) / "recipe.yaml"
    keeper = Checkpoints(folder, {"classes": list(model.classes), "optimizer": phase.optimizer})
    metrics = MetricsFile(folder / "metrics.csv", model.classes)
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    options = {name: value for name, value in asdict(plan).items() if name != "phases"} | asdict(phase)
    try:
        with logging_to(plan.logger, folder, _run_name(plan, folder), options) as loggers:
            trainer = lightning.Trainer(
                **_trainer_options(plan, phase),
                callbacks=[RecipeFile(recipe, plan), metrics, keeper, ProgressBar(console)],
                logger=loggers,
                default_root_dir=folder,
            )
            console.print(_summary(plan, index, model, images, folder), highlight=False)
            trainer.fit(module, datamodule=images, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
    last = module.evaluated
    assert isinstance(last, Segmenter)
    return Fitted(last, keeper.best, keeper.best_step, trainer.global_step)


def _trainer_options(plan: Plan, phase: Phase) -> dict[str, Any]:
    return dict(
        max_steps=phase.steps,
        max_epochs=-1,
        min_epochs=0,
        devices=plan.devices,
        precision=PRECISIONS[plan.precision],
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=phase.gradient_clip,
        deterministic="warn" if plan.deterministic and torch.cuda.is_available() else None,
        val_check_interval=phase.interval * plan.accumulate,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if phase.val_split else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # DrawOrder knows the ranks
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _run_name(plan: Plan, folder: Path) -> str:
    """How the services call the run: as its folder, with the number of the phase where there are several."""
    return "-".join(folder.absolute().parts[-2 if len(plan.phases) > 1 else -1 :])


def save_memory(model: Segmenter, plan: Plan) -> None:
    """Memory format and gradient checkpointing."""
    if plan.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if plan.checkpointing:
        body = model.backbone.body
        switch = getattr(body, "set_grad_checkpointing", None)
        if switch is None:
            raise ValueError(f"backbone {plan.backbone} cannot recompute activations: leave out --checkpointing")
        switch(True)


def check_resumable(checkpoint: Path, classes: tuple[str, ...], optimizer: str) -> None:
    """ValueError where the checkpoint cannot be read or was made for other classes or by another optimizer."""
    try:
        ours = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["nonlocalseg"]
        stored, before = ours["classes"], ours.get("optimizer", optimizer)
    except (RuntimeError, pickle.UnpicklingError, KeyError, EOFError, TypeError, OSError) as error:
        raise ValueError(f"{checkpoint} is corrupt or not ours: train anew, or put back a whole copy of it") from error
    if len(stored) != len(classes):
        raise ValueError(
            f"{checkpoint} was trained for {len(stored)} classes and the data has {len(classes)}: resume with "
            "the run's own data, or start a new run with --init-from"
        )
    if before != optimizer:
        raise ValueError(
            f"{checkpoint} holds the state of {before}, which {optimizer} cannot go on from: leave out --optimizer, or "
            "start a new run with --init-from"
        )


def _summary(plan: Plan, index: int, model: Segmenter, images: SegmentationData, folder: Path) -> str:
    phase = images.phase
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    validated = f"{len(images.val_images)} to validate on" if images.val_images is not None else "no validation"
    start = "" if index or plan.pretrained or plan.backbone_weights or plan.init_from else ", from random weights"
    number = f"phase {index + 1} of {len(plan.phases)}: " if len(plan.phases) > 1 else ""
    return (
        f"{number}{plan.model} on {plan.backbone} ({parameters:.1f} M parameters{start}); {phase.data}: "
        f"{len(images.train_images)} images to train on, {validated}; {phase.steps} steps of {phase.batch_size} "
        f"-> {folder}"
    )
