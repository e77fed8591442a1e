"""EncNet: context encoding on stage 5, and a loss on which classes the image holds (Zhang et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.encoding import ContextEncoding
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch, channels_of
from nonlocalseg.values import Count, NotNegative, value


@value
class EncOptions(HeadOptions):
    """Context encoding."""

    channels: Count = 512
    "Channels of the block."
    num_codes: Count = 32
    "Codewords (K)."
    lateral: tuple[Count, ...] = ()
    "Lower stages that are joined to stage 5 by a 3x3 convolution, such as 3 4."
    presence_weight: NotNegative = 0.2
    "Weight of the loss on which classes the image holds (the paper's SE-loss); 0 leaves it and its layer out."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class EncHead(Head[EncOptions]):
    """3x3 convolution, `ContextEncoding`, classifier (Fig. 3); in training "presence" is the logits of the SE-loss."""

    classifiers: ClassVar[tuple[str, ...]] = ("classifier", "presence")

    def __init__(self, options: EncOptions, channels: Mapping[int, int], num_classes: int) -> None:
        super().__init__()
        width = options.channels
        self.lateral, self.align_corners = options.lateral, options.align_corners
        self.stages = (*options.lateral, 5)
        self.reduce = ConvNormAct(channels[5], width, 3)
        self.laterals = nn.ModuleList(
            ConvNormAct(channels_of(channels, stage, "lateral"), width) for stage in options.lateral
        )
        parts = 1 + len(options.lateral)
        self.fusion = ConvNormAct(parts * width, width, 3) if options.lateral else None
        self.encoding = ContextEncoding(width, options.num_codes)
        self.presence = nn.Linear(width, num_classes) if options.presence_weight else None
        self.loss_weights = {"presence": options.presence_weight} if options.presence_weight else {}
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: EncOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels, num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        x = self.reduce(features[5])
        if self.fusion is not None:
            lows = [conv(features[stage]) for conv, stage in zip(self.laterals, self.lateral, strict=True)]
            places = [tiles.get(stage) for stage in (5, *self.lateral)]
            x = self.fusion.over(x, *lows, align_corners=self.align_corners, tile=places[0], sources=places)
        x, encoded = self.encoding(x, tiles.get(5))
        presence = self.presence
        if presence is not None:
            watch.further("presence", lambda: presence(encoded))
        return self.classifier(self.dropout(x))
