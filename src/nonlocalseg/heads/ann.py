"""ANN: lower stages fused into stage 5, a 3x3 convolution, a context block, a classifier (ICCV 2019, Fig. 3, Table 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.folding import FoldedFusion, fold_fusion
from nonlocalseg.blocks.non_local import CommonFusion, FusionNonLocal, NonLocal
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.attending import (
    AttentionOptions,
    JoinOptions,
    SamplingOptions,
    SharedKeyOptions,
    fusion_non_local,
    non_local,
)
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch, channels_of
from nonlocalseg.values import Count, NotNegative, value


@value
class FusionOptions(HeadOptions):
    """Common fusion alone."""

    channels: Count = 512
    "Channels of the 3x3 convolution behind the fusion."
    conv_bias: bool = True
    "The 3x3 convolution has a bias."
    between: bool = True
    "A 3x3 convolution between fusion and context; the paper's equations have none."
    fuse: tuple[Count, ...] = (4,)
    "Stages that are fused into stage 5 (ANN, supplement Table 2)."
    fusion_dropout: NotNegative = 0.0
    "Dropout behind the fusion."
    classifier_dropout: NotNegative = 0.0
    "Dropout before the classifier."

    def idle(self) -> frozenset[str]:
        return frozenset() if self.between else frozenset({"channels", "conv_bias"})


@value
class SharedValueOptions:
    """Options of blocks in which one map attends to another."""

    share_key_value: bool = False
    "FNB and AFNB take the key for the value (ANN, Eq. 16)."


@value
class FNBOptions(FusionOptions, AttentionOptions, JoinOptions, SharedValueOptions):
    """FNB alone."""

    def idle(self) -> frozenset[str]:
        alone = frozenset() if self.between else frozenset({"channels", "conv_bias"})
        values = {"value_channels"} if self.share_key_value else set()
        return alone | self.idle_join() | values


@value
class AFNBOptions(FNBOptions, SamplingOptions):
    """AFNB alone."""


@value
class FusionNonLocalOptions(FusionOptions, AttentionOptions, JoinOptions, SharedKeyOptions):
    """Common fusion, then NB."""

    def idle(self) -> frozenset[str]:
        return (frozenset() if self.between else frozenset({"channels", "conv_bias"})) | self.idle_join()


@value
class FNBNonLocalOptions(FNBOptions, SharedKeyOptions):
    """FNB, then NB."""


@value
class ANNOptions(AFNBOptions, SharedKeyOptions):
    """AFNB, then APNB: the whole network."""


class ANNHead(Head[FusionOptions]):
    """Fusion of lower stages into stage 5, a 3x3 convolution, a context block, a classifier (ANN, Fig. 3).

    `fuse` lists the lower stages, in the order the fusion block takes them. `between` (absent in the paper's equations)
    and `context` may be left out: AFNB alone, FNB alone and common fusion are rows of Table 6.
    """

    def __init__(
        self,
        fusion: CommonFusion | FusionNonLocal,
        classifier: nn.Conv2d,
        fuse: tuple[int, ...] = (4,),
        between: ConvNormAct | None = None,
        context: NonLocal | None = None,
        fusion_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fusion: CommonFusion | FusionNonLocal | FoldedFusion = fusion
        self.fusion_dropout = nn.Dropout2d(fusion_dropout)
        self.between = nn.Identity() if between is None else between
        self.context = context
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier
        self.fuse = fuse
        self.stages = (*fuse, 5)

    @classmethod
    def build(cls, options: FusionOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        fusion = _fusion(options, channels)
        width, bias = fusion.out_channels, options.conv_bias
        between = ConvNormAct(width, options.channels, 3, bias=bias) if options.between else None
        width = options.channels if between is not None else width
        context = _context(options, width)
        classifier = nn.Conv2d(width if context is None else context.out_channels, num_classes, 1)
        dropouts = (options.fusion_dropout, options.classifier_dropout)
        return cls(fusion, classifier, options.fuse, between, context, *dropouts)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        fusion, high, lows = self.fusion, features[5], [features[stage] for stage in self.fuse]
        if not isinstance(fusion, CommonFusion):
            for place, stage in enumerate(self.fuse):
                title = f"the fusion of stage {stage}"
                watch.attention(f"fusion{stage}", title, lambda at=place: fusion.attended(high, *lows)[at])
        places = [tiles.get(stage) for stage in self.fuse]
        if isinstance(fusion, CommonFusion):
            x = fusion(high, *lows, tiles=places, tile=tiles.get(5))
        else:
            x = fusion(high, *lows, tiles=places)
        x = self.between(self.fusion_dropout(x))
        if self.context is not None:
            block, seen = self.context, x
            watch.attention("context", "the context block", lambda: block.attended(seen))
            x = block(x, tiles.get(5))
        return self.classifier(self.dropout(x))

    def fold(self) -> None:
        folded = fold_fusion(self.fusion, self.between)
        if folded is not None:
            self.fusion, self.between = folded, nn.Identity()


def _fusion(options: FusionOptions, channels: Mapping[int, int]) -> CommonFusion | FusionNonLocal:
    high, lows = channels[5], tuple(channels_of(channels, stage, "fuse") for stage in options.fuse)
    if not isinstance(options, FNBOptions):
        return CommonFusion(high, lows, options.align_corners)
    sampling = options if isinstance(options, AFNBOptions) else None
    return fusion_non_local(options, high, lows, options, options.share_key_value, sampling)


def _context(options: FusionOptions, channels: int) -> NonLocal | None:
    if isinstance(options, (ANNOptions, FusionNonLocalOptions, FNBNonLocalOptions)):
        sampling = options if isinstance(options, ANNOptions) else None
        share = options.share_key_query
        return non_local(options, channels, options.output, options.fuse_bias, share, sampling)
    return None
