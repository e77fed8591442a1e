"""The two graphs of DGCNet: over positions of a smaller map, and over projected features (Zhang et al., BMVC 2019).

Details are those of the authors' code (lxtGH/GALD-DGCNet): the softmax of the coordinate graph is taken over the product
of query and value, so that no N x N matrix exists, and its result scales the map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct, resize
from nonlocalseg.blocks.tiles import Sums, Tile, total


class CoordinateGraph(nn.Module):
    """The graph over positions: relu(W_o W_g(softmax(Q V^T)^T K) + X), `[B, C, H, W]` to the same.

    Q, V and K are C/2 channels wide, so the softmax is a C/2 x C/2 matrix. W_g's convolution is composed with it, so
    that one product goes over the positions and not two.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 2
        self.query, self.key, self.value = (nn.Conv2d(channels, width, 1) for _ in range(3))
        self.update = ConvNormAct(width, width, bias=False, act=False)
        self.out = ConvNormAct(width, channels, bias=True, act=False)

    def gather(self, x: Tensor, tile: Tile | None = None) -> Sums:
        """Q V^T `[B, C/2, C/2]`, of the tile's core."""
        x = x if tile is None else tile.own(x)
        return Sums(self.query(x).flatten(2) @ self.value(x).flatten(2).transpose(1, 2))

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        related = total(tile, lambda: self.gather(x, tile)).parts[0].softmax(2)
        key = self.key(x).flatten(2)
        conv = self.update.conv
        states = conv.weight.flatten(1) @ related.transpose(1, 2) @ key
        states = states if conv.bias is None else states + conv.bias[:, None]
        return F.relu(self.out(self.update.finish(states.unflatten(2, x.shape[-2:]))) + x)


class FeatureGraph(nn.Module):
    """The graph over features: X projected onto C/ratio nodes, related, and projected back. `[B, C, H, W]` to the same.

    Z = phi(X) theta(X)^T, then W_g((I + A) Z) with A and W_g 1x1 convolutions over nodes and over their states, and
    relu(X + W_o (Z theta(X))). W_o's convolution is applied to Z, which is small, and not to every position.
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        nodes, states = channels // ratio, 2 * (channels // ratio)
        self.states = ConvNormAct(channels, states, act=False)
        self.nodes = ConvNormAct(channels, nodes, act=False)
        self.adjacency = ConvNormAct(nodes, nodes, act=False)
        self.update = ConvNormAct(states, states, act=False)
        self.out = ConvNormAct(states, channels, act=False)

    def gather(self, x: Tensor, nodes: Tensor, tile: Tile | None = None) -> Sums:
        """phi(X) theta(X)^T `[B, states, nodes]`, of the tile's core."""
        if tile is not None:
            x, nodes = tile.own(x), tile.own(nodes)
        return Sums(self.states(x).flatten(2) @ nodes.flatten(2).transpose(1, 2))

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        nodes = self.nodes(x)
        z = total(tile, lambda: self.gather(x, nodes, tile)).parts[0]
        nodes = nodes.flatten(2)  # [B, nodes, N]
        z = z + self.adjacency(z.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        z = self.update(z[..., None])[..., 0]
        conv = self.out.conv
        y = (conv.weight.flatten(1) @ z @ nodes).unflatten(2, x.shape[-2:])
        return F.relu(x + self.out.finish(y if conv.bias is None else y + conv.bias[:, None, None]))


class DualGraph(nn.Module):
    """Both graphs on one map, joined by a 1x1 convolution with batch norm (Fig. 1). `[B, C, H, W]` to the same.

    The coordinate graph sees the map after depthwise 3x3 convolutions of stride 2, as many as make it `stride` times
    smaller; its result, resized, scales the map: X * G + X.
    """

    def __init__(self, channels: int, stride: int = 8, ratio: int = 4, align_corners: bool = False) -> None:
        super().__init__()
        if stride < 1 or stride & (stride - 1):
            raise ValueError(f"coordinate_stride must be a power of two, not {stride}")
        halvings = range(stride.bit_length() - 1)
        self.down = nn.Sequential(
            *(ConvNormAct(channels, channels, 3, stride=2, groups=channels, act=False) for _ in halvings)
        )
        self.coordinates = CoordinateGraph(channels)
        self.features = FeatureGraph(channels, ratio)
        self.join = ConvNormAct(2 * channels, channels, act=False)
        self.align_corners = align_corners

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        smaller = tile
        for step in self.down:
            assert isinstance(step, ConvNormAct)
            smaller = None if smaller is None else smaller.through(step.conv)
        graph = self.coordinates(self.down(x), smaller)
        graph = resize(graph, x.shape[-2:], self.align_corners, smaller, tile)
        return self.join.over(x * graph + x, self.features(x, tile))
