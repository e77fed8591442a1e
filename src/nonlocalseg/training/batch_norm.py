"""Batch norm over the pixels of all processes, on GPUs and on the CPU: `synchronise()`."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from nonlocalseg.runtime import connected, sum_over_processes


class SharedBatchNorm(nn.BatchNorm2d):
    """For the CPU, of one or two dimensions, with the activation of timm's norms: torch's SyncBatchNorm needs GPUs."""

    act: nn.Module
    drop: nn.Module

    @classmethod
    def of(cls, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Self:
        """In place of `norm`, with its own parameters and buffers."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        made.drop, made.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        return made.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.training and (connected() or self.momentum is None):
            found = self._shared(input)
        else:
            statistics, rest = (self.running_mean, self.running_var), (self.weight, self.bias)
            found = F.batch_norm(input, *statistics, *rest, self.training, self.momentum or 0.0, self.eps)
        return self.act(self.drop(found))

    def _shared(self, x: Tensor) -> Tensor:
        axes, shape = (0, *range(2, x.ndim)), (1, -1, *(1 for _ in x.shape[2:]))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = wide.new_tensor([x.numel() / x.shape[1]])
        *sums, count = sum_over_processes(torch.cat([wide.sum(axes), count])).split(x.shape[1])
        mean = sums[0] / count
        centred = wide - mean.view(shape)
        variance = sum_over_processes((centred * centred).sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), share)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        return (normal * self.weight.view(shape) + self.bias.view(shape) if self.affine else normal).to(x.dtype)


def synchronise(model: nn.Module) -> None:
    """Batch norm over all processes in place of every batch norm of `model`, with the same parameters.

    On GPUs by timm's function: torch's own, which Lightning takes, drops the activation in timm's norms.
    """
    if torch.cuda.is_available():
        convert_sync_batchnorm(model)
        return
    for name, child in model.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(model, name, SharedBatchNorm.of(child))
        else:
            synchronise(child)
