"""DenseASPP on stage 5 (Yang et al., CVPR 2018, Fig. 3), in the widths of the authors' DenseASPP161."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from nonlocalseg.blocks.dense import DenseASPP
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.values import Count, NotNegative, value


@value
class DenseASPPOptions(HeadOptions):
    """Densely connected dilated convolutions."""

    channels: Count = 128
    "Channels that each dilated convolution adds."
    width: Count = 512
    "Channels of the 1x1 convolution before each dilated one."
    dense_rates: tuple[Count, ...] = (3, 6, 12, 18, 24)
    "Dilations at the full size of stage 5."
    layer_dropout: NotNegative = 0.1
    "Dropout behind each dilated convolution."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class DenseASPPHead(Head[DenseASPPOptions]):
    """The block, dropout and a 1x1 classifier."""

    def __init__(self, block: DenseASPP, classifier: nn.Conv2d, dropout: float = 0.0) -> None:
        super().__init__()
        self.block, self.dropout, self.classifier = block, nn.Dropout2d(dropout), classifier

    @classmethod
    def build(cls, options: DenseASPPOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        o = options
        block = DenseASPP(channels[5], o.channels, o.width, o.dense_rates, o.layer_dropout)
        return cls(block, nn.Conv2d(block.out_channels, num_classes, 1), o.dropout)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        return self.classifier(self.dropout(self.block(features[5])))
