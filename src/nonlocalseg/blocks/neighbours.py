"""Attention of every position to its k x k dilated neighbours: the core of LDv2 (GALD, Eq. 6-8), without unfolding.

    X_gald(i) = sum_n softmax_n( scale * q(i) . key(i + Delta_n) ) value(i + Delta_n)

Two linear operators carry it, and each is the gradient of the other, so forward and backward are the same code:

    scores(a, b)[i, n]       = a(i) . b(i + Delta_n)                     d a = aggregate(d, b),  d b = aggregate^T(d, a)
    aggregate(w, v)[i]       = sum_n w[i, n] v(i + Delta_n)              d w = scores(d, v),     d v = aggregate^T(w, d)
    aggregate^T(w, v)[j]     = sum_n w[j - Delta_n, n] v(j - Delta_n)    d w = scores(v, d),     d v = aggregate(w, d)

`neighbours_tiled.py` computes both on any device, `neighbours_triton.py` on CUDA; neither ever unfolds.
Memory beyond inputs and outputs: the N k^2 weights and their gradient, and while an operator runs a copy of those
of its features that are not channels_last.
"""

import functools
import importlib.util
import math
import os
from collections.abc import Iterator, Sequence
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from nonlocalseg.blocks import neighbours_tiled
from nonlocalseg.blocks.neighbours_tiled import HALF, accumulation_dtype, shifts


def local_attention(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float = 1.0
) -> Tensor:
    """Softmax attention of each position to its `kernel_size`^2 neighbours, `dilation` positions apart (GALD, Eq. 6-8).

    A neighbour outside the map has a zero key and a zero value and takes part in the softmax with logit 0.
    Half precision inputs are accumulated and normalised in float32. Differentiable any number of times, deterministic.

    Args:
        query, key: [B, E, H, W], one dtype.
        value: [B, D, H, W].
        kernel_size: odd number of neighbours along each side.
        dilation: distance between neighbours, in positions.
        scale: factor of the dot products before the softmax; the paper has none.

    Returns:
        [B, D, H, W] in the dtype and memory format of `value`.

    Raises:
        ValueError: where shapes or dtypes disagree, or `kernel_size` is even, or either number is below 1.
    """
    weights = local_attention_weights(query, key, kernel_size, dilation, scale)
    return local_attention_apply(weights, value, kernel_size, dilation)


def local_attention_weights(query: Tensor, key: Tensor, kernel_size: int, dilation: int, scale: float = 1.0) -> Tensor:
    """The weights that `local_attention` uses: [B, kernel_size^2, H, W], rows of neighbours from the top left.

    They sum to 1 over dimension 1, shares of neighbours outside the map included; float32 for half precision inputs.
    Arguments and errors are those of `local_attention`.
    """
    _check_window(kernel_size, dilation)
    if query.ndim != 4 or query.shape != key.shape:
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} must both be [B, E, H, W]: "
            "give them the same channels and size"
        )
    if query.dtype != key.dtype:
        raise ValueError(f"query is {query.dtype} and key is {key.dtype}: convert one to the dtype of the other")
    scores = _plain_scores if _exporting() else local_scores
    logits = scores(query, key, kernel_size, dilation)  # [B, H, W, k k]
    if scale != 1.0:
        logits = logits * scale
    return logits.softmax(dim=-1).permute(0, 3, 1, 2)


