"""The literal equations of the blocks that pool, dilate and join maps of several sizes: what their tests compare with.

As in `reference.py`, each function takes a block for its weights and repeats its equation step by step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.aggregation import ASPP, PSP


def joined(conv: nn.Conv2d, maps: Sequence[Tensor], size: Sequence[int], align_corners: bool = False) -> Tensor:
    """The convolution over the concatenation of the maps, each resized to `size`."""
    resized = [F.interpolate(x, size=list(size), mode="bilinear", align_corners=align_corners) for x in maps]
    return conv(torch.cat(resized, dim=1))


def psp(block: PSP, x: Tensor) -> Tensor:
    """PSPNet's pyramid: the map beside its average over every n x n cells, each through its convolution."""
    stages = zip(block.stages, block.pool.sizes, strict=True)
    pooled = [stage(F.adaptive_avg_pool2d(x, size)) for stage, size in stages]
    maps = [x, *pooled] if block.map_first else [*pooled, x]
    return block.bottleneck.finish(joined(block.bottleneck.conv, maps, x.shape[2:], block.align_corners))


def aspp(block: ASPP, x: Tensor) -> Tensor:
    """DeepLab's pyramid: the image average, the 1x1 and the dilated convolutions side by side."""
    image = block.image(F.adaptive_avg_pool2d(x, 1))
    maps = [image, *(branch(x) for branch in block.branches)]
    return block.bottleneck.finish(joined(block.bottleneck.conv, maps, x.shape[2:]))
