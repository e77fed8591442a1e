"""Heads from backbone stages to class scores: FCN, ANN (ICCV 2019, 3.4) and GALD (TIP 2021, III), given finished blocks.

A head maps `{stage: [B, C, H, W]}` to logits `[B, num_classes, H, W]` at the size of stage 5. `stages` lists what it
needs. With a dict as `collect`, it puts the attention weights and masks of its blocks there, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.aggregation import HalfResolution
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.distribution import LDv1, LDv2

Features = dict[int, Tensor]
Collect = dict[str, Tensor] | None
Arrangement = Literal["gald", "ldga", "parallel"]


class AtPixel(dict[str, Tensor]):
    """A `collect` dictionary that asks for the attention weights of one pixel: `[B, 1, S]` instead of `[B, N, S]`.

    `pixel` is x, y in the image of `size` (height, width) that the backbone sees.
    """

    def __init__(self, pixel: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__()
        self.pixel, self.size = pixel, size

    def cell(self, height: int, width: int) -> tuple[int, int]:
        """Row and column of the pixel in a map of this size."""
        return self.pixel[1] * height // self.size[0], self.pixel[0] * width // self.size[1]


class FCNHead(nn.Module):
    """3x3 convolutions on one stage, an optional context block behind the first, dropout and a 1x1 classifier.

    The papers' baseline, and with `context` the baseline + NB or + APNB of ANN's Table 6. `combine` is a 3x3
    convolution over cat(stage, result), as in mmsegmentation's FCN and NL heads. It is the auxiliary head too.
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
        self.context = nn.Identity() if context is None else context
        self.combine = combine
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier
        self.stages = (stage,)

    def forward(self, features: Features, collect: Collect = None) -> Tensor:
        x = out = features[self.stages[0]]
        for conv in self.convs[:1]:
            out = conv(out)
        _collect_weights(collect, "context", self.context, out)
        out = self.context(out)
        for conv in self.convs[1:]:
            out = conv(out)
        if self.combine is not None:
            out = self.combine(torch.cat([x, out], dim=1))
        return self.classifier(self.dropout(out))


