"""DANet: attention over positions beside attention over channels, summed (Fu et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.dual_attention import ChannelAttention, PositionAttention
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch, whole_only
from nonlocalseg.values import Count, NotNegative, value


@value
class DAOptions(HeadOptions):
    """Position and channel attention."""

    channels: Count = 512
    "Channels of both branches."
    key_channels: Count = 64
    "Channels of the queries and keys of position attention."
    branch_weight: NotNegative = 1.0
    "Weight of the loss of each branch's own scores; 0 leaves them and their classifiers out."
    dropout: NotNegative = 0.1
    "Dropout before the classifiers."


class DAHead(Head[DAOptions]):
    """Two branches of 3x3 convolution, attention, 3x3 convolution on stage 5; their sum is classified (Fig. 2).

    In training "position" and "channel" are the scores of each branch alone, as in the public codes.
    """

    classifiers: ClassVar[tuple[str, ...]] = ("classifier", "position_classifier", "channel_classifier")

    def __init__(self, options: DAOptions, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = options.channels
        self.position_in, self.channel_in = (ConvNormAct(in_channels, width, 3) for _ in range(2))
        self.position_out, self.channel_out = (ConvNormAct(width, width, 3) for _ in range(2))
        self.position, self.channel = PositionAttention(width, options.key_channels), ChannelAttention()
        alone = options.branch_weight > 0
        self.position_classifier, self.channel_classifier = (
            nn.Conv2d(width, num_classes, 1) if alone else None for _ in range(2)
        )
        self.loss_weights = dict.fromkeys(("position", "channel"), options.branch_weight) if alone else {}
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: DAOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels[5], num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        whole_only(tiles, "attention over positions relates every position with every other by a softmax")
        x = self.position_in(features[5])
        watch.attention("position", "position attention", lambda seen=x: self.position.attended(seen))
        position = self.position_out(self.position(x))
        channel = self.channel_out(self.channel(self.channel_in(features[5])))
        for name, found, classifier in (
            ("position", position, self.position_classifier),
            ("channel", channel, self.channel_classifier),
        ):
            if classifier is not None:
                watch.further(name, lambda found=found, classify=classifier: classify(self.dropout(found)))
        return self.classifier(self.dropout(position + channel))
