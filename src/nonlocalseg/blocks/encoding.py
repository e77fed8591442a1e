"""EncNet's context encoding: a map's residuals to learnt codewords, and the channels that they let through (CVPR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.tiles import Sums, Tile, total


class Codes(nn.Module):
    """e_k = sum_i a_ik (x_i - d_k) with a_i = softmax_k(s_k |x_i - d_k|^2): `[B, C, H, W] -> [B, K, C]` (Eq. 1, 2).

    Both sums are expanded, so that the N x K x C residuals never exist. s_k is learnt and starts in -1..0; the paper
    writes its negative.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        bound = (count * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(count, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(count).uniform_(-1, 0))

    def assignment(self, x: Tensor) -> Tensor:
        """a_ik: `[B, K, N]`, sum over K one."""
        x, codes = x.flatten(2), self.codewords
        distance = x.square().sum(1, keepdim=True) - 2 * codes @ x + codes.square().sum(1)[:, None]
        return (self.scale[:, None] * distance).softmax(1)

    def gather(self, x: Tensor, tile: Tile | None = None) -> Sums:
        """sum_i a_ik x_i `[B, K, C]` and sum_i a_ik `[B, K, 1]`, of the tile's core."""
        x = x if tile is None else tile.own(x)
        weights = self.assignment(x)
        return Sums(weights @ x.flatten(2).transpose(1, 2), weights.sum(2, keepdim=True))

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        sums, weights = total(tile, lambda: self.gather(x, tile)).parts
        return sums - weights * self.codewords


class ContextEncoding(nn.Module):
    """ReLU(x + g x) with the gates g = sigmoid(W e) of the encoded context e (section 3.1). `[B, C, H, W]` to the same.

    e is the mean over codewords of ReLU(BN(e_k)), with a batch norm channel for each codeword, as in the public codes.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.project = ConvNormAct(channels, channels)
        self.codes = Codes(channels, count)
        self.norm = nn.BatchNorm1d(count)
        self.gate = nn.Linear(channels, channels)

    def encode(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        """e: `[B, C]`."""
        return self.norm(self.codes(self.project(x), tile)).relu().mean(1)

    def forward(self, x: Tensor, tile: Tile | None = None) -> tuple[Tensor, Tensor]:
        """The gated map, and e."""
        encoded = self.encode(x, tile)
        gates = self.gate(encoded).sigmoid()[:, :, None, None]
        return (x * (1 + gates)).relu(), encoded
