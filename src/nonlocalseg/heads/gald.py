"""GALD: global aggregation and local distribution on stage 5, in three arrangements (TIP 2021, section III)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.aggregation import ASPP, CGNL, PSP, HalfResolution
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.distribution import Downsample, LDv1, LDv2
from nonlocalseg.blocks.non_local import NonLocal
from nonlocalseg.blocks.tiles import WHOLE, Tile, Tiles
from nonlocalseg.heads.attending import AttentionOptions, SamplingOptions, SharedKeyOptions, non_local
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch
from nonlocalseg.values import Count, NotNegative, value

Arrangement = Literal["gald", "ldga", "parallel"]
Aggregate = PSP | ASPP | CGNL | NonLocal | HalfResolution


@value
class GALDOptions(HeadOptions, AttentionOptions, SharedKeyOptions, SamplingOptions):
    """Any aggregation with any distribution."""

    channels: Count = 512
    "Channels between the blocks."
    dropout: NotNegative = 0.1
    "Dropout before the classifier."
    aggregate: Literal["none", "psp", "aspp", "nonlocal", "cgnl", "apnb"] = "cgnl"
    "Global aggregation (GALD, Table I)."
    distribute: Literal["none", "ldv1", "ldv2"] = "ldv1"
    "Local distribution (GALD, Table I)."
    arrangement: Arrangement = "gald"
    "Aggregation first, distribution first, or both side by side (GALD, Table I c)."
    aggregate_stride: Literal[1, 2] = 2
    "2 aggregates on the map at half its size."
    aggregate_channels: Count = 256
    "Channels of ASPP's branches."
    psp_bins: tuple[Count, ...] = (1, 2, 3, 6)
    "n for the n x n cells of PSP."
    psp_act: bool = True
    "ReLU behind PSP's pooled convolutions."
    psp_map_first: bool = True
    "PSP's concatenation begins with the map."
    aspp_rates: tuple[Count, ...] = (12, 24, 36)
    "Dilations of ASPP at the full size of stage 5; halved with aggregate_stride 2."
    cgnl_groups: Count = 8
    "Groups of CGNL's channels."
    context_norm: bool = False
    "Batch norm behind the W_o of NB."
    official_gald: bool = False
    "The public code's CGNL, LDv1 and downsampling."
    mask_residuals: Count = 1
    "How often LDv1 adds its input: 2 in the public code."
    mask_downsample: Downsample = "depthwise"
    "How LDv1 makes its map smaller (GALD, Table II a)."
    distribute_kernel_size: Count = 5
    "k of LDv2's k x k neighbours."
    distribute_dilation: Count = 6
    "Dilation of LDv2's neighbours."
    distribute_query: Literal["both", "global"] = "both"
    "What LDv2's query sees (GALD, Table II c)."
    distribute_key: Literal["both", "global"] = "both"
    "What LDv2's key sees (GALD, Table II c)."
    stage_heads: bool = False
    "Classifiers behind every step, which the rest of the model trains without (GALD, Fig. 8)."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arrangement != "gald" and "none" in (self.aggregate, self.distribute):
            raise ValueError(
                f"arrangement={self.arrangement!r} needs both aggregate and distribute; one of them is none"
            )

    def idle(self) -> frozenset[str]:
        aggregate, distribute = self.aggregate, self.distribute
        attends = aggregate in ("nonlocal", "apnb")
        half = aggregate != "none" and self.aggregate_stride == 2
        groups: tuple[tuple[bool, str], ...] = (  # whether anything reads them
            (attends or aggregate == "cgnl" or distribute == "ldv2", "key_channels"),
            (attends, "value_channels normalisation embedding embedding_bias scaled block_dropout share_key_query"),
            (aggregate == "nonlocal", "context_norm"),
            (aggregate == "apnb", "sampling anchor_sizes"),
            (aggregate == "psp", "psp_bins psp_act psp_map_first"),
            (aggregate == "aspp", "aspp_rates aggregate_channels"),
            (aggregate == "cgnl", "cgnl_groups"),
            (aggregate != "none", "aggregate_stride"),
            (aggregate == "cgnl" or half or distribute == "ldv1", "official_gald"),
            (distribute == "ldv1", "mask_residuals mask_downsample"),
            (distribute == "ldv2", "distribute_kernel_size distribute_dilation distribute_query distribute_key"),
        )
        return frozenset(name for read, names in groups if not read for name in names.split())


class GALDHead(Head[GALDOptions]):
    """Global aggregation and local distribution on stage 5 (GALD, Fig. 4-6), in three arrangements.

    X' is stage 5, or `reduce` of it; `local` gives LDv2's X_l from stage 5.
    gald: out = distribute(aggregate(X'), X_l); ldga: out = aggregate(distribute(X')); parallel: both, concatenated.
    Then `refine`, and the concatenation with stage 5, or with X_l where there is one (Eq. 3, Fig. 5b), unless
    `concat_input` is false; `combine` is the final 3x3 convolution, without it the classifier sees the concatenation.

    `stage_heads` are 1x1 classifiers that show what each step adds (Fig. 8): "fcn" of X', then "ga" and "gald", "ld" and
    "ldga", or "ga" and "ld". They see the maps without handing a gradient back: the rest trains as without them.
    """

    classifiers: ClassVar[tuple[str, ...]] = ("classifier", "stage_heads")

    def __init__(
        self,
        aggregate: Aggregate | None,
        distribute: LDv1 | LDv2 | None,
        classifier: nn.Conv2d,
        arrangement: Arrangement = "gald",
        reduce: ConvNormAct | None = None,
        local: ConvNormAct | None = None,
        refine: ConvNormAct | None = None,
        combine: ConvNormAct | None = None,
        concat_input: bool = True,
        dropout: float = 0.0,
        stage_heads: dict[str, nn.Conv2d] | None = None,
    ) -> None:
        super().__init__()
        self.reduce = nn.Identity() if reduce is None else reduce
        self.aggregate = aggregate
        self.distribute = distribute
        self.local = local
        self.refine = nn.Identity() if refine is None else refine
        self.combine = nn.Identity() if combine is None else combine
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier
        self.arrangement: Arrangement = arrangement
        self.concat_input = concat_input
        self.stage_heads = nn.ModuleDict(stage_heads or {})

    @classmethod
    def build(cls, options: GALDOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        """psp and aspp take stage 5 itself and end in the classifier; the others, and every other arrangement, stand
        between two 3x3 convolutions, with a third over the concatenation with stage 5 (the public code)."""
        o, width, stage = options, options.channels, channels[5]
        framed = o.aggregate not in ("psp", "aspp") or o.arrangement != "gald"
        reduce = ConvNormAct(stage, width, 3) if framed else None
        aggregate = _aggregate(o, width if framed else stage)
        with_local = o.distribute == "ldv2" and o.arrangement == "gald" and o.aggregate != "none"
        distribute = _distribute(o, width if with_local else 0)
        out = 2 * width if o.arrangement == "parallel" else width
        skip = width if with_local else stage
        concat = framed or distribute is not None
        final = width if framed else out + (skip if concat else 0)
        return cls(
            aggregate,
            distribute,
            nn.Conv2d(final, num_classes, 1),
            o.arrangement,
            reduce,
            ConvNormAct(stage, width) if with_local else None,
            ConvNormAct(out, width, 3) if framed else None,
            ConvNormAct(width + skip, width, 3) if framed else None,
            concat,
            o.dropout,
            _stage_heads(o, width if framed else stage, num_classes) if o.stage_heads else None,
        )

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        x = features[5]
        local = None if self.local is None else self.local(x)
        out = self.refine(self._arranged(self.reduce(x), local, watch, tiles.get(5)))
        if self.concat_input:
            out = torch.cat([x if local is None else local, out], dim=1)
        return self.classifier(self.dropout(self.combine(out)))

    def _arranged(self, x: Tensor, local: Tensor | None, watch: Watch, tile: Tile | None) -> Tensor:
        self._judge("fcn", x, watch)
        if self.arrangement == "gald":
            x = self._judge("ga", self._aggregated(x, watch, tile), watch)
            return self._judge("gald", self._distributed(x, local, watch, tile), watch)
        if self.arrangement == "ldga":
            x = self._judge("ld", self._distributed(x, local, watch, tile), watch)
            return self._judge("ldga", self._aggregated(x, watch, tile), watch)
        aggregated = self._judge("ga", self._aggregated(x, watch, tile), watch)
        return torch.cat([aggregated, self._judge("ld", self._distributed(x, local, watch, tile), watch)], dim=1)

    def _judge(self, stage: str, x: Tensor, watch: Watch) -> Tensor:
        """`x`, after `watch` was told what the stage's own classifier says of it."""
        if stage in self.stage_heads:
            watch.scores(stage, lambda: self.stage_heads[stage](x.detach()))
        return x

    def _aggregated(self, x: Tensor, watch: Watch, tile: Tile | None) -> Tensor:
        block = self.aggregate
        if block is None:
            return x
        attending = block.block if isinstance(block, HalfResolution) else block
        if isinstance(attending, NonLocal):
            whole: HalfResolution | NonLocal = block if isinstance(block, HalfResolution) else attending
            watch.attention("aggregate", "global aggregation", lambda: whole.attended(x))
        return block(x, tile)

    def _distributed(self, x: Tensor, local: Tensor | None, watch: Watch, tile: Tile | None) -> Tensor:
        block = self.distribute
        if block is None:
            return x
        if isinstance(block, LDv2):
            watch.attention("distribute", "local distribution (LDv2)", lambda: block.attended(x, local))
            return block(x, local)
        watch.mask("mask", "the mask of LDv1", lambda: block.mask(x))
        return block(x, tile)


