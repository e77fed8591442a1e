"""GCNet: a global context block between the baseline's convolutions (Cao et al., ICCV workshops 2019)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nonlocalseg.blocks.global_context import Fusion, GlobalContext
from nonlocalseg.blocks.tiles import Tile
from nonlocalseg.heads.base import Watch
from nonlocalseg.heads.fcn import FCNHead, FCNOptions, FramedOptions
from nonlocalseg.values import Positive, value


@value
class GCOptions(FramedOptions):
    """One context for all positions."""

    ratio: Positive = 0.25
    "Channels of the bottleneck, as a share of the block's channels."
    pooling_type: Literal["att", "avg"] = "att"
    "The context is an attention-weighted mean of the positions, or their plain mean."
    fusion_types: tuple[Fusion, ...] = ("channel_add",)
    "The context is added to the map, multiplies it as a gate, or both."

    def __post_init__(self) -> None:
        if not self.fusion_types:
            raise ValueError("fusion_types: give channel_add, channel_mul or both")


class GCHead(FCNHead):
    """A `GlobalContext` behind the first 3x3 convolution; framed as the authors' code for segmentation frames it."""

    @classmethod
    def context_block(cls, options: FCNOptions, channels: int) -> nn.Module | None:
        assert isinstance(options, GCOptions)
        hidden = max(1, int(channels * options.ratio))
        return GlobalContext(channels, hidden, options.pooling_type, options.fusion_types)

    def in_context(self, x: Tensor, watch: Watch, tile: Tile | None = None) -> Tensor:
        block = self.context
        assert isinstance(block, GlobalContext)
        watch.attention("context", "the global context, the same for every pixel", lambda: block.attended(x))
        return block(x, tile)
