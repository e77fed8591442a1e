"""`dry_run()`: what a training would be, without training: model, one batch, schedule, arithmetic and memory."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from nonlocalseg.data.source import DataSource
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.models.config import ModelConfig
from nonlocalseg.models.cost import multiply_adds, parameter_count
from nonlocalseg.models.creation import build, class_names
from nonlocalseg.models.creation import resolve as resolve_model
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.runtime import process_grid
from nonlocalseg.training.data import DrawOrder, SegmentationData, mix_seed
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.optimisation import phase_loss, poly_factor
from nonlocalseg.training.plan import Plan
from nonlocalseg.training.runs import planned
from nonlocalseg.training.trainer import save_memory
from nonlocalseg.values import changed, plain
from nonlocalseg.zoo.pretrained import pretrained_network

ASSUMED_CLASSES = 20
"""Of a data set whose classes are not known before its files are read."""
DRAWN = "synthetic"
"""The data set whose scenes stand for images that cannot be read."""
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
    recipe: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
    **changes: object,
) -> tuple[Outlook, ...]:
    """Print what `train` with these arguments would do, phase by phase; nothing is trained, downloaded or written.

    The model is built without weights. The batch is the first of the training where the data can be read (`root` is
    given, or none is needed), otherwise a drawn scene in the shape of one. Raises ValueError or OSError for arguments
    that cannot work.
    """
    plan, _ = planned(recipe, out, resume, changes)
    saved = None if plan.init_from is None else pretrained_network(plan.init_from).config
    costs: dict[str, Cost] = {}
    outlooks = tuple(_outlook(plan, index, saved, costs) for index in range(len(plan.phases)))
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


def _outlook(plan: Plan, index: int, saved: ModelConfig | None, costs: dict[str, Cost]) -> Outlook:
    phase, seed = plan.phases[index], mix_seed(plan.seed, index)
    devices = math.prod(process_grid(plan.devices, plan.num_nodes))
    readable = phase.root is not None or not phase.kind().needs_root
    classes, remark = (len(phase.open()[0].classes), "") if readable else _expected_classes(phase)
    if not remark:
        phase_loss(phase, classes)
    config = _network(plan, saved, classes)
    if readable:
        data = SegmentationData(phase, config.mean, seed, 0, plan.accumulate)
        images, source = len(data.train_images), "the first of the training"
        batch = data.first_batch(devices)["image"]
    else:
        DrawOrder(1, phase.steps, phase.batch_size, plan.accumulate, 0, devices, seed)  # checks that it can be split
        images, source = _expected_images(phase), f"drawn: no --root was given{remark}"
        batch = DataSource(data=DRAWN, split="train").open(train_transform(phase, config.mean))[0][0]["image"][None]
    cost = _cost(plan, phase, config, (batch.shape[2], batch.shape[3]), costs)
    at_once = phase.batch_size // (plan.accumulate * devices)
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
        _memory(plan, phase, cost, at_once),
        tuple((phase.rate * factor, phase.rate * phase.head_rate_multiplier * factor) for factor in factors),
    )


def _expected_classes(phase: Phase) -> tuple[int, str]:
    """How many classes the data set has, as far as that is known without its files, and a remark."""
    classes = phase.known_classes()
    return (len(classes), "") if classes else (ASSUMED_CLASSES, f", and {ASSUMED_CLASSES} classes are assumed")


def _expected_images(phase: Phase) -> int | None:
    """How many images the published data set has, where it is one."""
    counts = [phase.kind().expected_counts.get(part) for part in phase.split.split("+")]
    return None if None in counts else sum(count for count in counts if count)


def _network(plan: Plan, saved: ModelConfig | None, classes: int) -> ModelConfig:
    """The config of the model that is trained, with numbered classes."""
    names = class_names(classes, None)
    if saved is not None:
        return changed(saved, {"classes": names, "palette": ((0, 0, 0),) * classes})
    options = dict(plan.model_options)
    wiring = str(options.pop("wiring", "default"))
    return resolve_model(plan.model, plan.backbone, names, None, wiring, options)


def _memory(plan: Plan, phase: Phase, cost: Cost, at_once: int) -> dict[str, int]:
    """Bytes on one device, by what takes them."""
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
    return {name: size for name, size in memory.items() if size}


def _cost(plan: Plan, phase: Phase, config: ModelConfig, size: tuple[int, int], known: dict[str, Cost]) -> Cost:
    """Sends one image through the model on the meta device, which has shapes and no memory; once for equal phases."""
    key = json.dumps([plain(config), size, phase.frozen_backbone, phase.frozen_batchnorm], sort_keys=True)
    if key not in known:
        known[key] = _measured(plan, phase, config, size)
    return known[key]


def _measured(plan: Plan, phase: Phase, config: ModelConfig, size: tuple[int, int]) -> Cost:
    with torch.device("meta"):
        network = build(config)
        SegmentationTraining(network, changed(phase, {"class_weights": None}), 0).train()
        image = torch.empty(1, 3, *size)
    save_memory(network, plan)
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

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        operations, outputs = multiply_adds(lambda: network(image))
    return Cost(
        parameter_count(network),
        sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        operations,
        sum(storage.nbytes() for storage in kept.values()),
        sum(3 * 4 * math.prod(scores.shape) for scores in outputs.values()),
    )
