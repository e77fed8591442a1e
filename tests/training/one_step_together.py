"""The losses and gradients of one process of several, beside those of the whole batch alone, in float64.

`RANK=0 WORLD_SIZE=2 ... python one_step_together.py` prints, from the first process, what differs most, by case.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import nonlocalseg as nls
from nonlocalseg.losses import SegmentationLoss
from nonlocalseg.training.batch_norm import SharedBatchNorm, synchronise

IMAGES, CLASSES = 4, 5
SMALL = {"num_classes": CLASSES, "channels": 8, "auxiliary_channels": 8, "auxiliary_dropout": 0.0}
LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {"ohem": False},
    "over all pixels": {"ohem": False, "average": "all"},
    "class weights": {"ohem": False, "class_weights": [1.0, 2.0, 0.5, 3.0, 0.1]},
    **{f"ohem {rule}, few": {"rule": rule, "threshold": 0.3, "min_kept": 20} for rule in ("ann", "gald", "mmseg")},
    **{f"ohem {rule}, most": {"rule": rule, "threshold": 0.1, "min_kept": 400} for rule in ("ann", "gald", "mmseg")},
    "ohem ann, all": {"rule": "ann", "threshold": 0.1, "min_kept": 4000},
    "ohem ann_official": {"rule": "ann_official", "threshold": 0.1, "min_kept": 400},
    "ohem top_k": {"rule": "top_k", "min_kept": 300},
    "dice": {"ohem": False, "terms": {"dice": 1.0}},
    "lovasz": {"ohem": False, "terms": {"lovasz": 1.0}},
    "focal": {"ohem": False, "terms": {"focal": 1.0}},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "fcn": {"dropout": 0.0},
    "encnet": {"dropout": 0.0, "num_codes": 4},
    "emanet": {"dropout": 0.0, "ema_channels": 8, "num_bases": 4},
    "ann": {"key_channels": 8, "value_channels": 8, "block_dropout": 0.0},
}


class Scores(nn.Module):
    """Stands in for a network: its output is its parameters, of which each process has the part of its images."""

    def __init__(self, part: slice) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        shape = (IMAGES, CLASSES, 24, 24)
        self.out, self.aux = (nn.Parameter(2 * torch.randn(shape, generator=generator).double()) for _ in range(2))
        self.part = part

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.out[self.part], "aux": self.aux[self.part]}


def drawn() -> tuple[Tensor, Tensor]:
    """Images, and labels of which the last are mostly ignored, one wholly: no two processes have as many pixels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (IMAGES, 24, 24), generator=generator)
    labels[1, :4], labels[2, 2:], labels[3] = 255, 255, 255
    return torch.rand(IMAGES, 3, 24, 24, generator=generator).double(), labels


def difference(network: nn.Module, whole: nn.Module, loss: SegmentationLoss, part: slice) -> float:
    """Of the loss, the gradients and the buffers, relative to the largest of each."""
    images, labels = drawn()
    together = DistributedDataParallel(network)
    found = loss(together(images[part]), labels[part])["loss"]
    found.backward()
    buffers = {name: value.clone() for name, value in network.named_buffers() if value.is_floating_point()}
    with alone():
        expected = loss(whole(images), labels)["loss"]
        expected.backward()
    pairs = [(found, expected)]
    pairs += [(buffers[name], value) for name, value in whole.named_buffers() if name in buffers]
    gradients = dict(whole.named_parameters())
    for name, parameter in network.named_parameters():
        if (parameter.grad is None) != (gradients[name].grad is None):
            return float("inf")
        if parameter.grad is not None:
            pairs.append((parameter.grad, gradients[name].grad))
    largest = max(float(value.abs().max()) for value in (p.grad for p in whole.parameters()) if value is not None)
    return max(float((one - two).detach().abs().max()) for one, two in pairs) / max(largest, 1.0)


class alone:
    """Inside, this process has not joined others."""

    def __enter__(self) -> None:
        self.asked = dist.is_initialized
        dist.is_initialized = lambda: False

    def __exit__(self, *_: object) -> None:
        dist.is_initialized = self.asked


def main() -> None:
    dist.init_process_group("gloo")
    size = IMAGES // dist.get_world_size()
    part = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
    found = {}
    for name, options in LOSSES.items():
        found[name] = difference(Scores(part), Scores(slice(None)), SegmentationLoss(**options), part)
    for name, options in NETWORKS.items():
        torch.manual_seed(0)
        whole = nls.create_model(name, "resnet10t", **{**SMALL, **options}).double().train()
        network = copy.deepcopy(whole)
        synchronise(network)
        assert any(isinstance(module, SharedBatchNorm) for module in network.modules())
        loss = SegmentationLoss(min_kept=200, further=whole.head.loss_weights)
        found[name] = difference(network, whole, loss, part)
    if dist.get_rank() == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
