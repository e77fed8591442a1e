"""The literal equations of both papers, in the order they are printed and slow: what tests and timings compare with.

Each function takes a block for its weights and repeats its equation step by step: full-size embeddings, the N x S (or
N x N) matrix, W_o, the concatenation. Nothing here is used by a model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocalseg.blocks.aggregation import CGNL
from nonlocalseg.blocks.attention import Attention
from nonlocalseg.blocks.distribution import LDv1, LDv2
from nonlocalseg.blocks.non_local import AttendingBlock
from nonlocalseg.blocks.sampling import MaxSampling, RandomSampling, Sampling


def sample(x: Tensor, sampling: Sampling | None) -> Tensor:
    """P(x) of Eq. 8: `[B, C, H, W] -> [B, C, S]`, one framework pooling for every size."""
    if sampling is None:
        return x.flatten(2)
    if isinstance(sampling, RandomSampling):
        return x.flatten(2)[:, :, sampling.positions(x.shape[2], x.shape[3], x.device)]
    pool = F.adaptive_max_pool2d if isinstance(sampling, MaxSampling) else F.adaptive_avg_pool2d
    return torch.cat([pool(x, size).flatten(2) for size in sampling.sizes], dim=2)


def normalise(similarity: Tensor, kind: str) -> Tensor:
    """f of Eq. 3 on `[B, N, S]`: each row sums to one, or is divided by S, or is left as it is."""
    if kind == "softmax":
        return similarity.softmax(2)
    return similarity / similarity.shape[2] if kind == "rescale" else similarity


def attention_weights(attention: Attention, high: Tensor, low: Tensor) -> Tensor:
    """f(phi^T P(theta)) of Eq. 2-3, 9 and 15: `[B, N, S]`."""
    embed_key = attention.query if attention.key is None else attention.key
    phi = attention.query(high).flatten(2)
    theta = sample(embed_key(low), attention.sampling)
    return normalise(attention.scale * phi.transpose(1, 2) @ theta, attention.normalisation)


def attention_context(attention: Attention, high: Tensor, low: Tensor) -> Tensor:
    """W_o (V P(gamma)^T)^T of Eq. 4, 10 and 16: `[B, C_out, H, W]`."""
    embed_key = attention.query if attention.key is None else attention.key
    gamma = sample((embed_key if attention.value is None else attention.value)(low), attention.sampling)
    out = attention_weights(attention, high, low) @ gamma.transpose(1, 2)
    return attention.out(out.transpose(1, 2).unflatten(2, high.shape[-2:]))


def attending_block(block: AttendingBlock, high: Tensor, *lows: Tensor) -> Tensor:
    """NB, APNB (no `lows`), FNB and AFNB: contexts, summed, joined to the map (Eq. 5, 11, 17), in evaluation."""
    branches = [branch for branch in block.branches if isinstance(branch, Attention)]
    pairs = zip(branches, lows or (high,), strict=True)
    context = torch.stack([attention_context(branch, high, low) for branch, low in pairs]).sum(0)
    if block.output == "residual":
        return block.context_norm(context) + high
    joined = torch.cat([block.context_norm(context), high], dim=1)
    return joined if block.fuse is None else block.dropout(block.fuse(joined))


def cgnl(block: CGNL, x: Tensor) -> Tensor:
    """Group by group, with explicit loops: y = a t, z, and norm or not as the block says, plus x."""
    t, p, g = block.t(x), block.p(x), block.g(x)
    y = torch.empty_like(t)
    width = t.shape[1] // block.groups
    for sample_index in range(x.shape[0]):
        for group in range(block.groups):
            channels = slice(group * width, (group + 1) * width)
            a = (p[sample_index, channels] * g[sample_index, channels]).sum()
            count = t[sample_index, channels].numel()
            if not block.official:
                a = a / count
            elif block.official_scale:
                a = a / count**0.5
            y[sample_index, channels] = a * t[sample_index, channels]
    return block.norm(block.z(y)) + x


def ldv1(block: LDv1, x: Tensor) -> Tensor:
    """M . X_g + X_g (Eq. 1-2), X_g added as often as the block says."""
    mask = block.mask(x)
    return mask * x + sum(x for _ in range(block.residuals))


def ldv2(block: LDv2, x_g: Tensor, x_l: Tensor | None = None) -> Tensor:
    """Eq. 6-8 over an unfolded map, then the block's last convolution."""
    x = x_g if x_l is None else torch.cat([x_l, x_g], dim=1)
    query = block.query(x if block.query_input == "both" else x_g)
    key = block.key(x if block.key_input == "both" else x_g)
    return block.out(local_attention_unfold(query, key, block.value(x), block.kernel_size, block.dilation, block.scale))


def local_attention_unfold(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float = 1.0
) -> Tensor:
    """LDv2's core with key and value unfolded to k * k times their size. Shapes as `local_attention`."""
    padding = dilation * (kernel_size // 2)

    def neighbours(x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, k * k, H, W], zeros outside the map
        unfolded = F.unfold(x, kernel_size, dilation, padding)
        return unfolded.view(x.shape[0], x.shape[1], kernel_size**2, *x.shape[2:])

    weights = (scale * query[:, :, None] * neighbours(key)).sum(1).softmax(1)
    return (weights[:, None] * neighbours(value)).sum(2)


def local_attention(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float = 1.0
) -> Tensor:
    """Eq. 8 position by position and neighbour by neighbour, with Python loops."""
    batch, _, height, width = query.shape
    out = torch.zeros(batch, value.shape[1], height, width, dtype=value.dtype, device=value.device)
    reach = kernel_size // 2
    steps = [(dy * dilation, dx * dilation) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                logits, values = [], []
                for dy, dx in steps:
                    inside = 0 <= y + dy < height and 0 <= x + dx < width
                    logits.append(
                        scale * query[b, :, y, x] @ key[b, :, y + dy, x + dx] if inside else query.new_zeros(())
                    )
                    values.append(value[b, :, y + dy, x + dx] if inside else value.new_zeros(value.shape[1]))
                weights = torch.stack(logits).softmax(0)
                out[b, :, y, x] = (weights[:, None] * torch.stack(values)).sum(0)
    return out
