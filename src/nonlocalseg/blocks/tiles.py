"""A map seen in tiles: where a tile lies, statistics of the whole map that add up over tiles, resizing in its coordinates.

Every block that looks at all positions takes the map in two steps: what it gathers (a statistic that adds up over any
parts of the map) and what it does with the total. Seen whole, the total is what was gathered; seen in tiles, the ledger
of a pass adds up what the tiles gather before any of them goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

Span = tuple[int, int]  # first cell, one past the last


class Statistics:
    """Tensors of a map that can be found part by part."""

    def __init__(self, *parts: Tensor) -> None:
        self.parts = parts

    def merged(self, other: Self) -> Self:
        """Those of two parts of a map together."""
        raise NotImplementedError

    def to(self, dtype: torch.dtype) -> Self:
        return type(self)(*(part.to(dtype) for part in self.parts))


class Sums(Statistics):
    """Sums over positions, or means with the whole map's weights."""

    def merged(self, other: Self) -> Self:
        return type(self)(*(one + two for one, two in zip(self.parts, other.parts, strict=True)))


class Maxima(Statistics):
    """The largest over positions."""

    def merged(self, other: Self) -> Self:
        return type(self)(*(torch.maximum(one, two) for one, two in zip(self.parts, other.parts, strict=True)))


class SoftSums(Statistics):
    """Sums under a softmax over positions: the highest logit `[B, K, 1]`, the sum of exp(logit - highest), and the
    values `[B, K, C]` summed with these weights, as in attention that never holds a row."""

    @classmethod
    def over(cls, logits: Tensor, values: Tensor) -> SoftSums:
        """Of logits `[B, K, N]` and values `[B, C, N]`."""
        peak = logits.amax(2, keepdim=True)
        weights = (logits - peak).exp()
        return cls(peak, weights.sum(2, keepdim=True), weights.to(values.dtype) @ values.transpose(1, 2))

    def merged(self, other: Self) -> Self:
        peak = torch.maximum(self.parts[0], other.parts[0])
        mine, theirs = ((one.parts[0] - peak).exp() for one in (self, other))
        pairs = zip(self.parts[1:], other.parts[1:], strict=True)
        return type(self)(peak, *(mine * one + theirs * two for one, two in pairs))

    @property
    def mean(self) -> Tensor:
        """`[B, K, C]`."""
        _, weight, sums = self.parts
        return sums / weight.to(sums.dtype)


S = TypeVar("S", bound=Statistics)


class Ledger(Protocol):
    """Who adds up what the tiles of a map gather."""

    def total(self, gather: Callable[[], S], empty: bool = False) -> S:
        """The total of what all tiles gather. empty: this one has nothing of its own to add."""
        ...


