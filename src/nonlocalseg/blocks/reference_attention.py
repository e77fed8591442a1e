"""The literal equations of the blocks of the compared heads, slow: what tests compare with, as `reference.py`.

Each function takes a block for its weights and repeats its equation position by position, or with the whole N x N
matrix. Nothing here is used by a model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nonlocalseg.blocks.criss_cross import CrissCross
from nonlocalseg.blocks.disentangled import DisentangledNonLocal
from nonlocalseg.blocks.dual_attention import ChannelAttention, PositionAttention
from nonlocalseg.blocks.encoding import ContextEncoding
from nonlocalseg.blocks.expectation import ExpectationMaximisation
from nonlocalseg.blocks.global_context import GlobalContext
from nonlocalseg.blocks.interlaced import InterlacedAttention
from nonlocalseg.blocks.pointwise_spatial import PointwiseSpatial


def global_context(block: GlobalContext, x: Tensor) -> Tensor:
    """GCNet, section 3.3: positions summed one by one under weights exp(W_k x_j) / sum_m exp(W_k x_m)."""
    points = x.flatten(2)
    total, context = 0.0, torch.zeros_like(x[:, :, :1, :1])
    for j in range(points.shape[2]):
        point = points[:, :, j : j + 1, None]
        share = torch.ones_like(point[:, :1]) if block.mask is None else block.mask(point).exp()
        total, context = total + share, context + share * point
    context = context / total
    if block.multiply is not None:
        x = x * block.multiply(context).sigmoid()
    return x if block.add is None else x + block.add(context)


def context_encoding(block: ContextEncoding, x: Tensor) -> Tensor:
    """EncNet, Eq. 1 and 2 over the N x K x C residuals, then the gates of its section 3.1."""
    points = block.project(x).flatten(2).transpose(1, 2)[:, :, None]  # [B, N, 1, C]
    residuals = points - block.codes.codewords  # [B, N, K, C]
    weights = (block.codes.scale * residuals.square().sum(3)).softmax(2)
    encoded = block.norm((weights[..., None] * residuals).sum(1)).relu().mean(1)
    gates = block.gate(encoded).sigmoid()[:, :, None, None]
    return (x + gates * x).relu()


def position_attention(block: PositionAttention, x: Tensor) -> Tensor:
    """DANet, Eq. 1 and 2, with the N x N matrix."""
    b, c, d = (embed(x).flatten(2) for embed in (block.query, block.key, block.value))
    weights = (b.transpose(1, 2) @ c).softmax(2)
    return block.gamma.scale * (d @ weights.transpose(1, 2)).unflatten(2, x.shape[-2:]) + x


def channel_attention(block: ChannelAttention, x: Tensor) -> Tensor:
    """DANet, Eq. 3 and 4; its code takes the energies off their maximum first."""
    a = x.flatten(2)
    energy = a @ a.transpose(1, 2)
    weights = (energy.amax(2, keepdim=True) - energy).softmax(2)
    return block.gamma.scale * (weights @ a).unflatten(2, x.shape[-2:]) + x


def disentangled(block: DisentangledNonLocal, x: Tensor) -> Tensor:
    """DNL, Eq. 12, with the N x N matrix."""
    q, k, g = (embed(x).flatten(2).transpose(1, 2) for embed in (block.query, block.key, block.value))
    products = (q - q.mean(1, keepdim=True)) @ (k - k.mean(1, keepdim=True)).transpose(1, 2)
    soft = block.normalisation == "softmax"
    pairwise = (products * block.scale).softmax(2) if soft else products / products.shape[2]
    unary = block.mask(x).flatten(2).softmax(2)
    context = (pairwise + unary) @ g
    return x + block.out(context.transpose(1, 2).unflatten(2, x.shape[-2:]))


def criss_cross(block: CrissCross, x: Tensor) -> Tensor:
    """CCNet, Eq. 1 and 2, position by position over the H + W - 1 of its row and column."""
    query, key, value = block.query(x), block.key(x), block.value(x)
    rows = []
    for y in range(x.shape[2]):
        row = []
        for z in range(x.shape[3]):
            path = [(y, column) for column in range(x.shape[3])]
            path += [(line, z) for line in range(x.shape[2]) if line != y]
            energy = torch.stack([(query[:, :, y, z] * key[:, :, i, j]).sum(1) for i, j in path], dim=1)
            values = torch.stack([value[:, :, i, j] for i, j in path], dim=2)
            row.append((energy.softmax(1)[:, None] * values).sum(2))
        rows.append(torch.stack(row, dim=2))
    return block.gamma.scale * torch.stack(rows, dim=2) + x


def expectation_maximisation(block: ExpectationMaximisation, x: Tensor) -> Tensor:
    """EMANet, Eq. 8 to 13, base by base, in evaluation."""
    points = x.detach().flatten(2)
    bases = block.bases.expand(len(x), -1, -1)
    responsibilities = bases
    for _ in range(block.iterations):
        kernel = torch.einsum("bcn,bck->bnk", points, bases).exp()
        responsibilities = kernel / kernel.sum(2, keepdim=True)
        found = []
        for k in range(bases.shape[2]):
            share = responsibilities[:, :, k] / responsibilities[:, :, k].sum(1, keepdim=True)
            base = (points * share[:, None]).sum(2)
            found.append(base / base.norm(dim=1, keepdim=True))
        bases = torch.stack(found, dim=2)
    return torch.einsum("bck,bnk->bcn", bases, responsibilities).unflatten(2, x.shape[-2:])


def interlaced(block: InterlacedAttention, x: Tensor) -> Tensor:
    """ISANet, Eq. 2 to 4: all pairs of the padded map, those of other groups left out of the softmax."""
    (high, wide), (height, width) = block.window, (x.shape[2], x.shape[3])
    more, wider = -height % high, -width % wide
    padded = torch.nn.functional.pad(x, (wider // 2, wider - wider // 2, more // 2, more - more // 2))
    rows = torch.arange(padded.shape[2])[:, None].expand(padded.shape[2:]).flatten()
    columns = torch.arange(padded.shape[3])[None].expand(padded.shape[2:]).flatten()
    out = padded
    for part, groups in (
        (block.far, (rows % high) * wide + columns % wide),
        (block.near, (rows // high) * len(columns) + columns // wide),
    ):
        query, key, value = (embed(out).flatten(2) for embed in (part.query, part.key, part.value))
        logits = query.transpose(1, 2) @ key * part.scale
        weights = logits.masked_fill(groups[:, None] != groups, float("-inf")).softmax(2)
        out = part.output((value @ weights.transpose(1, 2)).unflatten(2, padded.shape[-2:]))
    return out[:, :, more // 2 : more // 2 + height, wider // 2 : wider // 2 + width]


def pointwise_spatial(block: PointwiseSpatial, x: Tensor) -> Tensor:
    """PSANet, Eq. 5 to 8: every pair (i, j) looks up the mask of the position that owns it, with Python loops."""
    masks, (high, wide) = block.mask(block.reduce(x)), block.mask_size
    height, width = x.shape[2], x.shape[3]
    places = [(row, column) for row in range(height) for column in range(width)]
    logits = torch.zeros(len(x), len(places), len(places), dtype=x.dtype)
    for i, here in enumerate(places):
        for j, there in enumerate(places):
            owner, other = (here, there) if block.direction == "collect" else (there, here)
            down, across = other[0] - owner[0] + (high - 1) // 2, other[1] - owner[1] + (wide - 1) // 2
            if block.compact:
                logits[:, i, j] = masks[:, other[0] * width + other[1], owner[0], owner[1]]
            elif 0 <= down < high and 0 <= across < wide:
                logits[:, i, j] = masks[:, down * wide + across, owner[0], owner[1]]
    weights = logits.softmax(2) if block.softmax else logits
    return (x.flatten(2) @ weights.transpose(1, 2) / block.factor).unflatten(2, x.shape[-2:])
