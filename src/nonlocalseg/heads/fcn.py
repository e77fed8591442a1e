"""The papers' baseline, alone or with NB or APNB behind its first convolution (ANN, Table 6); the auxiliary head too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.non_local import NonLocal
from nonlocalseg.blocks.tiles import WHOLE, Tile, Tiles
from nonlocalseg.heads.attending import (
    AttentionOptions,
    JoinOptions,
    SamplingOptions,
    SharedKeyOptions,
    non_local,
)
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.values import Count, Natural, NotNegative, value


@value
class FCNOptions(HeadOptions):
    """3x3 convolutions and a classifier."""

    channels: Count = 512
    "Channels of the 3x3 convolutions."
    convs: Natural = 1
    "Number of 3x3 convolutions."
    conv_bias: bool = True
    "The 3x3 convolutions have a bias."
    dilation: Count = 1
    "Dilation of the 3x3 convolutions, without the one over the concatenation."
    combine: bool = False
    "One more 3x3 convolution over cat(stage 5, result)."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."

    def idle(self) -> frozenset[str]:
        return frozenset(_idle_convs(self, True))


@value
class NonLocalOptions(FCNOptions, AttentionOptions, JoinOptions, SharedKeyOptions):
    """NB behind the first convolution."""

    between: bool = True
    "3x3 convolutions around the block; without, it sees stage 5 itself."
    context_norm: bool = False
    "Batch norm behind W_o, for output residual or cat."

    def idle(self) -> frozenset[str]:
        return frozenset(_idle_convs(self, self.between) | self.idle_join())


@value
class APNBOptions(FCNOptions, AttentionOptions, JoinOptions, SharedKeyOptions, SamplingOptions):
    """APNB behind the first convolution."""

    between: bool = True
    "3x3 convolutions around the block; without, it sees stage 5 itself."

    def idle(self) -> frozenset[str]:
        return frozenset(_idle_convs(self, self.between) | self.idle_join())


@value
class FramedOptions(FCNOptions):
    """A block between two 3x3 convolutions, and a third over cat(stage 5, result): how CCNet's code frames its block."""

    convs: Natural = 2
    "Number of 3x3 convolutions; the block stands behind the first."
    conv_bias: bool = False
    "The 3x3 convolutions have a bias."
    combine: bool = True
    "One more 3x3 convolution over cat(stage 5, result)."


class FCNHead(Head[FCNOptions]):
    """3x3 convolutions on one stage, an optional context block behind the first, dropout and a 1x1 classifier.

    The papers' baseline, and with `context` the baseline + NB or + APNB of ANN's Table 6. `combine` is a 3x3
    convolution over cat(stage, result), as in mmsegmentation's FCN and NL heads. It is the auxiliary head too. Heads
    with another block derive from it.
    """

    def __init__(
        self,
        convs: list[ConvNormAct],
        classifier: nn.Conv2d,
        context: nn.Module | None = None,
        combine: ConvNormAct | None = None,
        dropout: float = 0.0,
        stage: int = 5,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.context = context
        self.combine = combine
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier
        self.stages = (stage,)

    @classmethod
    def build(cls, options: FCNOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        stage, width = channels[5], options.channels
        around = not isinstance(options, (NonLocalOptions, APNBOptions)) or options.between
        widths = [stage, *(width for _ in range(options.convs if around else 0))]
        details = {"bias": options.conv_bias, "dilation": options.dilation}
        convs = [ConvNormAct(before, width, 3, **details) for before in widths[:-1]]
        block = cls.context_block(options, widths[-1])
        out = block.out_channels if isinstance(block, NonLocal) else widths[-1]
        combine = ConvNormAct(stage + out, width, 3, bias=options.conv_bias) if options.combine else None
        classifier = nn.Conv2d(width if combine is not None else out, num_classes, 1)
        return cls(convs, classifier, block, combine, options.dropout)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        x = out = features[self.stages[0]]
        for conv in self.convs[:1]:
            out = conv(out)
        out = self.in_context(out, watch, tiles.get(self.stages[0]))
        for conv in self.convs[1:]:
            out = conv(out)
        if self.combine is not None:
            out = self.combine.over(x, out)
        return self.classifier(self.dropout(out))

    @classmethod
    def context_block(cls, options: FCNOptions, channels: int) -> nn.Module | None:
        """The block behind the first convolution; all but `NonLocal` keep the number of channels."""
        return _context(options, channels)

    def in_context(self, x: Tensor, watch: Watch, tile: Tile | None = None) -> Tensor:
        """The block's result, after `watch` was told what it attends to."""
        block = self.context
        if isinstance(block, NonLocal):
            watch.attention("context", "the context block", lambda: block.attended(x))
        return x if block is None else block(x, tile)


def _idle_convs(options: FCNOptions, around: bool) -> set[str]:
    """What the 3x3 convolutions read, where there are none."""
    idle = set() if around else {"convs"}
    idle |= set() if around and options.convs else {"dilation"}
    return idle if options.combine or (around and options.convs) else idle | {"channels", "conv_bias"}


def _context(options: FCNOptions, channels: int) -> NonLocal | None:
    if isinstance(options, APNBOptions):
        return non_local(options, channels, options.output, options.fuse_bias, options.share_key_query, options)
    if isinstance(options, NonLocalOptions):
        return non_local(
            options,
            channels,
            options.output,
            options.fuse_bias,
            options.share_key_query,
            context_norm=options.context_norm,
        )
    return None
