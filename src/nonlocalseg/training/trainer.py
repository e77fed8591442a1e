"""One phase on Lightning's Trainer: the model it starts from, memory savings, and what a resumed run must agree on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from rich.console import Console

from nonlocalseg.data.readers import told_by
from nonlocalseg.models.creation import build, create_model, with_stage_heads
from nonlocalseg.models.hub import with_classes
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.storage import read_config
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.runtime import process_grid, training_rank
from nonlocalseg.training.batch_norm import synchronise
from nonlocalseg.training.callbacks import Average, Checkpoints, RecipeFile, SameFolder
from nonlocalseg.training.checkpoints import WrittenBeside, check_resumable, identity, newest_whole, set_damaged_aside
from nonlocalseg.training.data import SegmentationData, mix_seed
from nonlocalseg.training.folder import RunFolder
from nonlocalseg.training.history import MetricsFile
from nonlocalseg.training.loggers import logging_to
from nonlocalseg.training.memory import told_what_fits
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.plan import Plan
from nonlocalseg.training.progress import ProgressBar
from nonlocalseg.training.signals import LeaveOnSignal
from nonlocalseg.training.soundness import Soundness
from nonlocalseg.values import changed
from nonlocalseg.zoo.pretrained import pretrained_network

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
"""As Lightning calls them."""


@dataclass(frozen=True)
class Fitted:
    """The end of a phase: its best validation mIoU, the step of that, and the last step."""

    best: float | None
    best_step: int
    step: int


def start_model(plan: Plan, phase: Phase, source: str | None, resumed: Path | None = None) -> Segmenter:
    """The model before the first step, for the classes of the phase's data; it sees images as the validation does.

    From the saved model `source` where there is one, with new classifiers if its classes are others; like the one in the
    folder `resumed`, whatever its weights, where those of a checkpoint will be put over them.
    """
    model = _made(plan, phase, source, resumed)
    if model.config is not None:
        model.config = changed(model.config, {"view": phase.view, "trained_crop": phase.crop})
    return model


def _made(plan: Plan, phase: Phase, source: str | None, resumed: Path | None) -> Segmenter:
    data = phase.open()[0]
    lightning.seed_everything(plan.seed, verbose=False)
    if source is None and resumed is None:
        options: dict[str, Any] = dict(plan.model_options)
        return create_model(
            plan.model,
            backbone=plan.backbone,
            classes=data.classes,
            palette=data.palette,
            label_map=data.labels.meaning,
            pretrained=bool(plan.pretrained),
            backbone_weights=plan.backbone_weights,
            **options,
        )
    model = build(read_config(resumed)) if resumed is not None else pretrained_network(str(source))
    if tuple(model.classes) != tuple(data.classes):
        model = with_classes(model, data.classes, data.palette, data.labels.meaning)
    elif model.config is not None:
        model.config = changed(model.config, {"label_map": data.labels.meaning})
    asked = "stage_heads" in plan.model_options and plan.model_options["stage_heads"]
    return (with_stage_heads(model) if asked else model).train()


def fit_phase(plan: Plan, index: int, model: Segmenter, folder: RunFolder, console: Console) -> Fitted:
    """Train `model` through phase `index` of `plan`; where the folder holds a checkpoint to resume from, from there on.

    It is left with the weights of the last step, or their average where the phase has one.
    """
    phase, seed = plan.phases[index], mix_seed(plan.seed, index)
    checkpoint = newest_whole(folder.checkpoints(index), console)
    if checkpoint is not None:
        check_resumable(checkpoint, plan, phase, model.classes)
        if training_rank() == 0:
            set_damaged_aside(checkpoint)
    save_memory(model, plan)
    devices, machines = process_grid(plan.devices, plan.num_nodes)
    if devices * machines > 1 if plan.sync_batchnorm is None else plan.sync_batchnorm:
        synchronise(model)
    red, green, blue = model.mean.flatten().tolist()
    images = SegmentationData(phase, (red, green, blue), seed, plan.workers, plan.accumulate)
    module = SegmentationTraining(model, phase, seed, plan.channels_last)
    average = Average(phase.ema) if phase.ema else None
    keeper = Checkpoints(folder, index, average, identity(plan, phase, model.classes))
    callbacks = [
        SameFolder(folder),
        RecipeFile(folder, plan),
        Soundness(folder, index, images, plan.broken_steps, console),
        MetricsFile(folder, index, model.classes, console),
        *([average] if average else []),
        keeper,
        ProgressBar(console),
        LeaveOnSignal(keeper.save_last, phase.validates_after),
    ]
    place = folder.phase(index) if folder.named else None
    options = _trainer_options(plan, phase, devices, machines)
    with _determinism_restored(), logging_to(plan, index, folder) as loggers:
        trainer = lightning.Trainer(**options, callbacks=callbacks, logger=loggers, default_root_dir=place)
        console.print(_summary(plan, index, model, images, place), highlight=False)
        with told_what_fits(trainer, module, plan), told_by(images.loaders), _shared_with_readers():
            trainer.fit(module, datamodule=images, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        if average:
            average.on_train_end(trainer, module)  # Lightning leaves it out where no step was left to do
    return Fitted(keeper.best, keeper.best_step, trainer.global_step)


@contextmanager
def _shared_with_readers() -> Iterator[None]:
    """What there is now is left out of collections of garbage: they write to all that they look at, and so copy what the
    processes that read images share with the training."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _trainer_options(plan: Plan, phase: Phase, devices: int, machines: int) -> dict[str, Any]:
    return dict(
        max_steps=phase.steps,
        max_epochs=-1,
        min_epochs=0,
        devices=devices,
        num_nodes=machines,
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
        plugins=[WrittenBeside()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _determinism_restored() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def save_memory(model: Segmenter, plan: Plan) -> None:
    """Memory format and gradient checkpointing."""
    if plan.channels_last:
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    if plan.checkpointing:
        switch = getattr(model.backbone.body, "set_grad_checkpointing", None)
        if switch is None:
            raise ValueError(f"backbone {plan.backbone} cannot recompute activations: leave out --checkpointing")
        switch(True)


def _summary(plan: Plan, index: int, model: Segmenter, images: SegmentationData, place: Path | None) -> str:
    phase = images.phase
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    validated = f"{len(images.val_images)} to validate on" if images.val_images is not None else "no validation"
    start = "" if index or plan.pretrained or plan.backbone_weights or plan.init_from else ", from random weights"
    number = f"phase {index + 1} of {len(plan.phases)}: " if len(plan.phases) > 1 else ""
    return (
        f"{number}{plan.model} on {plan.backbone} ({parameters:.1f} M parameters{start}); {phase.data}: "
        f"{len(images.train_images)} images to train on, {validated}; {phase.steps} steps of {phase.batch_size} "
        f"crops of {phase.crop[0]}x{phase.crop[1]} at rate {phase.rate:g} -> {place}"
    )
