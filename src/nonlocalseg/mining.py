"""Which pixels online hard example mining keeps, by every implementation's rule (Shrivastava et al., 2016)."""

from __future__ import annotations

import torch
from torch import Tensor


def below(probability: Tensor, valid: Tensor, threshold: float, rank: int, rule: str) -> Tensor:
    """Pixels under the threshold, raised until `rank` are; probability [B, H, W] is 2 where not valid."""
    count = int(valid.sum())
    if count == 0 or (rule == "ann" and rank >= count) or (rule == "gald" and rank > count):
        return valid
    # the rank-th smallest matters only where the threshold alone keeps too few
    index = rank - 1 if rule == "gald" else min(rank, count - 1)
    limit = threshold
    if index >= 0 and int((probability < threshold).sum()) <= index:
        limit = max(threshold, float(_smallest(probability, index)))
    return valid & (probability <= limit if rule == "gald" else probability < limit)


def _smallest(values: Tensor, index: int) -> Tensor:
    """sorted(values)[index] over all elements."""
    flat = values.flatten()
    if flat.is_cuda:  # kthvalue has no deterministic CUDA kernel; sorting is fast there
        return flat.sort().values[index]
    return flat.kthvalue(index + 1).values


def largest(values: Tensor, valid: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest values; all of `valid` if there are no more than that."""
    count = min(count, int(valid.sum()))
    kept = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    kept[values.flatten().topk(count, sorted=False).indices] = True
    return kept.view_as(valid)
