"""From a feature map to a few anchors: average, max or random, one size or a pyramid (ANN, Eq. 8, Table 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.tiles import Maxima, Sums, Tile, total


class Sampling(nn.Module):
    """Samples anchors from feature maps. `sizes` n, ... give sum(n * n) anchors, each size row by row, in the order given.

    `forward(*maps)` samples every `[B, C, H, W]` of `maps` at the same positions and returns a list of `[B, C, S]`.
    `gather` takes the same of a tile, as a statistic that adds up; the anchors are its total. `linear` says that each
    anchor is an average of positions, so that sampling commutes with a 1x1 convolution.
    """

    linear = True

    def __init__(self, sizes: tuple[int, ...] = (1, 3, 6, 8)) -> None:
        super().__init__()
        if not sizes or any(size < 1 for size in sizes):
            raise ValueError(f"anchor_sizes must be positive integers, e.g. (1, 3, 6, 8), not {sizes}")
        self.sizes = tuple(int(size) for size in sizes)

    def gather(self, *maps: Tensor, tile: Tile | None = None) -> Sums | Maxima:
        """What the map, or the core of its tile, contributes to the anchors of each of `maps`."""
        raise NotImplementedError

    def forward(self, *maps: Tensor, tile: Tile | None = None) -> list[Tensor]:
        return list(total(tile, lambda: self.gather(*maps, tile=tile)).parts)

    @property
    def anchors(self) -> int:
        """The number of anchors S (Eq. 12)."""
        return sum(size * size for size in self.sizes)

    def cells(self, height: int, width: int) -> Tensor:
        """The region each anchor stands for: int64 `[S, 4]` of top, left, bottom, right (exclusive) in feature pixels."""
        boxes = []
        for size in self.sizes:
            tops, bottoms = bin_edges(size, height)
            lefts, rights = bin_edges(size, width)
            rows = torch.arange(size).repeat_interleave(size)
            columns = torch.arange(size).repeat(size)
            boxes.append(torch.stack([tops[rows], lefts[columns], bottoms[rows], rights[columns]], dim=1))
        return torch.cat(boxes)

    def extra_repr(self) -> str:
        return f"sizes={self.sizes}"


def bin_edges(size: int, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Start and (exclusive) end of the `size` bins of adaptive pooling over `length` positions; neighbours may overlap."""
    index = torch.arange(size, device=device)
    return index * length // size, ((index + 1) * length + size - 1) // size


def averaging_matrix(sizes: tuple[int, ...], length: int, like: Tensor) -> Tensor:
    """`[sum(sizes), length]`: row i averages the positions of bin i; the bins of all sizes stacked."""
    edges = [bin_edges(size, length, like.device) for size in sizes]
    start = torch.cat([pair[0] for pair in edges])[:, None]
    end = torch.cat([pair[1] for pair in edges])[:, None]
    position = torch.arange(length, device=like.device)[None]
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


def _averaging(sizes: tuple[int, ...], side: int, axis: int, like: Tensor, tile: Tile | None) -> Tensor:
    """The columns of the averaging matrix that belong to a tile's own rows (axis 0) or columns (axis 1)."""
    if tile is None:
        return averaging_matrix(sizes, side, like)
    (start, end), (first, last) = tile.region[axis], tile.core[axis]
    return averaging_matrix(sizes, end - start, like)[:, first - start : last - start]


class AverageSampling(Sampling):
    """Adaptive average pooling to every size in one pass over the map.

    The rows of all sizes are averaged by one matrix product over the width, and each size then takes its own bins over
    the height: the diagonal blocks of A_h X A_w^T. Exact at any size, also where bins outnumber positions, and it
    exports with dynamic height and width.
    """

    def gather(self, *maps: Tensor, tile: Tile | None = None) -> Sums:
        return Sums(*(self._sample(x, tile) for x in maps))

    def _sample(self, x: Tensor, tile: Tile | None) -> Tensor:
        x = x if tile is None else tile.own(x)
        batch, channels, height, width = x.shape
        over_height, over_width = (
            _averaging(self.sizes, side, axis, x, tile) for axis, side in ((0, height), (1, width))
        )
        over_height = over_height.split(self.sizes)
        if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
            rows = over_width @ x.permute(0, 2, 3, 1)  # [B, H, W, C] -> [B, H, bins, C]
            rows = rows.split(self.sizes, dim=2)
            parts = [torch.einsum("ih,bhjc->bcij", a, row).flatten(2) for a, row in zip(over_height, rows, strict=True)]
        else:
            rows = (x.reshape(-1, width) @ over_width.T).view(batch, channels, height, -1)  # [B, C, H, bins]
            rows = rows.split(self.sizes, dim=3)
            parts = [(a @ row).flatten(2) for a, row in zip(over_height, rows, strict=True)]
        return torch.cat(parts, dim=2)


