"""Which parameter learns at which rate: backbone, head, and within a backbone the depth of the block (BEiT, A.2)."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from nonlocalseg.training.phases import Phase

# `blocks.3`, `layer1.0`, `layers_0.blocks.1`: a block of timm's networks, with what comes before it
BLOCK = re.compile(r".*?(?:block|layer|stage)\w*(?:\.(?!downsample)[a-z]+)*\.\d+(?=\.)")


def parameter_groups(model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
    """Optimizer groups by rate and weight decay. Raises ValueError where every parameter is frozen.

    The backbone has the phase's rate, times layer_decay for every block from the last one down where that is set, as
    BEiT counts: the last block once, what comes before the first block once more than the first.
    """
    depths = block_depths(model)
    top = max(depths.values(), default=0) + 1
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            multiplier = phase.head_rate_multiplier
            if name in depths:
                multiplier = 1.0 if phase.layer_decay is None else phase.layer_decay ** (top - depths[name])
            decay = phase.weight_decay if phase.norm_decay or parameter.ndim > 1 else 0.0
            groups.setdefault((multiplier, decay), []).append(parameter)
    if not groups:
        raise ValueError("every parameter is frozen: nothing is left to train")
    return [
        {"params": parameters, "lr": phase.rate * multiplier, "weight_decay": decay}
        for (multiplier, decay), parameters in groups.items()
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
