"""The two operators of `local_attention.py` as Triton kernels, for CUDA (or Triton's interpreter): GALD, Eq. 6-8.

One program holds a tile of TILE_Y x TILE_X positions of one interleaved map (dilation 1) and the patch of its
neighbours, (TILE_Y + k - 1)(TILE_X + k - 1) positions. `scores` is one product of tile and patch on tensor cores,
of which a position keeps its own k^2 entries; `aggregate` spreads those over such a matrix and multiplies the patch by
it. The transpose gathers too: it reads the weights of the neighbours that point at a position. No atomics, hence
deterministic: every output is written once, by one program, in a fixed order of sums.

Expected traffic in feature vectors per position, k = 5: main memory gives q, k, v and takes the result once each, and
carries 5 k^2 float32 of scores and weights beside them; the L2 cache serves a patch 96 / 32 = 3 times in half precision
(tile 4 x 8) and 64 / 16 = 4 times in float32, where a loop over the neighbours reads 25 and unfold moves 75.
Float32 is multiplied in float32 (no TF32); half precision is accumulated in float32.
"""

import math
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _dot(a, b, sums):
    """sums + a b, in full float32 where a and b are float32."""
    if INTERPRETED:  # whose tl.dot multiplies the bits of bfloat16 as integers (Triton 3.9)
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def _tile(
    height, width, DILATION: tl.constexpr, KERNEL: tl.constexpr,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """This program's tile [T] and patch [P]: positions and whether inside the map, of both; which neighbour and
    whether one, [T, P]."""
    tiles_x = tl.cdiv(tl.cdiv(width, DILATION), TILE_X)
    tiles_y = tl.cdiv(tl.cdiv(height, DILATION), TILE_Y)
    program = tl.program_id(0)
    tile_x = program % tiles_x
    tile_y = program // tiles_x % tiles_y
    interleaved = program // (tiles_x * tiles_y)

    i = tl.arange(0, TILE_Y * TILE_X)
    i_y, i_x = i // TILE_X, i % TILE_X
    PATCH_X: tl.constexpr = TILE_X + KERNEL - 1
    j = tl.arange(0, PATCH)
    j_y, j_x = j // PATCH_X, j % PATCH_X

    across = tl.minimum(DILATION, width)  # interleaved maps side by side
    first_y = tile_y * TILE_Y * DILATION + interleaved // across
    first_x = tile_x * TILE_X * DILATION + interleaved % across
    row, column = first_y + i_y * DILATION, first_x + i_x * DILATION
    patch_row = first_y + (j_y - KERNEL // 2) * DILATION
    patch_column = first_x + (j_x - KERNEL // 2) * DILATION
    inside = (row < height) & (column < width)
    patch_inside = (patch_row >= 0) & (patch_row < height) & (patch_column >= 0) & (patch_column < width)

    image = tl.program_id(1).to(tl.int64) * height * width
    down, right = j_y[None, :] - i_y[:, None], j_x[None, :] - i_x[:, None]
    related = (down >= 0) & (down < KERNEL) & (right >= 0) & (right < KERNEL)
    return (
        image + row * width + column,
        inside,
        image + patch_row * width + patch_column,
        patch_inside,
        down * KERNEL + right,
        related,
    )


@triton.jit(do_not_specialize=["height", "width"])
def scores_kernel(
    query, key, scores, height, width, channels,
    DILATION: tl.constexpr, KERNEL: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr, PATCH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    tile, inside, patch, patch_inside, neighbour, related = _tile(
        height, width, DILATION, KERNEL, TILE_Y, TILE_X, PATCH
    )
    sums = tl.zeros((TILE_Y * TILE_X, PATCH), dtype=tl.float32)
    for start in range(0, channels, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        exists = channel[None, :] < channels
        tile_source = query + tile[:, None] * channels + channel[None, :]
        patch_source = key + patch[:, None] * channels + channel[None, :]
        queries = tl.load(tile_source, mask=inside[:, None] & exists, other=0.0)
        keys = tl.load(patch_source, mask=patch_inside[:, None] & exists, other=0.0)
        sums = _dot(queries, tl.trans(keys), sums)
    target = scores + tile[:, None] * (KERNEL * KERNEL) + neighbour
    tl.store(target, sums, mask=related & inside[:, None])


@triton.jit(do_not_specialize=["height", "width"])
def aggregate_kernel(
    weights, value, result, height, width, channels,
    DILATION: tl.constexpr, KERNEL: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr, PATCH: tl.constexpr,
    BLOCK: tl.constexpr, TRANSPOSED: tl.constexpr,
):  # fmt: skip
    tile, inside, patch, patch_inside, neighbour, related = _tile(
        height, width, DILATION, KERNEL, TILE_Y, TILE_X, PATCH
    )
    COUNT: tl.constexpr = KERNEL * KERNEL
    if TRANSPOSED:  # what the neighbour gives to this position: its entry for the opposite direction
        source = weights + patch[None, :] * COUNT + (COUNT - 1 - neighbour)
    else:
        source = weights + tile[:, None] * COUNT + neighbour
    share = tl.load(source, mask=related & inside[:, None] & patch_inside[None, :], other=0.0)
    share = share.to(value.dtype.element_ty)
    for start in range(0, channels, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        exists = channel[None, :] < channels
        patch_source = value + patch[:, None] * channels + channel[None, :]
        values = tl.load(patch_source, mask=patch_inside[:, None] & exists, other=0.0)
        sums = _dot(share, values, tl.zeros((TILE_Y * TILE_X, BLOCK), dtype=tl.float32))
        target = result + tile[:, None] * channels + channel[None, :]
        tl.store(target, sums.to(result.dtype.element_ty), mask=inside[:, None] & exists)


def scores(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Dot products with the neighbours: two contiguous [B, H, W, E] -> float32 [B, H, W, kernel_size^2]."""
    batch, height, width, channels = query.shape
    result = torch.empty((batch, height, width, kernel_size**2), dtype=torch.float32, device=query.device)
    constants = tile_constants(kernel_size, dilation, channels, query.dtype)
    launch = scores_kernel[_grid(query, constants)]
    with torch.cuda.device_of(query):
        launch(query, key, result, height, width, channels, **constants)
    return result


def aggregate(weights: Tensor, value: Tensor, kernel_size: int, dilation: int, transposed: bool) -> Tensor:
    """Sum of the neighbours: contiguous [B, H, W, kernel_size^2] and [B, H, W, D] -> [B, H, W, D], dtype of `value`."""
    _, height, width, channels = value.shape
    result = torch.empty_like(value)
    constants = {**tile_constants(kernel_size, dilation, channels, value.dtype), "TRANSPOSED": transposed}
    launch = aggregate_kernel[_grid(value, constants)]
    with torch.cuda.device_of(value):
        launch(weights, value, result, height, width, channels, **constants)
    return result


def tile_constants(kernel_size: int, dilation: int, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    """Constants of either kernel for which it compiles without spilling registers on compute capability 8.0 and 9.0.

    A larger tile reads each neighbour fewer times. Float32, without tensor cores, takes the tile of least arithmetic.
    """
    tile_y, tile_x, warps = 4, 4, 4
    if dtype != torch.float32 and kernel_size <= 5:
        tile_y, tile_x, warps = 4, 8, 4
    elif dtype != torch.float32 and kernel_size <= 9:
        tile_y, tile_x, warps = 8, 8, 8
    patch = max(16, triton.next_power_of_2((tile_y + kernel_size - 1) * (tile_x + kernel_size - 1)))
    block = 32 if dtype == torch.float32 and patch > 64 else 64
    return {
        "DILATION": dilation,
        "KERNEL": kernel_size,
        "TILE_Y": tile_y,
        "TILE_X": tile_x,
        "PATCH": patch,
        "BLOCK": max(16, min(block, 8192 // patch, triton.next_power_of_2(channels))),
        "num_warps": warps,
        "enable_fp_fusion": True,  # Triton 3.10 turns the default to False, at twice the instructions in float32
    }


def _grid(features: Tensor, constants: dict[str, Any]) -> tuple[int, int]:
    """(tiles of all interleaved maps, images); programs that follow each other share much of their patches in L2."""
    batch, height, width, _ = features.shape
    dilation = constants["DILATION"]
    tiles_y = math.ceil(math.ceil(height / dilation) / constants["TILE_Y"])
    tiles_x = math.ceil(math.ceil(width / dilation) / constants["TILE_X"])
    return min(dilation, height) * min(dilation, width) * tiles_y * tiles_x, batch
