"""APCNet: adaptive contexts of several scales on stage 5 (He et al., CVPR 2019, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Self

from torch import Tensor, nn

from nonlocalseg.blocks.adaptive import AdaptiveContext
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.joining import join
from nonlocalseg.blocks.sampling import AverageSampling
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.values import Count, NotNegative, value


@value
class APCOptions(HeadOptions):
    """Adaptive contexts."""

    channels: Count = 512
    "Channels of the contexts, and of the 3x3 convolution that joins them."
    pool_scales: tuple[Count, ...] = (1, 2, 3, 6)
    "s of each context's s x s cells."
    fusion: bool = True
    "A 1x1 convolution behind each context."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class APCHead(Head[APCOptions]):
    """Stage 5 beside an `AdaptiveContext` for each scale, joined by a 3x3 convolution."""

    def __init__(self, options: APCOptions, channels: int, num_classes: int) -> None:
        super().__init__()
        scales, width = options.pool_scales, options.channels
        self.pool = AverageSampling(scales)
        self.contexts = nn.ModuleList(AdaptiveContext(channels, width, size, options.fusion) for size in scales)
        self.bottleneck = ConvNormAct(channels + len(scales) * width, width, 3)
        self.widths = [channels, *(width for _ in scales)]
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: APCOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels[5], num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        x = features[5]
        for context in self.contexts:
            assert isinstance(context, AdaptiveContext)
            title = f"the adaptive context of {context.size} x {context.size} cells"
            watch.attention(f"cells{context.size}", title, lambda context=context: context.attended(x))
        tile = tiles.get(5)
        cells = self.pool(x, tile=tile)[0].split([size * size for size in self.pool.sizes], dim=2)
        contexts = (context(x, cell, tile) for context, cell in zip(self.contexts, cells, strict=True))
        joined = join(self.bottleneck.conv, chain([x], contexts), self.widths, (x.shape[2], x.shape[3]))
        return self.classifier(self.dropout(self.bottleneck.finish(joined)))
