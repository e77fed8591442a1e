"""The two operators of `local_attention.py` in tiles that stay in cache (GALD, Eq. 6-8), for the CPU.

A map at dilation r falls into r x r interleaved maps at dilation 1. Each is cut into tiles of at most TILE x TILE
positions, and a tile is one batched matrix product of its rows of positions with the k rows of neighbours of each,
of which a position needs a diagonal: about four times the arithmetic of the bare sums, at many times their speed.
Features are contiguous [B, H, W, C] here. Half precision is widened to float32 tile by tile.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

TILE = 20  # largest side of a tile, in positions: 17 x 17 with 256 channels and its border take 0.8 MB
HALF = (torch.float16, torch.bfloat16)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, else `dtype` itself."""
    return torch.float32 if dtype in HALF else dtype


def scores(query: Tensor, key: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """Dot products with the neighbours: two [B, H, W, E] -> [B, H, W, kernel_size^2], float32 for half precision."""
    batch, height, width, _ = query.shape
    dtype = accumulation_dtype(query.dtype)
    result = query.new_empty((batch, height, width, kernel_size, kernel_size), dtype=dtype)
    for lattice in _lattices(batch, height, width, dilation):
        queries, keys, target = query[lattice], key[lattice], result[lattice]
        for rows, columns in _tiles(queries):
            tile = _patch(queries, rows, columns, 0, dtype)
            patch = _patch(keys, rows, columns, kernel_size // 2, dtype)
            # [h, w, E] x [h, k (w + k - 1), E] -> [h, w, k (w + k - 1)]
            bands = torch.bmm(tile, _row_windows(patch, kernel_size).transpose(1, 2))
            target[rows, columns] = _neighbours(bands, kernel_size)
    return result.flatten(3)


def aggregate(weights: Tensor, value: Tensor, kernel_size: int, dilation: int, transposed: bool) -> Tensor:
    """Sum of the neighbours: [B, H, W, kernel_size^2] and [B, H, W, D] -> [B, H, W, D] in the dtype of `value`."""
    if transposed:
        weights = _transposed(weights, kernel_size, dilation)
    weights = weights.unflatten(3, (kernel_size, kernel_size))
    dtype = accumulation_dtype(value.dtype)
    result = torch.empty_like(value)
    batch, height, width, _ = value.shape
    for lattice in _lattices(batch, height, width, dilation):
        shares, values, target = weights[lattice], value[lattice], result[lattice]
        for rows, columns in _tiles(values):
            patch = _patch(values, rows, columns, kernel_size // 2, dtype)
            share = shares[rows, columns]
            bands = patch.new_zeros((*share.shape[:2], kernel_size * patch.shape[1]))
            _neighbours(bands, kernel_size).copy_(share)
            # [h, w, k (w + k - 1)] x [h, k (w + k - 1), D] -> [h, w, D]
            target[rows, columns] = torch.bmm(bands, _row_windows(patch, kernel_size))
    return result


def shifts(kernel_size: int, dilation: int) -> list[tuple[int, int]]:
    """(rows, columns) from a position to each neighbour, from the top left."""
    steps = [dilation * (step - kernel_size // 2) for step in range(kernel_size)]
    return [(down, right) for down in steps for right in steps]


def _lattices(batch: int, height: int, width: int, dilation: int) -> Iterator[tuple[int, slice, slice]]:
    """The index of every interleaved map of every image: [B, H, W, C] -> view [h, w, C]."""
    for image in range(batch):
        for row in range(min(dilation, height)):
            for column in range(min(dilation, width)):
                yield image, slice(row, None, dilation), slice(column, None, dilation)


def _tiles(features: Tensor) -> list[tuple[slice, slice]]:
    """(rows, columns) of the tiles of [h, w, C]."""
    return [(rows, columns) for rows in _split(features.shape[0]) for columns in _split(features.shape[1])]


def _split(length: int) -> list[slice]:
    """[0, length) in the fewest, most even pieces of at most TILE."""
    size = math.ceil(length / math.ceil(length / TILE))
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _patch(features: Tensor, rows: slice, columns: slice, reach: int, dtype: torch.dtype) -> Tensor:
    """A tile of [h, w, C], contiguous, with a border of `reach` positions that is zero outside the map."""
    height, width, channels = features.shape
    top, left = rows.start - reach, columns.start - reach
    bottom, right = rows.stop + reach, columns.stop + reach
    patch = features.new_zeros((bottom - top, right - left, channels), dtype=dtype)
    inside = features[max(top, 0) : bottom, max(left, 0) : right]
    patch[max(-top, 0) : height - top, max(-left, 0) : width - left].copy_(inside)
    return patch


def _row_windows(patch: Tensor, kernel_size: int) -> Tensor:
    """The k rows around each row: [h + k - 1, w + k - 1, C] -> overlapping view [h, k (w + k - 1), C]."""
    height, width, channels = patch.shape
    size = (height - kernel_size + 1, kernel_size * width, channels)
    return patch.as_strided(size, (width * channels, channels, 1))


def _neighbours(bands: Tensor, kernel_size: int) -> Tensor:
    """Each position's own neighbours, diagonals of the bands: [h, w, k (w + k - 1)] -> view [h, w, k, k]."""
    rows, columns, length = bands.shape
    size = (rows, columns, kernel_size, kernel_size)
    return bands.as_strided(size, (columns * length, length + 1, length // kernel_size, 1))


def _transposed(weights: Tensor, kernel_size: int, dilation: int) -> Tensor:
    """The weights with which aggregate is aggregate^T: what each position receives from the neighbours it gives to."""
    _, height, width, count = weights.shape
    result = torch.zeros_like(weights)
    for n, (down, right) in enumerate(shifts(kernel_size, dilation)):
        to_rows = slice(max(0, -down), max(0, height - max(0, down)))
        to_columns = slice(max(0, -right), max(0, width - max(0, right)))
        from_rows = slice(max(0, down), max(0, height + min(0, down)))
        from_columns = slice(max(0, right), max(0, width + min(0, right)))
        result[:, to_rows, to_columns, n] = weights[:, from_rows, from_columns, count - 1 - n]
    return result