@dataclass(frozen=True)
class Tile:
    """Where a tile lies in its map, in cells of the map.

    whole: height and width of the map. origin: first row and column of the tile. size: its height and width. core: rows
    and columns that are its own; every cell of the map is in one core. region: rows and columns over which blocks
    gather: all, or one of several regions. stride: pixels of the image to a cell.
    """

    whole: tuple[int, int]
    origin: tuple[int, int]
    size: tuple[int, int]
    core: tuple[Span, Span]
    region: tuple[Span, Span]
    stride: int
    ledger: Ledger

    @property
    def count(self) -> int:
        """The cells over which blocks gather."""
        (top, bottom), (left, right) = self.region
        return (bottom - top) * (right - left)

    def own(self, x: Tensor) -> Tensor:
        """The tile's core of `[..., H, W]`."""
        (top, bottom), (left, right) = self.core
        return x[..., top - self.origin[0] : bottom - self.origin[0], left - self.origin[1] : right - self.origin[1]]

    def through(self, conv: nn.Conv2d) -> Tile:
        """The tile behind a convolution; it begins at a multiple of the convolution's stride."""
        step, pad, reach = conv.stride[0], int(conv.padding[0]), conv.dilation[0] * (conv.kernel_size[0] - 1)
        whole, size = (
            tuple((side + 2 * pad - reach - 1) // step + 1 for side in sides) for sides in (self.whole, self.size)
        )

        def moved(spans: tuple[Span, Span]) -> tuple[Span, Span]:
            ends = zip(spans, self.whole, whole, strict=True)
            first, second = (
                (min(start // step, new), new if end == old else min(-(-end // step), new))
                for (start, end), old, new in ends
            )
            return first, second

        return replace(
            self,
            whole=whole,
            origin=(self.origin[0] // step, self.origin[1] // step),
            size=size,
            core=moved(self.core),
            region=moved(self.region),
            stride=self.stride * step,
        )

    def shrunk(self, ratio: int) -> Tile:
        """The tile of a map that is 1/`ratio` of the size, rounded up, whose cells end where they may: all that touch it."""
        whole = tuple(-(-side // ratio) for side in self.whole)
        edges = zip(self.origin, self.size, self.whole, whole, strict=True)
        spans = [(start * new // old, -(-(start + size) * new // old)) for start, size, old, new in edges]
        first, second = ((start, end - start) for start, end in spans)
        return replace(
            self,
            whole=whole,
            origin=(first[0], second[0]),
            size=(first[1], second[1]),
            stride=self.stride * ratio,
        )


Tiles = Mapping[int, Tile]
"""The tiles of the backbone's stages; none where they are whole."""
WHOLE: Tiles = {}


def total(tile: Tile | None, gather: Callable[[], S]) -> S:
    """What the whole map (of the tile, where there is one) gathers; statistics are taken of tiles' cores."""
    if tile is None:
        return gather()
    return tile.ledger.total(gather, any(start >= end for start, end in tile.core))


def mean_of(x: Tensor, tile: Tile | None) -> Tensor:
    """The mean over all positions, `[B, C, H, W] -> [B, C, 1, 1]`."""
    if tile is None:
        return x.mean(dim=(2, 3), keepdim=True)
    count = tile.count
    return total(tile, lambda: Sums(tile.own(x).sum(dim=(2, 3), keepdim=True) / count)).parts[0]


def group_normalised(norm: nn.GroupNorm, x: Tensor, tile: Tile | None) -> Tensor:
    """Group norm over all positions: two totals where the map is seen in tiles, mean and then variance."""
    if tile is None:
        return norm(x)
    count = tile.count * x.shape[1] // norm.num_groups

    def summed(values: Tensor) -> Sums:
        return Sums(tile.own(values).flatten(1).unflatten(1, (norm.num_groups, -1)).sum(2))

    def spread(values: Tensor) -> Tensor:
        return values.repeat_interleave(x.shape[1] // norm.num_groups, dim=1)[:, :, None, None]

    centred = x - spread(total(tile, lambda: summed(x)).parts[0] / count)
    variance = total(tile, lambda: summed(centred.square())).parts[0] / count
    return centred * spread((variance + norm.eps).rsqrt()) * norm.weight[:, None, None] + norm.bias[:, None, None]


def resampled(x: Tensor, source: Tile | None, target: Tile, align_corners: bool) -> Tensor:
    """A tile, resized bilinearly as its whole map would be to the whole map of `target`. `source=None` is a map of the
    region over which blocks gather, such as pooled cells."""
    if has_torch_function_unary(x):  # so that who follows the layers knows what is resized to what
        return handle_torch_function(resampled, (x,), x, source, target, align_corners)
    if source is not None and source.whole == target.whole:
        return x
    starts = (0, 0) if source is not None else (target.region[0][0], target.region[1][0])
    lengths = target.whole if source is not None else tuple(end - start for start, end in target.region)
    rows, columns = (
        (first - start, first - start + side)
        for first, start, side in zip(target.origin, starts, target.size, strict=True)
    )
    whole, origin = ((x.shape[2], x.shape[3]), (0, 0)) if source is None else (source.whole, source.origin)
    return resample(x, origin, whole, (rows, columns), (lengths[0], lengths[1]), align_corners)


def resample(
    x: Tensor,
    origin: tuple[int, int],
    whole: tuple[int, int],
    window: tuple[Span, Span],
    target: tuple[int, int],
    align_corners: bool,
) -> Tensor:
    """A window of what bilinear resizing makes of a map, from a part of the map.

    Args:
        x: [B, C, h, w], the part of a map of size `whole` that begins at `origin`.
        window: rows and columns of the map resized to `target`; the part must hold the cells between which they lie.

    Returns [B, C, rows, columns].
    """
    for axis in (0, 1):
        first, second, share = _between(window[axis], whole[axis], target[axis], align_corners, x)
        last = x.shape[2 + axis] - 1
        first, second = ((cells - origin[axis]).clamp(0, last) for cells in (first, second))
        share = share[:, None] if axis == 0 else share
        x = torch.lerp(x.index_select(2 + axis, first), x.index_select(2 + axis, second), share)
    return x


def _between(span: Span, length: int, target: int, align_corners: bool, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each position of the span the two cells of `length` that it lies between, and the share of the second; in the
    precision of torch's own resizing, so that the shares round alike."""
    exact = torch.promote_types(like.dtype, torch.float32)
    place = torch.arange(*span, device=like.device).to(exact)
    one = torch.ones((), dtype=exact, device=like.device)
    if align_corners:
        place = place * (one * (length - 1) / max(target - 1, 1))
    else:
        place = (one * length / target) * (place + 0.5) - 0.5
    place = place.clamp(0, length - 1)
    first = place.floor()
    return first.long(), (first.long() + 1).clamp(max=length - 1), (place - first).to(like.dtype)


def averaged(x: Tensor, tile: Tile, target: Tile) -> Tensor:
    """A tile's averages over the cells of a smaller map, which is `target`, as adaptive pooling of the whole map."""
    for axis in (0, 1):
        cells = torch.arange(target.origin[axis], target.origin[axis] + target.size[axis], device=x.device)
        old, new = tile.whole[axis], target.whole[axis]
        start, end = cells * old // new, ((cells + 1) * old + new - 1) // new
        place = torch.arange(tile.origin[axis], tile.origin[axis] + tile.size[axis], device=x.device)
        inside = (place >= start[:, None]) & (place < end[:, None])
        weights = inside.to(x.dtype) / (end - start)[:, None].to(x.dtype)
        x = weights @ x if axis == 0 else x @ weights.T
    return x
