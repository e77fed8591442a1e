"""One optimizer step of training, as `training/module.py` takes it: images per second and peak memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nonlocalseg.blocks.basic import to_channels_last
from nonlocalseg.models.creation import create_model
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.timing.measuring import Case, compare, surroundings
from nonlocalseg.timing.tables import Table
from nonlocalseg.training.module import SegmentationTraining

CLASSES = 19
MODELS = ("ann", "galdv2")


@dataclass(frozen=True)
class Form:
    """How a step is computed."""

    name: str
    channels_last: bool = False
    precision: torch.dtype | None = None


def forms(device: torch.device) -> tuple[Form, ...]:
    """What the device is good at. Not bfloat16 with channels_last on the CPU: there torch's gradient of dilated depthwise
    convolutions is now and then garbage."""
    if device.type == "cuda":
        return (
            Form("float32"),
            Form("float32, channels_last", True),
            Form("bfloat16, channels_last", True, torch.bfloat16),
        )
    return Form("float32"), Form("float32, channels_last", True), Form("bfloat16", False, torch.bfloat16)


def train_step(
    size: tuple[int, int],
    device: torch.device,
    repeat: int = 5,
    models: tuple[str, ...] = MODELS,
    backbone: str = "resnet50c",
    batch_size: int = 2,
    **options: Any,
) -> Table:
    """Forward, loss, backward and the optimizer's step of each model on one batch of crops of `size`."""
    images = torch.rand(batch_size, 3, *size, device=device)
    labels = torch.randint(CLASSES, (batch_size, *size), device=device)
    chosen = forms(device)
    rows = []
    for model in models:
        cases = [
            Case(
                f"{model}, {form.name}",
                step(model, backbone, images, labels, form, options),
                None if index == 0 else f"{model}, {chosen[0].name}",
                gradients=True,
            )
            for index, form in enumerate(chosen)
        ]
        rows += compare(cases, device, repeat)
    for row in rows:
        row["images_per_second"] = batch_size / row["seconds"]
    return Table(
        f"One training step on {backbone}, {batch_size} crops of {size[0]}x{size[1]}, SGD, OHEM, auxiliary loss",
        {
            "name": "",
            "images_per_second": "images/s",
            "seconds": "step",
            "spread": "spread",
            "ratio": "faster by",
            "multiply_adds": "multiply-adds",
            "memory": "peak memory",
        },
        rows,
        surroundings(device),
        (
            "Memory: beyond weights, gradients, momentum and images. mmsegmentation: python -m benchmarks.mmsegmentation.",
        ),
    )


def step(
    model: str, backbone: str, images: Tensor, labels: Tensor, form: Form, options: dict[str, Any]
) -> Callable[[], Tensor]:
    """A function that takes one training step on a model of its own and returns the loss."""
    torch.manual_seed(0)
    network = create_model(model, backbone, num_classes=CLASSES, **options)
    phase = Phase(steps=10**6, batch_size=len(images), crop=(images.shape[2], images.shape[3]), rate=1e-4)
    module = SegmentationTraining(network, phase, seed=0, channels_last=form.channels_last).to(images.device).train()
    if form.channels_last:
        to_channels_last(network)
    return stepper(module, {"image": images, "label": labels}, form.precision)


def stepper(
    module: SegmentationTraining, batch: dict[str, Tensor], precision: torch.dtype | None
) -> Callable[[], Tensor]:
    optimizer = module.configure_optimizers()["optimizer"]
    kind = batch["image"].device.type

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast(kind, precision, enabled=precision is not None):
            loss = module.training_step(batch, 0)["loss"]
        loss.backward()
        optimizer.step()
        return loss.detach()

    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    return run
