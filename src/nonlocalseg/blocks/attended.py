"""What a block attends to, with its geometry: which cells of which map belong to the weights of a position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nonlocalseg.blocks.sampling import Sampling


@dataclass(frozen=True, eq=False)
class Attended:
    """The weights that the positions of one map give to cells of another (or of the same) map.

    weights: flat positions int64 [P] of the asking map -> [B, P, S]; None for all of them, [B, N, S].
    queries: height and width of the map whose positions ask. keys: of the map in which the cells lie.
    cells: flat position -> int64 [S, 4], top, left, bottom, right (exclusive) in the map of `keys`.
    levels: -> int64 [S], n for a cell of an n x n sampling, 0 for a single position.
    neighbours: the cells are the k x k ones around the position, row by row; they may lie outside the map.
    """

    weights: Callable[[Tensor | None], Tensor]
    queries: tuple[int, int]
    keys: tuple[int, int]
    cells: Callable[[int], Tensor]
    levels: Callable[[], Tensor]
    neighbours: bool = False

    @classmethod
    def of_regions(
        cls, weights: Callable[[Tensor | None], Tensor], high: Tensor, low: Tensor, sampling: Sampling | None
    ) -> Attended:
        """Of a map `[B, C, H, W]` over the anchors that `sampling` takes from `low`; None for all its positions."""
        keys = (low.shape[-2], low.shape[-1])
        return cls(
            weights,
            (high.shape[-2], high.shape[-1]),
            keys,
            lambda position: positions_of(*keys) if sampling is None else sampling.cells(*keys),
            lambda: torch.zeros(keys[0] * keys[1], dtype=torch.int64) if sampling is None else _levels(sampling),
        )

    @classmethod
    def of_neighbours(
        cls, weights: Callable[[Tensor | None], Tensor], size: tuple[int, int], kernel_size: int, dilation: int
    ) -> Attended:
        """Of a map of `size` over the `kernel_size`^2 dilated neighbours of each position."""
        offsets = (torch.arange(kernel_size) - kernel_size // 2) * dilation

        def cells(position: int) -> Tensor:
            rows, columns = torch.meshgrid(position // size[1] + offsets, position % size[1] + offsets, indexing="ij")
            return torch.stack([rows, columns, rows + 1, columns + 1], dim=-1).reshape(-1, 4)

        return cls(weights, size, size, cells, lambda: torch.zeros(kernel_size**2, dtype=torch.int64), neighbours=True)


def positions_of(height: int, width: int) -> Tensor:
    """Every single position of a map as a cell: int64 `[H W, 4]`."""
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    return torch.stack([rows, columns, rows + 1, columns + 1], dim=1)


def _levels(sampling: Sampling) -> Tensor:
    return torch.cat([torch.full((size * size,), size) for size in sampling.sizes])
