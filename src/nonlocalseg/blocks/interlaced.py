"""Interlaced sparse self-attention: among positions far apart, then among neighbours (ISANet; Huang et al., 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.joining import same_size

Grid = tuple[int, int, int, int]  # rows and columns of windows, height and width of a window


class GroupAttention(nn.Module):
    """Attention within groups of positions: output(softmax(E^-1/2 query key^T) value), E `key_channels` (Eq. 2-4).

    Query and key are two 1x1 convolutions with norm and ReLU each, value is one without. All of them see the whole
    map; only their results are laid out in groups.
    """

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.query, self.key = (
            nn.Sequential(ConvNormAct(channels, key_channels), ConvNormAct(key_channels, key_channels))
            for _ in range(2)
        )
        self.value = nn.Conv2d(channels, channels, 1)
        self.output = ConvNormAct(channels, channels)
        self.scale = key_channels**-0.5

    def forward(self, x: Tensor, grid: Grid, far: bool) -> Tensor:
        query, key = (_grouped(embed(x), grid, far) for embed in (self.query, self.key))
        groups = query.shape[:3]
        query, key = query.flatten(0, 2), key.flatten(0, 2)
        weights = torch.bmm(query, (key * self.scale).transpose(1, 2)).softmax(2)
        del query, key
        value = _grouped(self.value(x), grid, far).flatten(0, 2)
        taken = torch.bmm(weights, value).unflatten(0, groups)
        del weights, value
        taken = _whole(taken, grid, far)
        return self.output(taken)

    def weights(self, x: Tensor, grid: Grid, far: bool, positions: Tensor) -> Tensor:
        """Of flat positions of the padded map over the positions of their groups: `[B, P, S]`."""
        query, key = self.query(x), _grouped(self.key(x), grid, far)
        rows, columns = positions // x.shape[3], positions % x.shape[3]
        _, _, high, wide = grid
        group = (rows % high, columns % wide) if far else (rows // high, columns // wide)
        asked = query.flatten(2).index_select(2, positions).transpose(1, 2)[:, :, None]  # [B, P, 1, E]
        return (asked @ (key[:, group[0], group[1]] * self.scale).transpose(2, 3))[:, :, 0].softmax(2)


class InterlacedAttention(nn.Module):
    """`GroupAttention` among the positions that stand at the same place of every window, then within windows (Fig. 3).

    `[B, C, H, W]` to the same. `window` is the height and width of the windows; a map that they do not divide is
    padded with zeros around, which take part, as in the public codes.
    """

    def __init__(self, channels: int, key_channels: int, window: tuple[int, int] = (8, 8)) -> None:
        super().__init__()
        self.far, self.near = GroupAttention(channels, key_channels), GroupAttention(channels, key_channels)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        # With the channels last, groups are copied in pieces of one position, and 1x1 convolutions are products.
        padded, grid, (top, left) = self._padded(x.contiguous(memory_format=torch.channels_last))
        further = self.far(padded, grid, True)
        del padded
        out = self.near(further, grid, False).contiguous(memory_format=torch.contiguous_format)
        del further
        if same_size(out, x.shape[2:]):
            return out
        rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
        return out.index_select(2, rows + top).index_select(3, columns + left)  # a slice would export one size only

    def _padded(self, x: Tensor) -> tuple[Tensor, Grid, tuple[int, int]]:
        """The map with its windows whole, how many there are, and where the map begins."""
        (height, width), (high, wide) = (x.shape[2], x.shape[3]), self.window
        rows, columns = (height + high - 1) // high, (width + wide - 1) // wide  # ONNX rounds what is negative to zero
        if same_size(x, (rows * high, columns * wide)):
            return x, (rows, columns, high, wide), (0, 0)
        more, wider = rows * high - height, columns * wide - width
        edges = (wider // 2, wider - wider // 2, more // 2, more - more // 2)
        return F.pad(x, edges), (rows, columns, high, wide), (more // 2, wider // 2)

    def attended(self, x: Tensor) -> tuple[Attended, Attended]:
        """What each position attends to far away, and then in its window."""
        padded, grid, start = self._padded(x)
        further = self.far(padded, grid, True)
        return self._told(x, padded, grid, start, True), self._told(x, further, grid, start, False)

    def _told(self, x: Tensor, padded: Tensor, grid: Grid, start: tuple[int, int], far: bool) -> Attended:
        height, width = x.shape[2], x.shape[3]
        rows, columns, high, wide = grid
        block, (top, left) = self.far if far else self.near, start

        def weights(positions: Tensor | None) -> Tensor:
            asked = torch.arange(height * width, device=x.device) if positions is None else positions
            inside = (asked // width + top) * padded.shape[3] + asked % width + left
            return block.weights(padded, grid, far, inside)

        def cells(position: int) -> Tensor:
            row, column = position // width + top, position % width + left
            if far:
                down, across = torch.arange(rows) * high + row % high, torch.arange(columns) * wide + column % wide
            else:
                down, across = torch.arange(high) + row // high * high, torch.arange(wide) + column // wide * wide
            tops, lefts = torch.meshgrid(down - top, across - left, indexing="ij")
            corners = [tops, lefts, tops + 1, lefts + 1]
            limits = [height, width, height, width]  # a cell of the padding has no area
            clipped = [corner.clamp(0, limit) for corner, limit in zip(corners, limits, strict=True)]
            return torch.stack(clipped, dim=-1).reshape(-1, 4)

        count = rows * columns if far else high * wide
        return Attended(weights, (height, width), (height, width), cells, lambda: torch.zeros(count, dtype=torch.int64))


def _grouped(x: Tensor, grid: Grid, far: bool) -> Tensor:
    """`[B, C, rows high, columns wide]` -> `[B, high, wide, rows columns, C]`, or `[B, rows, columns, high wide, C]`."""
    rows, columns, high, wide = grid
    split = x.unflatten(3, (columns, wide)).unflatten(2, (rows, high))  # [B, C, rows, high, columns, wide]
    order = (0, 3, 5, 2, 4, 1) if far else (0, 2, 4, 3, 5, 1)
    return split.permute(order).clone(memory_format=torch.contiguous_format).flatten(3, 4)


def _whole(groups: Tensor, grid: Grid, far: bool) -> Tensor:
    """The inverse of `_grouped`, in channels_last."""
    rows, columns, high, wide = grid
    split = groups.unflatten(3, (rows, columns) if far else (high, wide))
    order = (0, 3, 1, 4, 2, 5) if far else (0, 1, 3, 2, 4, 5)
    last = split.permute(order).clone(memory_format=torch.contiguous_format).flatten(3, 4).flatten(1, 2)
    return last.permute(0, 3, 1, 2)
