"""The literal equations of pyramids, adaptive contexts, object contexts and graphs: what their tests compare with.

As in `reference.py`, each function takes a block for its weights and repeats its equation step by step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.adaptive import AdaptiveContext, DynamicFilter
from nonlocalseg.blocks.aggregation import ASPP, PSP
from nonlocalseg.blocks.dense import DenseASPP, DilatedLayer
from nonlocalseg.blocks.graphs import CoordinateGraph, DualGraph, FeatureGraph
from nonlocalseg.blocks.objects import ObjectAttention


def joined(conv: nn.Conv2d, maps: Sequence[Tensor], size: Sequence[int], align_corners: bool = False) -> Tensor:
    """The convolution over the concatenation of the maps, each resized to `size`."""
    resized = [F.interpolate(x, size=list(size), mode="bilinear", align_corners=align_corners) for x in maps]
    return conv(torch.cat(resized, dim=1))


def psp(block: PSP, x: Tensor) -> Tensor:
    """PSPNet's pyramid: the map beside its average over every n x n cells, each through its convolution."""
    stages = zip(block.stages, block.pool.sizes, strict=True)
    pooled = [stage(F.adaptive_avg_pool2d(x, size)) for stage, size in stages]
    maps = [x, *pooled] if block.map_first else [*pooled, x]
    return block.bottleneck.finish(joined(block.bottleneck.conv, maps, x.shape[2:], block.align_corners))


def aspp(block: ASPP, x: Tensor) -> Tensor:
    """DeepLab's pyramid: the image average, the 1x1 and the dilated convolutions side by side."""
    image = block.image(F.adaptive_avg_pool2d(x, 1))
    maps = [image, *(branch(x) for branch in block.branches)]
    return block.bottleneck.finish(joined(block.bottleneck.conv, maps, x.shape[2:]))


def adaptive_context(block: AdaptiveContext, x: Tensor) -> Tensor:
    """APCNet, section 3.2: the affinity of every position with every cell, what is collected, then `residual`."""
    y = block.reduce_cells(F.adaptive_avg_pool2d(x, block.size)).flatten(2).transpose(1, 2)  # [B, s^2, C]
    x = block.reduce(x)
    info = block.info(F.adaptive_avg_pool2d(x, 1)).expand_as(x)
    affinity = torch.sigmoid(block.affinity(x + info)).flatten(2).transpose(1, 2)  # [B, N, s^2]
    collected = (affinity @ y).transpose(1, 2).reshape(x.shape)
    return block.fusion(F.relu(block.residual(collected) + x))


def dynamic_filter(block: DynamicFilter, x: Tensor, size: int) -> Tensor:
    """DMNet, Eq. 3-4: image by image and channel by channel, the filter of that channel slid over it."""
    filters = block.filters(F.adaptive_avg_pool2d(x, size))
    padded = F.pad(block.reduce(x), (size // 2, (size - 1) // 2) * 2)
    images = [
        torch.stack([F.conv2d(one[None], kernel[None, None])[0] for one, kernel in zip(image, kernels, strict=True)])
        for image, kernels in zip(padded, filters, strict=True)
    ]
    return block.fusion(F.relu(block.norm(torch.stack(images))))


def object_contexts(block: ObjectAttention, x: Tensor, scores: Tensor) -> Tensor:
    """OCRNet, Eq. 3-5: the regions' representations, the relation of each pixel to each, the object contexts."""
    regions = []
    for score in scores.unbind(1):  # one class after the other
        weight = score.flatten(1).softmax(1)
        regions.append((x.flatten(2) * weight[:, None]).sum(2))
    f = torch.stack(regions, dim=2)[..., None]  # [B, C, K, 1]
    phi, psi, delta = (part.flatten(2) for part in (block.query(x), block.key(f), block.value(f)))
    relation = (block.scale * phi.transpose(1, 2) @ psi).softmax(2)  # [B, N, K]
    return block.out((relation @ delta.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:]))


def coordinate_graph(block: CoordinateGraph, x: Tensor) -> Tensor:
    """DGCNet, section 3.2, as its code orders the products, each convolution over all positions."""
    query, key, value = (part(x).flatten(2).transpose(1, 2) for part in (block.query, block.key, block.value))
    related = (query.transpose(1, 2) @ value).softmax(2)
    states = (key @ related).transpose(1, 2)[..., None]
    return F.relu(block.out(block.update(states).view(x.shape[0], -1, *x.shape[2:])) + x)


def feature_graph(block: FeatureGraph, x: Tensor) -> Tensor:
    """DGCNet, section 3.3: projection, the graph's convolution, projection back, then W_o at every position."""
    phi, theta = block.states(x).flatten(2), block.nodes(x).flatten(2)
    z = phi @ theta.transpose(1, 2)
    related = block.adjacency(z.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    z = block.update((z + related)[..., None])[..., 0]
    return F.relu(x + block.out((z @ theta).unflatten(2, x.shape[2:])))


def dual_graph(block: DualGraph, x: Tensor) -> Tensor:
    """DGCNet, Fig. 1: the map scaled by one graph beside the other."""
    graph = coordinate_graph(block.coordinates, block.down(x))
    graph = F.interpolate(graph, size=x.shape[2:], mode="bilinear", align_corners=block.align_corners)
    return block.join(torch.cat([x * graph + x, feature_graph(block.features, x)], dim=1))


def dense_aspp(block: DenseASPP, x: Tensor) -> Tensor:
    """DenseASPP, Eq. 3, layer by layer with every intermediate; in evaluation."""
    maps = [F.relu(x)]
    for layer in block.layers:
        assert isinstance(layer, DilatedLayer)
        seen = F.relu(layer.norm(torch.cat(maps[::-1], dim=1)))
        narrow = F.relu(layer.reduce.norm(layer.reduce.conv(seen)))
        maps.append(layer.conv(narrow))
    return torch.cat(maps[::-1], dim=1)
