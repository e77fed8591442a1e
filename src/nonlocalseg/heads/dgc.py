"""DGCNet: two graphs, over positions and over features, on stage 5 (Zhang et al., BMVC 2019, Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.graphs import DualGraph
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.values import Count, value


@value
class DGCOptions(HeadOptions):
    """Graphs over positions and features."""

    channels: Count = 512
    "Channels of the graphs' map, and of the 3x3 convolutions around them."
    coordinate_stride: Literal[1, 2, 4, 8, 16] = 8
    "How much smaller the map is that the graph over positions sees."
    feature_ratio: Count = 4
    "The graph over features has channels / feature_ratio nodes."

    def __post_init__(self) -> None:
        if self.channels % 2 or self.channels < self.feature_ratio:
            raise ValueError(f"channels: {self.channels} must be even and at least feature_ratio={self.feature_ratio}")


class DGCHead(Head[DGCOptions]):
    """3x3 convolution, `DualGraph`, 3x3 convolution, and a last one over the concatenation with stage 5."""

    def __init__(self, options: DGCOptions, channels: int, num_classes: int) -> None:
        super().__init__()
        width = options.channels
        self.reduce = ConvNormAct(channels, width, 3)
        self.graphs = DualGraph(width, options.coordinate_stride, options.feature_ratio, options.align_corners)
        self.refine = ConvNormAct(width, width, 3)
        self.combine = ConvNormAct(channels + width, width, 3)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: DGCOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels[5], num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        x = features[5]
        return self.classifier(self.combine.over(x, self.refine(self.graphs(self.reduce(x), tiles.get(5)))))
