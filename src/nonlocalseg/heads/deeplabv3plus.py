"""DeepLabv3+: ASPP of separable convolutions, refined at the size of a lower stage (Chen et al., ECCV 2018, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.aggregation import ASPP
from nonlocalseg.blocks.basic import ConvNormAct, SeparableConv, resize
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch, channels_of
from nonlocalseg.values import Count, NotNegative, value


@value
class DeepLabV3PlusOptions(HeadOptions):
    """ASPP, and a decoder with one lower stage."""

    channels: Count = 256
    "Channels of ASPP and of the decoder."
    aspp_rates: tuple[Count, ...] = (12, 24, 36)
    "Dilations of ASPP at the full size of stage 5."
    aspp_kernel_size: Literal[1, 3] = 1
    "Size of the convolution that joins ASPP's branches; 3 in mmsegmentation."
    low_stage: Count = 2
    "The stage that the decoder refines with; the scores have its size."
    low_channels: Count = 48
    "Channels to which that stage is reduced."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class DeepLabV3PlusHead(Head[DeepLabV3PlusOptions]):
    """ASPP on stage 5, resized to `low_stage`, beside that stage reduced by a 1x1 convolution, two separable 3x3 ones."""

    def __init__(
        self,
        aspp: ASPP,
        low: ConvNormAct,
        decoder: nn.Sequential,
        classifier: nn.Conv2d,
        low_stage: int = 2,
        dropout: float = 0.0,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.aspp, self.low, self.decoder, self.classifier = aspp, low, decoder, classifier
        self.dropout = nn.Dropout2d(dropout)
        self.low_stage = low_stage
        self.align_corners = align_corners
        self.stages = (low_stage, 5)

    @classmethod
    def build(cls, options: DeepLabV3PlusOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        o, width = options, options.channels
        low = channels_of(channels, o.low_stage, "low_stage")
        return cls(
            ASPP(channels[5], width, width, o.aspp_rates, separable=True, kernel_size=o.aspp_kernel_size),
            ConvNormAct(low, o.low_channels),
            nn.Sequential(SeparableConv(width + o.low_channels, width), SeparableConv(width, width)),
            nn.Conv2d(width, num_classes, 1),
            o.low_stage,
            o.dropout,
            o.align_corners,
        )

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        low = self.low(features[self.low_stage])
        coarse, fine = tiles.get(5), tiles.get(self.low_stage)
        high = resize(self.aspp(features[5], coarse), low.shape[-2:], self.align_corners, coarse, fine)
        return self.classifier(self.dropout(self.decoder(torch.cat([high, low], dim=1))))
