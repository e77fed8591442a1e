"""Object-contextual representations: one vector for each class of an image, and what each pixel takes from them (Yuan et
al., ECCV 2020, Eq. 3-6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.tiles import SoftSums, Tile, total


def represent(x: Tensor, scores: Tensor, tile: Tile | None = None) -> Tensor:
    """The regions' representations f_k of Eq. 3: `[B, C, H, W]`, coarse scores `[B, K, H, W] -> [B, C, K]`.

    The scores of a class, by softmax over all positions, weight the positions' features.
    """
    return total(tile, lambda: gather(x, scores, tile)).mean.transpose(1, 2)


def gather(x: Tensor, scores: Tensor, tile: Tile | None = None) -> SoftSums:
    """The features under each class's softmax over positions, of the map or the tile's core; the tiles of both agree."""
    x, scores = (x, scores) if tile is None else (tile.own(x), tile.own(scores))
    exact = torch.promote_types(scores.dtype, torch.float32)
    return SoftSums.over(scores.flatten(2).to(exact), x.flatten(2))


class ObjectAttention(nn.Module):
    """What each pixel takes from the regions (Eq. 4-5): `[B, C, H, W]`, `[B, C, K] -> [B, C, H, W]`.

    y_i = rho(sum over k of w_ik delta(f_k)) with w_ik the softmax over k of E^-1/2 phi(x_i) . psi(f_k). phi and psi are
    two 1x1 convolutions each, delta and rho one, all with batch norm and ReLU.

    The weights of a pixel sum to one, so rho's convolution, with its bias, is applied to the K regions and not to
    every position.
    """

    def __init__(self, channels: int, key_channels: int = 256) -> None:
        super().__init__()
        self.query = nn.Sequential(ConvNormAct(channels, key_channels), ConvNormAct(key_channels, key_channels))
        self.key = nn.Sequential(ConvNormAct(channels, key_channels), ConvNormAct(key_channels, key_channels))
        self.value = ConvNormAct(channels, key_channels)
        self.out = ConvNormAct(key_channels, channels)
        self.scale = key_channels**-0.5

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        taken = self.out.conv(self.value(regions[..., None]))[..., 0]  # [B, C, K]
        return self.out.finish((taken @ self.weights(x, regions).flatten(2)).unflatten(2, x.shape[-2:]))

    def weights(self, x: Tensor, regions: Tensor) -> Tensor:
        """w `[B, K, H, W]`: they sum to one over the K regions."""
        keys = self.key(regions[..., None])[..., 0] * self.scale
        return (keys.transpose(1, 2) @ self.query(x).flatten(2)).softmax(1).unflatten(2, x.shape[-2:])
