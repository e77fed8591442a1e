"""Contexts made for each image: APCNet's weighted cells (He et al., CVPR 2019), DMNet's filters (He et al., ICCV 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import BatchNorm2d, ConvNormAct
from nonlocalseg.blocks.sampling import AverageSampling
from nonlocalseg.blocks.tiles import Tile, mean_of


class AdaptiveContext(nn.Module):
    """APCNet's adaptive context module of one scale. `[B, C, H, W]`, `[B, C, s^2] -> [B, channels, H, W]`.

    The map and its averages over s x s cells are reduced, giving X and Y. Each position weights the cells by
    sigmoid(W_a (X + info(mean of X))), and what it collects from Y passes `residual`, is added to X and rectified.
    `fusion` is one more convolution. The weights of a position lie in (0, 1) and do not sum to one.

    `residual`'s convolution is linear, so it is applied to the few cells instead of to every position.
    """

    def __init__(self, in_channels: int, channels: int, size: int, fusion: bool = True) -> None:
        super().__init__()
        self.size = size
        self.reduce = ConvNormAct(in_channels, channels)
        self.reduce_cells = ConvNormAct(in_channels, channels)
        self.info = ConvNormAct(channels, channels)
        self.affinity = nn.Conv2d(channels, size * size, 1)
        self.residual = ConvNormAct(channels, channels)
        self.fusion = ConvNormAct(channels, channels) if fusion else nn.Identity()

    def forward(self, x: Tensor, cells: Tensor, tile: Tile | None = None) -> Tensor:
        x = self.reduce(x)
        few = F.conv2d(self.reduce_cells(cells[..., None]), self.residual.conv.weight)[..., 0]  # [B, channels, s^2]
        context = (few @ self._weights(x, tile).flatten(2)).unflatten(2, x.shape[-2:])
        bias = self.residual.conv.bias  # folded in; weights do not sum to one, so it cannot ride on the cells
        context = self.residual.finish(context if bias is None else context + bias[:, None, None])
        return self.fusion(F.relu(context + x))

    def attended(self, x: Tensor) -> Attended:
        """The weights over the cells, as `forward` uses them; they do not sum to one."""

        def weights(positions: Tensor | None) -> Tensor:
            found = self._weights(self.reduce(x)).flatten(2)
            return (found if positions is None else found.index_select(2, positions)).transpose(1, 2)

        return Attended.of_regions(weights, x, x, AverageSampling((self.size,)))

    def _weights(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        """`[B, s^2, H, W]` from the reduced map; W_a (X + info) = W_a X + W_a info, so no second map is made."""
        info = self.info(mean_of(x, tile))
        return (self.affinity(x) + F.conv2d(info, self.affinity.weight)).sigmoid()


class DynamicFilter(nn.Module):
    """DMNet's dynamic convolutional module of one size. `[B, C, H, W]`, `[B, C, s, s] -> [B, channels, H, W]`.

    Each image's averages over s x s cells become, by a 1x1 convolution, one s x s filter per channel, with which the
    reduced map is convolved (`depthwise`); then batch norm and ReLU. `fusion` is one more convolution.
    """

    def __init__(self, in_channels: int, channels: int, fusion: bool = False) -> None:
        super().__init__()
        self.reduce = ConvNormAct(in_channels, channels)
        self.filters = nn.Conv2d(in_channels, channels, 1)
        self.norm = BatchNorm2d(channels)
        self.fusion = ConvNormAct(channels, channels) if fusion else nn.Identity()

    def forward(self, x: Tensor, cells: Tensor) -> Tensor:
        return self.fusion(F.relu(self.norm(depthwise(self.reduce(x), self.filters(cells)))))


def depthwise(x: Tensor, filters: Tensor) -> Tensor:
    """Every channel of every image with its own filter: `[B, C, H, W]`, `[B, C, s, s] -> [B, C, H, W]`, zeros outside.

    An even filter reaches one further to the left and top. Where the batch is free, in an export, it is a sum of shifted
    products: the number of a convolution's groups has to be known there.
    """
    batch, channels, height, width = x.shape
    side = filters.shape[-1]
    padded = F.pad(x, (side // 2, (side - 1) // 2) * 2)
    if isinstance(batch, int):
        one = padded.reshape(1, batch * channels, padded.shape[2], padded.shape[3])
        return F.conv2d(one, filters.reshape(-1, 1, side, side), groups=batch * channels).view(x.shape)
    out = torch.zeros_like(x)
    for row in range(side):
        for column in range(side):
            window = padded[:, :, row : row + height, column : column + width]
            out = out + window * filters[:, :, row, column, None, None]
    return out
