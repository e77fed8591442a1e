"""`dry_run()`: what a training would be, without training: model, one batch, schedule, arithmetic and memory."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from torchvision import tv_tensors

from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.pascal_context import CLASSES as PASCAL_CONTEXT
from nonlocalseg.data.synthetic import Synthetic
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.models.hub import from_pretrained
from nonlocalseg.models.presets import create_model
from nonlocalseg.training.datamodule import (
    DrawOrder,
    SeededImages,
    SegmentationData,
    check_data_options,
    collate,
    mix_seed,
)
from nonlocalseg.training.module import SegmentationTraining, phase_loss, poly_factor
from nonlocalseg.training.options import Plan, device_count, resolve
from nonlocalseg.training.phases import Phase

ASSUMED_CLASSES = 20
"""Of a data set whose classes are not known before its files are read."""
SHARES = (0, 25, 50, 75, 100)
"""Per cent of the steps at which the learning rate is shown."""


@dataclass(frozen=True)
class Cost:
    """Of a model in training on one crop: parameters, multiply-adds of a forward pass, bytes kept for the backward one."""

    parameters: int
    trained: int
    multiply_adds: int
    kept: int
    scores: int


@dataclass(frozen=True)
class Outlook:
    """One phase before it is run. Sizes in bytes; `images` and `epochs` are None where the data set's size is unknown.

    `memory` is estimated: weights, gradients, the optimizer's state and average, what autograd keeps of the images that
    one device sees at once (in mixed precision half of it), and three maps of scores for each output's loss. Not
    counted: what convolutions use while they run, and the framework itself.
    """

    phase: Phase
    source: str
    batch: tuple[int, ...]
    classes: int
    images: int | None
    epochs: float | None
    cost: Cost
    at_once: int
    devices: int
    memory: dict[str, int]
    rates: tuple[tuple[float, float], ...]

    def lines(self) -> list[str]:
        phase, cost = self.phase, self.cost
        parts = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in self.memory.items())
        rates = ", ".join(f"{share} %: {low:.2g}" for share, (low, _) in zip(SHARES, self.rates, strict=True))
        images = "unknown number of" if self.images is None else f"{self.images:,}"
        epochs = "" if self.epochs is None else f", {self.epochs:.1f} epochs"
        where = "one device" if self.devices == 1 else f"each of {self.devices} devices"
        head = f"; head times {phase.head_rate_multiplier:g}" if phase.head_rate_multiplier != 1 else ""
        depth = f"; each block below times {phase.layer_decay:g}" if phase.layer_decay else ""
        return [
            f"data           {phase.data}, {phase.split}: {images} images, {self.classes} classes; "
            + (f"validated on {phase.val_split} every {phase.interval} steps" if phase.val_split else "no validation"),
            f"batch          {' x '.join(map(str, self.batch))}, {self.source}",
            f"parameters     {cost.parameters / 1e6:.2f} M, {cost.trained / 1e6:.2f} M of them trained",
            f"multiply-adds  {cost.multiply_adds / 1e9:.1f} G per image and forward pass; a training step takes up to "
            f"{3 * phase.batch_size} times as many",
            f"GPU memory     {sum(self.memory.values()) / 2**30:.1f} GiB estimated on {where}, {self.at_once} images at "
            f"once ({parts})",
            f"steps          {phase.steps:,} of {phase.batch_size} images{epochs}",
            f"rate           {phase.optimizer}, {rates}{head}{depth}",
        ]


def dry_run(
    recipe: str | Path | None = None, *, resume: str | Path | None = None, progress: bool = True, **given: Any
) -> tuple[Outlook, ...]:
    """Print what `train` with these options would do, phase by phase; nothing is trained, downloaded or written.

    The model is built without weights. The batch is the first of the training where the data can be read (`root` is
    given, or none is needed), otherwise a drawn scene in the shape of one. Takes the options of `train` and raises
    ValueError or OSError for those that cannot work.
    """
    given = {name: value for name, value in given.items() if value is not None and name != "out"}
    plan = resolve(recipe if resume is None else Path(resume) / "recipe.yaml", given)
    if plan.init_from is not None:
        saved = from_pretrained(plan.init_from).config or {}
        options = {name: _frozen(value) for name, value in saved["options"].items()}
        plan = replace(plan, model=saved["model"], backbone=saved["backbone"], model_options=options)
    outlooks = tuple(_outlook(plan, phase, mix_seed(plan.seed, index)) for index, phase in enumerate(plan.phases))
    console = Console(quiet=not progress, highlight=False, markup=False, soft_wrap=True)
    options = "".join(f", {name}={value}" for name, value in plan.model_options.items() if not plan.init_from)
    console.print(f"{plan.recipe or 'no recipe'}: {plan.model} on {plan.backbone}{options}")
    for number, outlook in enumerate(outlooks, 1):
        if len(outlooks) > 1:
            console.print(f"phase {number} of {len(outlooks)}")
        for line in outlook.lines():
            console.print(f"  {line}")
    console.print("dry run: nothing was trained")
    return outlooks


def _outlook(plan: Plan, phase: Phase, seed: int) -> Outlook:
    devices = device_count(plan)
    source, batch, classes, images = _first_batch(plan, phase, seed, devices)
    options = json.dumps(dict(plan.model_options), sort_keys=True)
    frozen = (phase.frozen_backbone, phase.frozen_batchnorm)
    size = (batch.shape[2], batch.shape[3])
    cost = _cost(plan.model, plan.backbone, options, classes, size, frozen, plan.checkpointing)
    at_once = phase.batch_size // (plan.accumulate * devices)
    half = 2 if plan.precision == "32" else 1
    states = 1 if phase.optimizer == "sgd" else 2
    memory = {
        "weights": 4 * cost.parameters,
        "gradients": 4 * cost.trained,
        "optimizer": 4 * states * cost.trained,
        "average": 4 * cost.parameters if phase.ema else 0,
        "activations": at_once * cost.kept * half // 2,
        "scores": at_once * cost.scores,
    }
    factors = [poly_factor(phase.steps * share // 100, phase) for share in SHARES]
    return Outlook(
        phase,
        source,
        (phase.batch_size, *batch.shape[1:]),
        classes,
        images,
        phase.steps * phase.batch_size / images if images else None,
        cost,
        at_once,
        devices,
        {name: size for name, size in memory.items() if size},
        tuple((phase.rate * factor, phase.rate * phase.head_rate_multiplier * factor) for factor in factors),
    )


def _first_batch(plan: Plan, phase: Phase, seed: int, devices: int) -> tuple[str, Tensor, int, int | None]:
    """What the batch is, its images [B, 3, H, W] (or one of them), the number of classes and of training images."""
    kind = DATASETS.get(phase.data)
    if phase.root is not None or kind is Synthetic or kind is None:
        data = SegmentationData(phase, (0.5, 0.5, 0.5), seed, 0, plan.accumulate)
        count = len(data.train_images)
        order = DrawOrder(count, phase.steps, phase.batch_size, plan.accumulate, 0, devices, seed)
        reader = SeededImages(data.train_images, seed)
        batch = data.on_before_batch_transfer(collate([reader[draw] for draw in next(iter(order))]), 0)
        classes = len(data.train_images.datasets[0].classes)  # pyright: ignore[reportAttributeAccessIssue]
        phase_loss(phase, classes)
        return "the first of the training", batch["image"], classes, count
    DrawOrder(1, phase.steps, phase.batch_size, plan.accumulate, 0, devices, seed)  # checks that the batch can be split
    scene = train_transform(phase.crop, phase.scale, phase.flip, phase.brightness, short_side=phase.short_side)(
        tv_tensors.Image(torch.from_numpy(Synthetic(split="train").read(0)[0]).permute(2, 0, 1)), None
    )
    check_data_options(phase)
    classes, note = _class_count(phase)
    if not note:
        phase_loss(phase, classes)
    counts = [kind.expected_counts.get(part) for part in phase.split.split("+")]
    images = None if None in counts else sum(count for count in counts if count)
    return f"drawn: no --root was given{note}", scene[0][None], classes, images


def _class_count(phase: Phase) -> tuple[int, str]:
    """How many classes the data set has, as far as that is known without its files, and a remark."""
    if phase.data == "pascal_context":
        return len(PASCAL_CONTEXT) - (not phase.data_options.get("background", False)), ""
    classes = getattr(DATASETS[phase.data], "classes", None)
    return (len(classes), "") if classes else (ASSUMED_CLASSES, f", and {ASSUMED_CLASSES} classes are assumed")


@lru_cache(maxsize=128)
def _cost(
    model: str,
    backbone: str,
    options: str,
    num_classes: int,
    size: tuple[int, int],
    frozen: tuple[bool, bool],
    checkpointing: bool,
) -> Cost:
    """Builds the model on the meta device, which has shapes and no memory, and sends one image forward."""
    chosen = {name: _frozen(value) for name, value in json.loads(options).items()}
    with torch.device("meta"):
        network = create_model(model, backbone, num_classes, **chosen)
        SegmentationTraining(network, Phase(frozen_backbone=frozen[0], frozen_batchnorm=frozen[1]), 0).train()
    if checkpointing and hasattr(network.backbone.body, "set_grad_checkpointing"):
        network.backbone.body.set_grad_checkpointing(True)  # pyright: ignore[reportCallIssue]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # keeps the same tensors, and takes a single image
    weights = {id(parameter.untyped_storage()) for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in weights:
            kept[id(storage)] = storage
        return tensor

    image = torch.empty(1, 3, *size, device="meta")
    norms = {torch.ops.aten.native_batch_norm: lambda *_, **__: 0}  # or half of the time goes into taking them apart
    counting = FlopCounterMode(display=False, custom_mapping=norms)
    with counting as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(image)
    return Cost(
        sum(parameter.numel() for parameter in network.parameters()),
        sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        counter.get_total_flops() // 2,
        sum(storage.nbytes() for storage in kept.values()),
        sum(3 * 4 * math.prod(scores.shape) for scores in outputs.values()),
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