class MaxSampling(Sampling):
    """Adaptive max pooling to every size; it commutes with no projection, so keys and values are sampled after theirs."""

    linear = False

    def gather(self, *maps: Tensor, tile: Tile | None = None) -> Maxima:
        if tile is not None:
            return Maxima(*(self._of_tile(x, tile) for x in maps))
        sampled = [[F.adaptive_max_pool2d(x, size).flatten(2) for size in self.sizes] for x in maps]
        return Maxima(*(torch.cat(parts, dim=2) for parts in sampled))

    def _of_tile(self, x: Tensor, tile: Tile) -> Tensor:
        """The largest of the tile's own cells in each bin; minus infinity where it has none."""
        (top, _), (left, _) = (
            (core[0] - region[0], core[1] - region[0]) for core, region in zip(tile.core, tile.region, strict=True)
        )
        x = tile.own(x)
        found = x.new_full((*x.shape[:2], self.anchors), float("-inf"))
        rows, columns = (end - start for start, end in tile.region)
        for anchor, (high, low_left, low, right) in enumerate(self.cells(rows, columns).tolist()):
            part = x[..., max(high - top, 0) : max(low - top, 0), max(low_left - left, 0) : max(right - left, 0)]
            if part.numel():
                found[..., anchor] = part.amax((2, 3))
        return found


class RandomSampling(Sampling):
    """n * n positions for every size, drawn anew at each training pass and shared by all maps of a call.

    Positions are drawn without replacement, with replacement where n * n exceeds their number (the paper: numpy's
    `choice`). Evaluation uses one fixed draw per map size, so that it is repeatable.
    """

    def gather(self, *maps: Tensor, tile: Tile | None = None) -> Sums:
        height, width = maps[0].shape[-2:]
        if any(x.shape[-2:] != maps[0].shape[-2:] for x in maps):
            raise ValueError("random sampling shares one draw: all maps of a call must have the same height and width")
        if tile is not None:
            return Sums(*(self._of_tile(x, tile) for x in maps))
        positions = self.positions(height, width, maps[0].device)
        return Sums(*(x.flatten(2).index_select(2, positions) for x in maps))

    def _of_tile(self, x: Tensor, tile: Tile) -> Tensor:
        """The positions of the draw that are the tile's own; zeros for the others."""
        (top, bottom), (left, right) = tile.region
        drawn = self.positions(bottom - top, right - left, x.device)
        rows = drawn // (right - left) + top - tile.core[0][0]
        columns = drawn % (right - left) + left - tile.core[1][0]
        x = tile.own(x)
        inside = (rows >= 0) & (rows < x.shape[2]) & (columns >= 0) & (columns < x.shape[3])
        if not x.shape[2] * x.shape[3]:
            return x.new_zeros(*x.shape[:2], len(drawn))
        flat = torch.where(inside, rows * x.shape[3] + columns, 0)
        return x.flatten(2).index_select(2, flat) * inside

    def positions(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """Flat positions int64 `[S]`: a fresh draw in training, the fixed one in evaluation."""
        count = height * width
        draws = []
        for size in self.sizes:
            wanted = size * size
            if wanted > count and self.training:
                draws.append(torch.randint(count, (wanted,), device=device))
            elif wanted > count:
                draws.append(_scrambled(wanted, size, device) % count)
            else:
                key = torch.rand(count, device=device) if self.training else _scrambled(count, size, device)
                draws.append(key.argsort()[:wanted])
        return torch.cat(draws)

    def cells(self, height: int, width: int) -> Tensor:
        positions = self.positions(height, width)
        top, left = positions // width, positions % width
        return torch.stack([top, left, top + 1, left + 1], dim=1)


def _scrambled(count: int, seed: int, device: torch.device | None) -> Tensor:
    """Distinct-looking int64 numbers below 2^32, the same on every device: an integer hash of 0 .. count - 1."""
    value = (torch.arange(count, device=device) + 1 + seed * 7919) * 2654435761 & 0xFFFFFFFF
    for shift in (16, 13):
        value = (value ^ (value >> shift)) * 73244475 & 0xFFFFFFFF
    return value ^ (value >> 16)
