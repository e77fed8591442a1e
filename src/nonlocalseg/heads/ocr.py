"""OCRNet: each pixel looks at its image's classes, as coarse scores of stage 4 show them (Yuan et al., ECCV 2020, Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.objects import ObjectAttention, represent
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.heads.fcn import FCNHead
from nonlocalseg.values import Count, NotNegative, value


@value
class OCROptions(HeadOptions):
    """Object-contextual representations."""

    channels: Count = 512
    "Channels of the pixels' and the classes' representations."
    key_channels: Count = 256
    "Channels of queries, keys and values."
    coarse_channels: Count = 512
    "Channels of the 3x3 convolution behind which stage 4 is scored."
    coarse_weight: NotNegative = 0.4
    "Weight of the loss of the coarse scores."
    coarse_dropout: NotNegative = 0.05
    "Dropout before the coarse scores."
    dropout: NotNegative = 0.05
    "Dropout before the classifier."


class OCRHead(Head[OCROptions]):
    """A 3x3 convolution on stage 5, `ObjectAttention` over the regions of the coarse scores, both joined by a 1x1 one.

    The coarse scores take part in every pass; in training they are the output "coarse", and an auxiliary head is not
    needed. mmsegmentation's cascade of FCNHead and OCRHead is this network.
    """

    classifiers: ClassVar[tuple[str, ...]] = ("classifier", "coarse.classifier")
    stages = (4, 5)

    def __init__(self, options: OCROptions, channels: Mapping[int, int], num_classes: int) -> None:
        super().__init__()
        width, coarse = options.channels, options.coarse_channels
        scored = nn.Conv2d(coarse, num_classes, 1)
        self.coarse = FCNHead([ConvNormAct(channels[4], coarse, 3)], scored, dropout=options.coarse_dropout, stage=4)
        self.loss_weights = {"coarse": options.coarse_weight}
        self.reduce = ConvNormAct(channels[5], width, 3)
        self.attention = ObjectAttention(width, options.key_channels)
        self.join = ConvNormAct(2 * width, width)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: OCROptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels, num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        x, scores = self.reduce(features[5]), self.coarse(features)
        regions = represent(x, scores, tiles.get(5))
        watch.further("coarse", lambda: scores)
        watch.mask("objects", "what each pixel takes from each class", lambda: self.attention.weights(x, regions))
        return self.classifier(self.dropout(self.join.over(self.attention(x, regions), x)))