def local_attention_apply(weights: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Sum of each position's neighbours in `value` [B, D, H, W] under `weights` [B, kernel_size^2, H, W].

    Neighbours outside the map count as zero. Returns and raises as `local_attention`.
    """
    _check_window(kernel_size, dilation)
    batch, _, height, width = value.shape
    if weights.shape != (batch, kernel_size**2, height, width):
        raise ValueError(
            f"weights {tuple(weights.shape)} do not fit value {tuple(value.shape)} with kernel_size={kernel_size}: "
            f"they must be {(batch, kernel_size**2, height, width)}"
        )
    weights = weights.permute(0, 2, 3, 1)
    if _exporting():
        return _plain_aggregate(weights, value, kernel_size, dilation)
    return local_aggregate(weights, value, kernel_size, dilation, False)


def _check_window(kernel_size: int, dilation: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size} has no centre: give an odd number, such as 5")
    if dilation < 1:
        raise ValueError(f"dilation={dilation} must be at least 1: 1 means adjacent positions")


# The two operators: custom ones, so that torch.compile takes each as one node and the flop counter knows its cost.


@torch.library.custom_op("nonlocalseg::local_scores", mutates_args=())
def local_scores(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """scores(query, key): two [B, E, H, W] -> [B, H, W, kernel_size^2], float32 for half precision."""
    with torch.autocast(query.device.type, enabled=False):  # it would reach the products inside the operator
        return _form(query).scores(_positions_first(query), _positions_first(key), kernel_size, dilation)


@torch.library.custom_op("nonlocalseg::local_aggregate", mutates_args=())
def local_aggregate(weights: Tensor, value: Tensor, kernel_size: int, dilation: int, transposed: bool) -> Tensor:
    """aggregate(weights, value), or its transpose: [B, H, W, kernel_size^2], [B, D, H, W] -> [B, D, H, W]."""
    with torch.autocast(value.device.type, enabled=False):
        mapped = _positions_first(value)
        result = _form(value).aggregate(weights.contiguous(), mapped, kernel_size, dilation, transposed)
        return _channels_first_like(result, value)


def _form(features: Tensor) -> ModuleType:
    """The module that computes both operators on these features; Triton's interpreter runs its kernels on the CPU."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if features.dtype in (torch.float32, *HALF) and (features.is_cuda or interpreted) and _triton_available():
        from nonlocalseg.blocks import neighbours_triton

        return neighbours_triton
    return neighbours_tiled


@functools.cache
def _triton_available() -> bool:
    return importlib.util.find_spec("triton") is not None


@local_scores.register_fake
def _(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    batch, _, height, width = query.shape
    return query.new_empty((batch, height, width, kernel_size**2), dtype=accumulation_dtype(query.dtype))


@local_aggregate.register_fake
def _(weights: Tensor, value: Tensor, kernel_size: int, dilation: int, transposed: bool) -> Tensor:
    return torch.empty_like(value)


def _save_scores(ctx, inputs, output) -> None:
    query, key, ctx.kernel_size, ctx.dilation = inputs
    ctx.save_for_backward(query, key)


def _backward_scores(ctx, grad: Tensor):
    query, key = ctx.saved_tensors
    window = ctx.kernel_size, ctx.dilation
    grad_query = local_aggregate(grad, key, *window, False) if ctx.needs_input_grad[0] else None
    grad_key = local_aggregate(grad, query, *window, True) if ctx.needs_input_grad[1] else None
    return grad_query, grad_key, None, None


def _save_aggregate(ctx, inputs, output) -> None:
    weights, value, ctx.kernel_size, ctx.dilation, ctx.transposed = inputs
    ctx.save_for_backward(weights, value)


def _backward_aggregate(ctx, grad: Tensor):
    weights, value = ctx.saved_tensors
    window = ctx.kernel_size, ctx.dilation
    grad_weights = grad_value = None
    if ctx.needs_input_grad[0]:
        pair = (value, grad) if ctx.transposed else (grad, value)
        grad_weights = local_scores(*pair, *window).to(weights.dtype)
    if ctx.needs_input_grad[1]:
        grad_value = local_aggregate(weights, grad, *window, not ctx.transposed)
    return grad_weights, grad_value, None, None, None


local_scores.register_autograd(_backward_scores, setup_context=_save_scores)
local_aggregate.register_autograd(_backward_aggregate, setup_context=_save_aggregate)


@register_flop_formula([torch.ops.nonlocalseg.local_scores])
def _scores_flops(query: Sequence[int], key: Sequence[int], kernel_size: int, *args, **kwargs) -> int:
    return 2 * kernel_size**2 * math.prod(query)


@register_flop_formula([torch.ops.nonlocalseg.local_aggregate])
def _aggregate_flops(weights: Sequence[int], value: Sequence[int], kernel_size: int, *args, **kwargs) -> int:
    return 2 * kernel_size**2 * math.prod(value)


def _positions_first(features: Tensor) -> Tensor:
    """[B, C, H, W] -> contiguous [B, H, W, C]; a view of channels_last features."""
    batch, channels, height, width = features.shape
    if not features.is_cpu or not features.is_contiguous():
        return features.permute(0, 2, 3, 1).contiguous()
    result = features.new_empty((batch, height, width, channels))
    for source, target in zip(features, result, strict=True):  # torch has a three times faster copy for matrices only
        target.view(-1, channels).copy_(source.view(channels, -1).t())
    return result


def _channels_first_like(result: Tensor, like: Tensor) -> Tensor:
    """Contiguous [B, H, W, C] -> [B, C, H, W] in the memory format of `like`."""
    viewed = result.permute(0, 3, 1, 2)
    if viewed.stride() == torch.empty_like(like, device="meta").stride():
        return viewed
    target = torch.empty_like(like)
    if not (target.is_cpu and target.is_contiguous()):
        return target.copy_(viewed)
    for source, image in zip(result, target, strict=True):
        image.view(image.shape[0], -1).copy_(source.view(-1, image.shape[0]).t())
    return target


# The form that is exported: plain operators that torch.export and ONNX trace with any height and width.


def _exporting() -> bool:
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def _padded_shifts(features: Tensor, kernel_size: int, dilation: int) -> Iterator[Tensor]:
    """The features of each neighbour in turn: [B, C, H, W] -> views [B, C, H, W] of a zero-padded copy."""
    height, width = features.shape[2:]
    reach = dilation * (kernel_size // 2)
    padded = F.pad(features, (reach,) * 4)
    for down, right in shifts(kernel_size, dilation):
        yield padded[:, :, reach + down : reach + down + height, reach + right : reach + right + width]


def _plain_scores(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    dtype = accumulation_dtype(query.dtype)
    query, key = query.to(dtype), key.to(dtype)
    return torch.stack([(query * shifted).sum(1) for shifted in _padded_shifts(key, kernel_size, dilation)], dim=-1)


def _plain_aggregate(weights: Tensor, value: Tensor, kernel_size: int, dilation: int) -> Tensor:
    neighbours = _padded_shifts(value.to(accumulation_dtype(value.dtype)), kernel_size, dilation)
    terms = (weights[:, None, :, :, n] * neighbour for n, neighbour in enumerate(neighbours))
    return functools.reduce(torch.add, terms).to(value.dtype)
