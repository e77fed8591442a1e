"""A convolution over maps of several sizes, as over their concatenation at one size, which is never made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.tiles import Tile, resampled


def join(
    conv: nn.Conv2d,
    maps: Iterable[Tensor],
    widths: Sequence[int],
    size: tuple[int, int],
    align_corners: bool = False,
    tile: Tile | None = None,
    sources: Sequence[Tile | None] = (),
) -> Tensor:
    """conv(cat(maps, each resized bilinearly to `size`)): `[B, C_i, h_i, w_i]` -> `[B, C', *size]`, the same numbers.

    `conv` has stride 1 and pads with zeros so that the size stays; `widths` are the channels C_i. Each map gets its part
    of the kernel, and the results are summed. A map of another size stays as it is: convolution and resizing are linear,
    so the kernel is applied to the map's own few positions, and what spreads the products over `size` is one product
    over the width and one over the height (`interpolation`). `maps` may be an iterator: then a map lives only until it
    has been used. Where the result is a `tile`, `sources` are the tiles of the maps: None for one over all of the region
    over which blocks gather, such as pooled cells; no sources say that all maps have the result's size.
    """
    out, bias = None, conv.bias
    for place, (x, weight) in enumerate(zip(maps, conv.weight.split(list(widths), dim=1), strict=True)):
        pooled = tile is not None and len(sources) > 0 and sources[place] is None
        if tile is not None and sources and not pooled:
            x = resampled(x, sources[place], tile, align_corners)
        if same_size(x, size) and not pooled:
            part = F.conv2d(x, weight, bias, padding=conv.padding, dilation=conv.dilation)
            bias = None
        elif weight.shape[-1] == 1:
            part = F.conv2d(x, weight)
            if tile is not None:
                part = resampled(part, None, tile, align_corners)
            else:
                part = F.interpolate(part, size=size, mode="bilinear", align_corners=align_corners)
        else:
            part = _of_resized(x, weight, size, align_corners, tile)
        out = part if out is None else out.add_(part)
    assert out is not None
    return out if bias is None else out.add_(bias[:, None, None])


def same_size(x: Tensor, size: tuple[int, int] | torch.Size) -> bool:
    """Whether the height and width of `x` are `size`; in export only where they are so at every size of the images,
    because a graph that leaves a resize out for one of them would forbid it, or be wrong at the others."""
    if torch.compiler.is_exporting():
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return all(statically_known_true(side == other) for side, other in zip(x.shape[-2:], size, strict=True))
    return x.shape[-2:] == torch.Size(size)


def interpolation(
    length: int, target: int, align_corners: bool, like: Tensor, rows: tuple[int, int] | None = None
) -> Tensor:
    """`[target, length]`: row i holds the weights with which bilinear resizing mixes the positions into position i.
    `rows` are the first and one past the last of those that are wanted; outside the map they are as at its border."""
    exact = torch.promote_types(like.dtype, torch.float32)
    first, end = (0, target) if rows is None else rows
    place = torch.arange(first, end, device=like.device).to(exact)
    if align_corners:
        place = (place * ((length - 1) / max(target - 1, 1))).clamp(0, length - 1)
    else:
        place = ((place + 0.5) * (length / target) - 0.5).clamp(0, length - 1)
    return (1 - (place[:, None] - torch.arange(length, device=like.device)).abs()).clamp(min=0).to(like.dtype)


def _of_resized(
    x: Tensor, weight: Tensor, size: tuple[int, int], align_corners: bool, tile: Tile | None = None
) -> Tensor:
    """The convolution, with this kernel `[C', C, k, k]`, of `x` resized to `size`: sum over k, l of A_k (W_kl x) A_l^T.

    A_k is the interpolation matrix, its rows shifted by the kernel's offset k and zero where they leave the map. The
    kernel is not dilated. For a `tile`, x is a map of the region over which blocks gather.
    """
    (height, width), side = x.shape[-2:], weight.shape[-1]
    if tile is None:
        over_height, over_width = (
            _shifted(interpolation(length, target, align_corners, x), side)
            for length, target in ((height, size[0]), (width, size[1]))
        )
    else:
        over_height, over_width = (_shifted_in(tile, axis, x, side, align_corners) for axis in (0, 1))
    by_column = weight.permute(3, 0, 2, 1).flatten(0, 2)  # [k C' k, C]
    products = (by_column @ x.flatten(2)).unflatten(2, (height, width)).unflatten(1, (side, -1))
    rows = sum(products[:, at].flatten(1, 2) @ over_width[at].T for at in range(side))  # [B, C' k h, W]
    assert isinstance(rows, Tensor)
    return over_height.transpose(0, 1).flatten(1) @ rows.unflatten(1, (weight.shape[0], -1))


def _shifted(matrix: Tensor, side: int) -> Tensor:
    """`[target, length] -> [side, target, length]`: the rows that each offset of a kernel of this side sees."""
    padded = F.pad(matrix, (0, 0, side // 2, side // 2))
    return torch.stack([padded[offset : offset + matrix.shape[0]] for offset in range(side)])


def _shifted_in(tile: Tile, axis: int, x: Tensor, side: int, align_corners: bool) -> Tensor:
    """As `_shifted`, of the rows (axis 0) or columns of a tile; they are zero where they leave the whole map."""
    start, end = tile.region[axis]
    first, beside = tile.origin[axis] - side // 2, 2 * (side // 2)
    rows = torch.arange(first, first + tile.size[axis] + beside, device=x.device)
    wanted = (first - start, first - start + len(rows))
    matrix = interpolation(x.shape[2 + axis], end - start, align_corners, x, wanted)
    matrix = matrix * ((rows >= 0) & (rows < tile.whole[axis]))[:, None]
    return torch.stack([matrix[offset : offset + tile.size[axis]] for offset in range(side)])
