"""DNLNet: a disentangled non-local block between the baseline's convolutions (Yin et al., ECCV 2020)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nonlocalseg.blocks.disentangled import DisentangledNonLocal
from nonlocalseg.blocks.tiles import Tile
from nonlocalseg.heads.base import Watch, whole_only
from nonlocalseg.heads.fcn import FCNHead, FCNOptions, FramedOptions
from nonlocalseg.values import Count, Positive, value


@value
class DNLOptions(FramedOptions):
    """A disentangled non-local block."""

    key_channels: Count = 256
    "Channels of queries, keys and values."
    normalisation: Literal["softmax", "rescale"] = "softmax"
    "Of the pairwise term: softmax, or division by the number of positions."
    scaled: bool = True
    "Logits are multiplied by key_channels^-1/2."
    temperature: Positive = 0.05
    "Logits are divided by it."

    def idle(self) -> frozenset[str]:
        return super().idle() | (frozenset() if self.normalisation == "softmax" else {"scaled", "temperature"})


class DNLHead(FCNHead):
    """A `DisentangledNonLocal` behind the first 3x3 convolution; framed as the authors' code for segmentation does."""

    @classmethod
    def context_block(cls, options: FCNOptions, channels: int) -> nn.Module | None:
        assert isinstance(options, DNLOptions)
        return DisentangledNonLocal(
            channels, options.key_channels, options.normalisation, options.scaled, options.temperature
        )

    def in_context(self, x: Tensor, watch: Watch, tile: Tile | None = None) -> Tensor:
        whole_only(tile, "whitened pairs of all positions are related")
        block = self.context
        assert isinstance(block, DisentangledNonLocal)
        watch.attention("context", "the pairwise term of the block", lambda: block.attended(x))
        return block(x)
