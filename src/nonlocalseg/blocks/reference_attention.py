"""The literal equations of the blocks of the compared heads, slow: what tests compare with, as `reference.py`.

Each function takes a block for its weights and repeats its equation position by position, or with the whole N x N
matrix. Nothing here is used by a model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nonlocalseg.blocks.encoding import ContextEncoding
from nonlocalseg.blocks.global_context import GlobalContext


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
