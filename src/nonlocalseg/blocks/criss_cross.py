"""CCNet's criss-cross attention: every position attends to its row and its column (Huang et al., ICCV 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import Scale


class CrissCross(nn.Module):
    """x + gamma sum_i A_iu V_iu over the H + W - 1 positions i of u's row and column (Eq. 1, 2); gamma starts at 0.

    `[B, C, H, W]` to the same; A is the softmax of the products of query and key over the criss-cross path. Products
    within rows and columns only: `[B, H, W, H + W]` weights, in which u's own place in its column is left out.
    """

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        weights = self._weights(x)
        # The channels last: so the map is a batch of rows, and of columns, without a copy.
        value = F.linear(x.flatten(2).transpose(1, 2), self.value.weight.flatten(1), self.value.bias)
        value = value.unflatten(1, (height, width))  # [B, H, W, C]
        column, row = weights[..., :height], weights[..., height:]
        context = row @ value
        context.add_((column.transpose(1, 2) @ value.transpose(1, 2)).transpose(1, 2))
        return torch.addcmul(x, self.gamma.scale, context.permute(0, 3, 1, 2))  # in the memory layout of x

    def _weights(self, x: Tensor) -> Tensor:
        """`[B, H, W, H + W]`: over the column, then over the row."""
        query, key = self.query(x), self.key(x)
        column = query.permute(0, 3, 2, 1) @ key.permute(0, 3, 1, 2)  # [B, W, H, H]
        own = torch.eye(x.shape[2], dtype=torch.bool, device=x.device)
        column = column.masked_fill(own, float("-inf")).transpose(1, 2)
        row = query.permute(0, 2, 3, 1) @ key.permute(0, 2, 1, 3)  # [B, H, W, W]
        return torch.cat([column, row], dim=3).softmax(3)

    def attended(self, x: Tensor) -> Attended:
        """The weights of each position's column and row; its own place counts in the row."""
        height, width = x.shape[2], x.shape[3]

        def cells(position: int) -> Tensor:
            tops = torch.cat([torch.arange(height), torch.full((width,), position // width)])
            lefts = torch.cat([torch.full((height,), position % width), torch.arange(width)])
            return torch.stack([tops, lefts, tops + 1, lefts + 1], dim=1)

        def weights(positions: Tensor | None) -> Tensor:
            found = self._weights(x).flatten(1, 2)
            return found if positions is None else found.index_select(1, positions)

        size = (height, width)
        return Attended(weights, size, size, cells, lambda: torch.zeros(height + width, dtype=torch.int64))
