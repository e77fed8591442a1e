"""What an optimizer step follows: the loss, the rate over time, and which parameter learns at which rate.

Poly schedule and loss as in ANN 4.1; within a backbone the rate by depth is BEiT's (appendix A.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypedDict

import torch
from torch import Tensor, nn

from nonlocalseg.losses import SegmentationLoss
from nonlocalseg.recipes.schema import Phase

# `blocks.3`, `layer1.0`, `layers_0.blocks.1`: a block of timm's networks, with what comes before it
BLOCK = re.compile(r".*?(?:block|layer|stage)\w*(?:\.(?!downsample)[a-z]+)*\.\d+(?=\.)")


class Group(TypedDict):
    """Parameters that learn alike."""

    params: list[nn.Parameter]
    lr: float
    weight_decay: float


def poly_factor(step: int, phase: Phase) -> float:
    """Factor of the learning rate at `step`: linear warm-up, then (1 - step / steps)^power, at least min_rate."""
    poly = max(0.0, 1 - step / phase.steps) ** phase.power
    warm = min(1.0, (step + 1) / (phase.warmup_steps + 1))
    return max(poly * warm, phase.min_rate / phase.rate)


def phase_loss(phase: Phase, num_classes: int, further: Mapping[str, float] | None = None) -> SegmentationLoss:
    """The loss of a phase, with the weights of a head's `further` outputs; ValueError where its options do not fit each
    other or the number of classes."""
    if phase.class_weights is not None and len(phase.class_weights) != num_classes:
        raise ValueError(
            f"class_weights has {len(phase.class_weights)} numbers for {num_classes} classes: give one each"
        )
    return SegmentationLoss(
        ohem=phase.ohem,
        threshold=phase.ohem_threshold,
        min_kept=phase.ohem_min_kept,
        rule=phase.ohem_rule,
        auxiliary_weight=phase.auxiliary_weight,
        class_weights=phase.class_weights,
        terms={**phase.terms},
        average=phase.loss_average,
        further=further,
    )


def make_optimizer(model: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimizer over the parameters that are trained."""
    groups = [dict(group) for group in parameter_groups(model, phase)]
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=phase.rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=phase.rate)


def parameter_groups(model: nn.Module, phase: Phase) -> list[Group]:
    """Optimizer groups by what rate and weight decay may depend on. Raises ValueError where every parameter is frozen.

    Those that have the same numbers stay apart, so that a resumed run finds its groups again when it changes numbers.

    The backbone has the phase's rate, times layer_decay for every block from the last one down where that is set, as
    BEiT counts: the last block once, what comes before the first block once more than the first.
    """
    depths = block_depths(model)
    top = max(depths.values(), default=0) + 1
    groups: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            down = top - depths[name] if name in depths else None
            groups.setdefault((down and (down if phase.layer_decay else 1), parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise ValueError("every parameter is frozen: nothing is left to train")
    return [
        {
            "params": parameters,
            "lr": phase.rate * (phase.head_rate_multiplier if down is None else (phase.layer_decay or 1.0) ** down),
            "weight_decay": phase.weight_decay if phase.norm_decay or matrices else 0.0,
        }
        for (down, matrices), parameters in groups.items()
    ]


def block_depths(model: nn.Module) -> dict[str, int]:
    """Names of the backbone's parameters -> how many blocks have begun there: 0 before the first block.

    Goes by the order in which timm's networks define their blocks; a parameter between two blocks, such as that of a
    downsampling, belongs to the one before, and the last norm to the last block.
    """
    blocks: list[str] = []
    depths = {}
    for name, _ in model.named_parameters():
        if name.startswith("backbone."):
            found = BLOCK.match(name)
            if found and found[0] not in blocks:
                blocks.append(found[0])
            depths[name] = len(blocks)
    return depths


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """How an average of weights takes in new ones; its decay grows from 0.1, so that early averages forget the start."""

    def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        now = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return old + (new - old) * (1 - now) if old.is_floating_point() else new

    return average