class ANNHead(nn.Module):
    """Fusion of lower stages into stage 5, a 3x3 convolution, a context block, a classifier (ANN, Fig. 3).

    `fuse` lists the lower stages, in the order the fusion block takes them. `between` (absent in the paper's equations)
    and `context` may be left out: AFNB alone, FNB alone and common fusion are rows of Table 6.
    """

    def __init__(
        self,
        fusion: nn.Module,
        classifier: nn.Conv2d,
        fuse: tuple[int, ...] = (4,),
        between: ConvNormAct | None = None,
        context: nn.Module | None = None,
        fusion_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.fusion_dropout = nn.Dropout2d(fusion_dropout)
        self.between = nn.Identity() if between is None else between
        self.context = nn.Identity() if context is None else context
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier
        self.fuse = fuse
        self.stages = (*fuse, 5)

    def forward(self, features: Features, collect: Collect = None) -> Tensor:
        high, lows = features[5], [features[stage] for stage in self.fuse]
        if collect is not None and hasattr(self.fusion, "attention"):
            at = _positions(collect, high, high.shape[-2:])
            weights = self.fusion.attention(high, *lows, positions=at)  # type: ignore[operator]
            collect.update({f"fusion{stage}": w for stage, w in zip(self.fuse, weights, strict=True)})
        x = self.between(self.fusion_dropout(self.fusion(high, *lows)))
        _collect_weights(collect, "context", self.context, x)
        return self.classifier(self.dropout(self.context(x)))


class GALDHead(nn.Module):
    """Global aggregation and local distribution on stage 5 (GALD, Fig. 4-6), in three arrangements.

    X' is stage 5, or `reduce` of it; `local` gives LDv2's X_l from stage 5.
    gald: out = distribute(aggregate(X'), X_l); ldga: out = aggregate(distribute(X')); parallel: both, concatenated.
    Then `refine`, and the concatenation with stage 5, or with X_l where there is one (Eq. 3, Fig. 5b), unless
    `concat_input` is false; `combine` is the final 3x3 convolution, without it the classifier sees the concatenation.

    `stage_heads` are 1x1 classifiers that show what each step adds (Fig. 8): "fcn" of X', then "ga" and "gald", "ld" and
    "ldga", or "ga" and "ld". They see the maps without handing a gradient back: the rest trains as without them.
    """

    def __init__(
        self,
        aggregate: nn.Module | None,
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
        if arrangement not in ("gald", "ldga", "parallel"):
            raise ValueError(f"arrangement must be gald, ldga or parallel, not {arrangement!r}")
        self.reduce = nn.Identity() if reduce is None else reduce
        self.aggregate = nn.Identity() if aggregate is None else aggregate
        self.distribute = distribute
        self.local = local
        self.refine = nn.Identity() if refine is None else refine
        self.combine = nn.Identity() if combine is None else combine
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier
        self.arrangement: Arrangement = arrangement
        self.concat_input = concat_input
        self.stage_heads = None if stage_heads is None else nn.ModuleDict(stage_heads)
        self.stages = (5,)

    def forward(self, features: Features, collect: Collect = None, stages: Collect = None) -> Tensor:
        """Logits; the scores of the stage heads are put into `stages`, where that is given."""
        x = features[5]
        local = None if self.local is None else self.local(x)
        out = self.refine(self._arranged(self.reduce(x), local, collect, stages))
        if self.concat_input:
            out = torch.cat([x if local is None else local, out], dim=1)
        return self.classifier(self.dropout(self.combine(out)))

    def _arranged(self, x: Tensor, local: Tensor | None, collect: Collect, stages: Collect) -> Tensor:
        self._judge("fcn", x, stages)
        if self.arrangement == "gald":
            x = self._judge("ga", self._aggregate(x, collect), stages)
            return self._judge("gald", self._distribute(x, local, collect), stages)
        if self.arrangement == "ldga":
            x = self._judge("ld", self._distribute(x, local, collect), stages)
            return self._judge("ldga", self._aggregate(x, collect), stages)
        aggregated = self._judge("ga", self._aggregate(x, collect), stages)
        return torch.cat([aggregated, self._judge("ld", self._distribute(x, local, collect), stages)], dim=1)

    def _judge(self, stage: str, x: Tensor, stages: Collect) -> Tensor:
        """`x`, after the stage's own head has put its scores into `stages`."""
        if stages is not None and self.stage_heads is not None and stage in self.stage_heads:
            stages[stage] = self.stage_heads[stage](x.detach())
        return x

    def _aggregate(self, x: Tensor, collect: Collect) -> Tensor:
        block, size = self.aggregate, None
        if isinstance(block, HalfResolution):
            block, size = block.block, block.halved(x.shape[2], x.shape[3])
        if hasattr(block, "attention"):
            _collect_weights(collect, "aggregate", self.aggregate, x, size)
        return self.aggregate(x)

    def _distribute(self, x: Tensor, local: Tensor | None, collect: Collect) -> Tensor:
        if self.distribute is None:
            return x
        if isinstance(self.distribute, LDv2):
            if collect is not None:
                collect["distribute"] = self.distribute.attention(x, local)
            return self.distribute(x, local)
        if collect is not None:
            collect["mask"] = self.distribute.mask(x)
        return self.distribute(x)


def _collect_weights(
    collect: Collect, name: str, block: nn.Module, x: Tensor, size: tuple[int, int] | None = None
) -> None:
    """Put the weights of `block`, which attends in a map of `size` (by default that of `x`), into `collect`."""
    if collect is not None and hasattr(block, "attention"):
        positions = _positions(collect, x, size or x.shape[-2:])
        collect[name] = block.attention(x, positions)  # type: ignore[operator]


def _positions(collect: Collect, x: Tensor, size: Sequence[int]) -> Tensor | None:
    """The flat position `[1]` that is asked for in a map of `size` (height, width); None for all of them."""
    if not isinstance(collect, AtPixel):
        return None
    row, column = collect.cell(size[0], size[1])
    return torch.tensor([row * size[1] + column], device=x.device)
