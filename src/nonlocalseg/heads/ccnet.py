"""CCNet: criss-cross attention, repeated so that every position reaches every other (Huang et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from nonlocalseg.blocks.criss_cross import CrissCross
from nonlocalseg.blocks.tiles import Tile
from nonlocalseg.heads.base import Watch, whole_only
from nonlocalseg.heads.fcn import FCNHead, FCNOptions, FramedOptions
from nonlocalseg.values import Count, value


@value
class CCOptions(FramedOptions):
    """Criss-cross attention."""

    recurrence: Count = 2
    "How often the block is applied (R)."
    key_reduction: Count = 8
    "Queries and keys have the block's channels divided by this."


class CCHead(FCNHead):
    """A `CrissCross` behind the first 3x3 convolution, applied R times with the same weights (Fig. 2)."""

    recurrence = 1

    @classmethod
    def build(cls, options: FCNOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        assert isinstance(options, CCOptions)
        head = super().build(options, channels, num_classes)
        head.recurrence = options.recurrence
        return head

    @classmethod
    def context_block(cls, options: FCNOptions, channels: int) -> nn.Module | None:
        assert isinstance(options, CCOptions)
        return CrissCross(channels, max(1, channels // options.key_reduction))

    def in_context(self, x: Tensor, watch: Watch, tile: Tile | None = None) -> Tensor:
        whole_only(tile, "every position attends by a softmax to all of its row and column")
        block = self.context
        assert isinstance(block, CrissCross)
        for number in range(1, self.recurrence + 1):
            title = f"row and column, pass {number}"
            watch.attention(f"pass{number}", title, lambda seen=x: block.attended(seen))
            x = block(x)
        return x
