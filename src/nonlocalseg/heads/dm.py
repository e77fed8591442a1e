"""DMNet: filters of several sizes that each image makes for itself, on stage 5 (He et al., ICCV 2019, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Self

from torch import Tensor, nn

from nonlocalseg.blocks.adaptive import DynamicFilter
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.joining import join
from nonlocalseg.blocks.sampling import AverageSampling
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.values import Count, NotNegative, value


@value
class DMOptions(HeadOptions):
    """Dynamic filters."""

    channels: Count = 512
    "Channels of the filtered maps, and of the 3x3 convolution that joins them."
    filter_sizes: tuple[Count, ...] = (1, 3, 5, 7)
    "Sides of the filters."
    fusion: bool = False
    "A 1x1 convolution behind each filter."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class DMHead(Head[DMOptions]):
    """Stage 5 beside a `DynamicFilter` of each size, joined by a 3x3 convolution."""

    def __init__(self, options: DMOptions, channels: int, num_classes: int) -> None:
        super().__init__()
        sizes, width = options.filter_sizes, options.channels
        self.pool = AverageSampling(sizes)
        self.filters = nn.ModuleList(DynamicFilter(channels, width, options.fusion) for _ in sizes)
        self.bottleneck = ConvNormAct(channels + len(sizes) * width, width, 3)
        self.widths = [channels, *(width for _ in sizes)]
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: DMOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels[5], num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        x, sizes = features[5], self.pool.sizes
        cells = self.pool(x, tile=tiles.get(5))[0].split([size * size for size in sizes], dim=2)
        parts = zip(self.filters, cells, sizes, strict=True)
        filtered = (dynamic(x, cell.unflatten(2, (size, size))) for dynamic, cell, size in parts)
        joined = join(self.bottleneck.conv, chain([x], filtered), self.widths, (x.shape[2], x.shape[3]))
        return self.classifier(self.dropout(self.bottleneck.finish(joined)))
