"""GCNet's global context block: one context for all positions, added to or multiplied with the map (Cao et al., 2019)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended, positions_of
from nonlocalseg.blocks.tiles import SoftSums, Tile, mean_of, total

Fusion = Literal["channel_add", "channel_mul"]


class GlobalContext(nn.Module):
    """x + W_2 ReLU(LN(W_1 sum_j softmax_j(W_k x_j) x_j)): `[B, C, H, W]` to the same (Fig. 4d).

    `pooling` "att" weighs the positions as above, "avg" takes their mean. `fusions` "channel_add" is the equation,
    "channel_mul" multiplies with the sigmoid of its right side instead (first, where both are given). `hidden` are the
    channels between W_1 and W_2; W_2 starts at zero.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        pooling: Literal["att", "avg"] = "att",
        fusions: tuple[Fusion, ...] = ("channel_add",),
    ) -> None:
        super().__init__()
        self.mask = nn.Conv2d(channels, 1, 1) if pooling == "att" else None
        self.add = _transform(channels, hidden) if "channel_add" in fusions else None
        self.multiply = _transform(channels, hidden) if "channel_mul" in fusions else None

    def weights(self, x: Tensor) -> Tensor:
        """What each position counts, `[B, N]`, the same for all that ask."""
        if self.mask is None:
            count = x.shape[2] * x.shape[3]
            return x.new_full((x.shape[0], count), 1 / count)
        return self.mask(x).flatten(1).softmax(1)

    def gather(self, x: Tensor, tile: Tile | None = None) -> SoftSums:
        """The positions of the map, or of the tile's core, under the softmax of W_k x."""
        assert self.mask is not None
        x = x if tile is None else tile.own(x)
        return SoftSums.over(self.mask(x).flatten(2), x.flatten(2))

    def context(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        """`[B, C, 1, 1]`."""
        if self.mask is None:
            return mean_of(x, tile)
        return total(tile, lambda: self.gather(x, tile)).mean.transpose(1, 2)[..., None]

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        context = self.context(x, tile)
        if self.multiply is not None:
            x = x * self.multiply(context).sigmoid()
        return x if self.add is None else x + self.add(context)

    def attended(self, x: Tensor) -> Attended:
        """The weights of all positions, alike for each that asks."""
        size = (x.shape[2], x.shape[3])
        count = size[0] * size[1]

        def weights(positions: Tensor | None) -> Tensor:
            return self.weights(x)[:, None].expand(-1, count if positions is None else len(positions), -1)

        cells = positions_of(*size)
        return Attended(weights, size, size, lambda position: cells, lambda: torch.zeros(count, dtype=torch.int64))


def _transform(channels: int, hidden: int) -> nn.Sequential:
    last = nn.Conv2d(hidden, channels, 1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), last)
