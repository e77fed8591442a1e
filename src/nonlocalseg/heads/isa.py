"""ISANet: interlaced sparse self-attention on stage 5 (Huang et al., 2019; Yuan et al., IJCV 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.interlaced import InterlacedAttention
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch, whole_only
from nonlocalseg.values import Count, NotNegative, Size, value


@value
class ISAOptions(HeadOptions):
    """Interlaced sparse self-attention."""

    channels: Count = 512
    "Channels of the block."
    key_channels: Count = 256
    "Channels of queries and keys."
    down_factor: Size = (8, 8)
    "Height and width of the windows on the feature map."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class ISAHead(Head[ISAOptions]):
    """3x3 convolution, `InterlacedAttention`, a 1x1 convolution over its result beside its input, classifier."""

    def __init__(self, options: ISAOptions, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = options.channels
        self.reduce = ConvNormAct(in_channels, width, 3)
        self.attention = InterlacedAttention(width, options.key_channels, options.down_factor)
        self.combine = ConvNormAct(2 * width, width)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: ISAOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels[5], num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        whole_only(tiles, "each position attends by a softmax to those at the same place of every window")
        x = self.reduce(features[5])
        watch.attention("far", "one position of every window", lambda: self.attention.attended(x)[0])
        watch.attention("near", "its own window, after that", lambda: self.attention.attended(x)[1])
        return self.classifier(self.dropout(self.combine.over(self.attention(x), x)))
