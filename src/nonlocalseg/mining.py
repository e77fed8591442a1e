"""Which pixels online hard example mining keeps, by every implementation's rule (Shrivastava et al., 2016).

Of several processes, each with its part of the batch, all pixels count together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nonlocalseg.runtime import connected, rank, stack_over_processes, sum_over_processes


def below(probability: Tensor, valid: Tensor, threshold: float, least: int, rule: str) -> Tensor:
    """Pixels under the threshold, raised until `least` in each process are; probability [B, H, W] is 2 where not valid."""
    under = (probability < threshold).sum()
    count, under, least = sum_over_processes(torch.stack([valid.sum(), under, torch.full_like(under, least)])).tolist()
    if count == 0 or (rule == "ann" and least >= count) or (rule == "gald" and least > count):
        return valid
    # the least-th smallest matters only where the threshold alone keeps too few
    index = least - 1 if rule == "gald" else min(least, count - 1)
    limit = threshold
    if index >= 0 and under <= index:
        limit = max(threshold, float(_smallest(probability, index)))
    return valid & (probability <= limit if rule == "gald" else probability < limit)


def _smallest(values: Tensor, index: int) -> Tensor:
    """sorted(values)[index] over all elements of all processes."""
    flat = values.flatten()
    if connected():  # no process can hold more than all of the smallest
        flat = stack_over_processes(flat.sort().values[: index + 1]).flatten()
    if flat.is_cuda:  # kthvalue has no deterministic CUDA kernel; sorting is fast there
        return flat.sort().values[index]
    return flat.kthvalue(index + 1).values


def largest(values: Tensor, valid: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest values for each process; all of `valid` if there are no more than that."""
    asked, there = sum_over_processes(torch.tensor([count, int(valid.sum())], device=values.device)).tolist()
    count = min(asked, there)
    best = values.flatten().topk(min(count, values.numel()))
    of_all = stack_over_processes(best.values)  # [P, N]
    places = of_all.flatten().topk(count, sorted=False).indices - (rank() * of_all.shape[1] if connected() else 0)
    kept = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    kept[best.indices[places[(places >= 0) & (places < of_all.shape[1])]]] = True
    return kept.view_as(valid)
