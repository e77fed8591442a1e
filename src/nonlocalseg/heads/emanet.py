"""EMANet: expectation-maximisation attention on stage 5 (Li et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from annotated_types import Ge, Le
from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.expectation import ExpectationMaximisation
from nonlocalseg.blocks.tiles import WHOLE, Tile, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.values import Count, NotNegative, value


@value
class EMAOptions(HeadOptions):
    """Expectation-maximisation attention."""

    channels: Count = 256
    "Channels of the 3x3 convolution behind the attention."
    ema_channels: Count = 512
    "Channels of the attention."
    num_bases: Count = 64
    "Bases (K)."
    num_stages: Count = 3
    "Iterations of expectation and maximisation (T)."
    momentum: Annotated[float, Ge(0), Le(1)] = 0.1
    "Share of a batch's bases in the moving average that training keeps."
    combine: bool = False
    "One more 3x3 convolution over cat(stage 5, result), as in mmsegmentation."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class EMAHead(Head[EMAOptions]):
    """relu(y + W_2 relu(EM(W_1 y))) with y a 3x3 convolution of stage 5; a 3x3 convolution, classifier (Fig. 2).

    No gradient passes the attention, so that W_1 keeps its first values, as in the public codes.
    """

    def __init__(self, options: EMAOptions, in_channels: int, num_classes: int) -> None:
        super().__init__()
        inner, width = options.ema_channels, options.channels
        self.reduce = ConvNormAct(in_channels, inner, 3)
        self.enter = nn.Conv2d(inner, inner, 1).requires_grad_(False)
        self.attention = ExpectationMaximisation(inner, options.num_bases, options.num_stages, options.momentum)
        self.leave = ConvNormAct(inner, inner, act=False)
        self.refine = ConvNormAct(inner, width, 3)
        self.combine = ConvNormAct(in_channels + width, width, 3) if options.combine else None
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: EMAOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels[5], num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        out = self.refine(self._attended(self.reduce(features[5]), watch, tiles.get(5)))
        if self.combine is not None:
            out = self.combine.over(features[5], out)
        return self.classifier(self.dropout(out))

    def _attended(self, x: Tensor, watch: Watch, tile: Tile | None) -> Tensor:
        """relu(x + W_2 relu(EM(W_1 x))), alone in a method so that no map of it outlives it."""
        entered = self.enter(x)
        watch.attention("bases", "the positions that it is rebuilt from", lambda: self.attention.attended(entered))
        return (x + self.leave(self.attention(entered, tile).relu_())).relu_()
