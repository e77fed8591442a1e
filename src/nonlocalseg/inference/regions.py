"""Regions of a large image that gather alone (`View.regional`): where they lie, and how they are blended."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nonlocalseg.blocks.tiles import Span
from nonlocalseg.inference.ledger import EXACT


def regions_of(side: int, length: int, step: int) -> tuple[Span, ...]:
    """Spans of that length, which overlap by half, from multiples of `step`; the last one ends with the side."""
    length = -(-length // step) * step
    if side <= length:
        return ((0, side),)
    last = -(-(side - length) // step) * step
    starts = [*range(0, last, max(step, length // 2 // step * step)), last]
    return tuple((start, min(start + length, side)) for start in starts)


def shares_of(span: Span, spans: Iterable[Span], window: Span) -> Tensor:
    """The share of one of the spans in each position of a window, float64: by the distance to its nearer end."""
    place = torch.arange(*window, dtype=EXACT) + 0.5

    def weight(span: Span) -> Tensor:
        return torch.minimum(place - span[0], span[1] - place).clamp(min=0)

    return weight(span) / torch.stack([weight(one) for one in spans]).sum(0)
