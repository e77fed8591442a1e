"""DANet's two attentions of a map to itself: over its positions and over its channels (Fu et al., CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.attention import full_attention
from nonlocalseg.blocks.basic import Scale


class PositionAttention(nn.Module):
    """x + alpha sum_i softmax_i(B_i . C_j) D_i at every position j (Eq. 1, 2), B, C and D 1x1 convolutions of x.

    `[B, C, H, W]` to the same, without the N x N matrix; alpha is learnt and starts at 0.
    """

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (embed(x).flatten(2) for embed in (self.query, self.key, self.value))
        context = self.gamma(full_attention(query, key, value, 1.0)).unflatten(2, x.shape[-2:])
        return x + context  # in the memory layout of x, which a convolution reads next

    def attended(self, x: Tensor) -> Attended:
        """The weights of all positions."""

        def weights(positions: Tensor | None) -> Tensor:
            query, key = self.query(x).flatten(2), self.key(x).flatten(2)
            query = query if positions is None else query.index_select(2, positions)
            return (query.transpose(1, 2) @ key).softmax(2)

        return Attended.of_regions(weights, x, x, None)


class ChannelAttention(nn.Module):
    """x + beta sum_i softmax_i(max - A_i . A_j) A_i for every channel j (Eq. 3, 4), as the authors' code has the sign.

    `[B, C, H, W]` to the same: (I + beta S) x with the C x C matrix S, in one product. beta starts at 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = Scale()

    def forward(self, x: Tensor) -> Tensor:
        points = x.flatten(2)
        weights = (-(points @ points.transpose(1, 2))).softmax(2)  # softmax takes the maximum off by itself
        return torch.baddbmm(points, self.gamma(weights), points).unflatten(2, x.shape[-2:])