def _stage_heads(o: GALDOptions, first: int, num_classes: int) -> dict[str, nn.Conv2d]:
    """A classifier for X' and for each step that there is; X' has `first` channels, every later map `o.channels`."""
    steps = {"gald": ("ga", "gald"), "ldga": ("ld", "ldga"), "parallel": ("ga", "ld")}[o.arrangement]
    taken = (o.aggregate, o.distribute) if o.arrangement != "ldga" else (o.distribute, o.aggregate)
    named = [step for step, block in zip(steps, taken, strict=True) if block != "none"]
    later = {step: nn.Conv2d(o.channels, num_classes, 1) for step in named}
    return {"fcn": nn.Conv2d(first, num_classes, 1), **later}


def _aggregate(o: GALDOptions, channels: int) -> Aggregate | None:
    width, half = o.channels, o.aggregate_stride == 2
    if o.aggregate == "none":
        return None
    if o.aggregate == "psp":
        block = PSP(channels, width, width, o.psp_bins, o.psp_act, o.psp_map_first, o.align_corners)
    elif o.aggregate == "aspp":
        rates = tuple(max(1, rate // 2) for rate in o.aspp_rates) if half else o.aspp_rates
        block = ASPP(channels, width, o.aggregate_channels, rates)
    elif o.aggregate == "cgnl":
        block = CGNL(channels, o.key_channels, o.cgnl_groups, official=o.official_gald)
    elif o.aggregate == "apnb":
        block = non_local(o, channels, "residual", share=o.share_key_query, sampling=o)
    else:
        block = non_local(o, channels, "residual", share=o.share_key_query, context_norm=o.context_norm)
    if not half:
        return block
    return HalfResolution(block, channels, 0 if o.official_gald else 1, o.official_gald, o.align_corners)


def _distribute(o: GALDOptions, local: int) -> LDv1 | LDv2 | None:
    width = o.channels
    if o.distribute == "none":
        return None
    if o.distribute == "ldv1":
        return LDv1(width, o.mask_downsample, 8, o.official_gald, o.mask_residuals, o.align_corners)
    return LDv2(
        width,
        local,
        width,
        o.key_channels,
        width,
        o.distribute_kernel_size,
        o.distribute_dilation,
        o.distribute_query,
        o.distribute_key,
    )
