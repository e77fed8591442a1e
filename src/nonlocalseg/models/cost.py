"""What a call or a model costs: parameters, and multiply-adds of every product, also of pooling, norms and resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nonlocalseg.models.creation import create_model

aten = torch.ops.aten


def multiply_adds(run: Callable[[], Any]) -> tuple[int, Any]:
    """The multiply-adds of `run()`, the papers' unit (a FLOP counter's number is twice that), and what it returned.

    Matrix products and convolutions, forward and backward, fused attention and ours to neighbours count m n k; beside
    these a product for every element that is multiplied, normalised or averaged, and four for one that is resized
    bilinearly. Additions, exponentials and divisions alone do not count.
    """
    with FlopCounterMode(display=False, custom_mapping=_PRODUCTS) as counter:
        result = run()
    return counter.get_total_flops() // 2, result


def _each_output(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * _elements(out_shape)


def _each_input(shape: Sequence[int], *args: Any, **kwargs: Any) -> int:
    return 2 * math.prod(shape)


def _bilinear(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 8 * _elements(out_shape)


def _bins(shape: Sequence[int], size: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Adaptive average pooling: every element of every bin; bins overlap where their number does not divide the length."""
    *outer, height, width = shape
    covered = (
        sum(-(-(i + 1) * length // count) - i * length // count for i in range(count))
        for length, count in zip((height, width), size, strict=True)
    )
    return 2 * math.prod(outer) * math.prod(covered)


def _elements(shape: Any) -> int:
    """Of the only or first result."""
    first = shape[0] if shape and not isinstance(shape[0], int) else shape
    return math.prod(first)


_PRODUCTS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys((aten.mul, aten.mul_, aten.addcmul), _each_output),
    **dict.fromkeys((aten.native_batch_norm, aten.cudnn_batch_norm, aten.mean), _each_input),
    **dict.fromkeys((aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training), _each_input),
    **dict.fromkeys((aten._adaptive_avg_pool2d, aten.adaptive_avg_pool2d), _bins),
    aten.upsample_bilinear2d: _bilinear,
}


def parameter_count(module: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(parameter.numel() for parameter in module.parameters())


def model_cost(model: str, backbone: str, size: tuple[int, int], num_classes: int, **options: Any) -> tuple[int, int]:
    """Parameters, and multiply-adds on one image, of a model in evaluation; computed without any arithmetic."""
    with torch.device("meta"), torch.no_grad():
        network = create_model(model, backbone, num_classes=num_classes, auxiliary=False, **options).eval()
        image = torch.empty(1, 3, *size)
        operations, _ = multiply_adds(lambda: network(image))
    return parameter_count(network), operations
