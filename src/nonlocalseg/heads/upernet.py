"""UPerNet: pyramid pooling on stage 5 and a feature pyramid over the stages below it (Xiao et al., ECCV 2018, Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

from nonlocalseg.blocks.aggregation import PSP
from nonlocalseg.blocks.basic import ConvNormAct, resize
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch, channels_of
from nonlocalseg.values import Count, NotNegative, value


@value
class UPerNetOptions(HeadOptions):
    """Pyramid pooling and a feature pyramid."""

    channels: Count = 512
    "Channels of the pyramids."
    psp_bins: tuple[Count, ...] = (1, 2, 3, 6)
    "n for the n x n cells of PSP."
    lateral_stages: tuple[Count, ...] = (2, 3, 4)
    "Stages of the feature pyramid below stage 5; the scores have the size of the first."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."

    def __post_init__(self) -> None:
        stages = self.lateral_stages
        if not stages or list(stages) != sorted({*stages}):
            raise ValueError(f"lateral_stages: {stages} are not one or more rising numbers, e.g. (2, 3, 4)")


class UPerNetHead(Head[UPerNetOptions]):
    """PSP on stage 5, added from the top down to the lower stages' 1x1 convolutions, a 3x3 convolution on each sum.

    All levels, resized to the first, are then fused by one more 3x3 convolution. The network keeps its own stride, 32.
    """

    usual_stride: ClassVar[int] = 32

    def __init__(
        self,
        psp: PSP,
        laterals: list[ConvNormAct],
        outputs: list[ConvNormAct],
        fuse: ConvNormAct,
        classifier: nn.Conv2d,
        lateral_stages: tuple[int, ...] = (2, 3, 4),
        dropout: float = 0.0,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.psp, self.laterals, self.outputs = psp, nn.ModuleList(laterals), nn.ModuleList(outputs)
        self.fuse, self.dropout, self.classifier = fuse, nn.Dropout2d(dropout), classifier
        self.lateral_stages = lateral_stages
        self.align_corners = align_corners
        self.stages = (*lateral_stages, 5)

    @classmethod
    def build(cls, options: UPerNetOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        o, width = options, options.channels
        lows = [channels_of(channels, stage, "lateral_stages") for stage in o.lateral_stages]
        return cls(
            PSP(channels[5], width, width, o.psp_bins, align_corners=o.align_corners),
            [ConvNormAct(low, width) for low in lows],
            [ConvNormAct(width, width, 3) for _ in lows],
            ConvNormAct((len(lows) + 1) * width, width, 3),
            nn.Conv2d(width, num_classes, 1),
            o.lateral_stages,
            o.dropout,
            o.align_corners,
        )

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        top = self.psp(features[5], tiles.get(5))
        sums, places = [top], [tiles.get(5)]  # from the top down
        for stage, lateral in zip(self.lateral_stages[::-1], list(self.laterals)[::-1], strict=True):
            low = lateral(features[stage])
            here = tiles.get(stage)
            sums.append(low + resize(sums[-1], low.shape[-2:], self.align_corners, places[-1], here))
            places.append(here)
        levels = [*(output(x) for output, x in zip(self.outputs, sums[:0:-1], strict=True)), top]
        places = places[::-1]  # as the levels, from the first up
        fused = self.fuse.over(*levels, align_corners=self.align_corners, tile=places[0], sources=places)
        return self.classifier(self.dropout(fused))
