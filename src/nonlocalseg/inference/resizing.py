"""Resizing as each source does it: the sizes of an image at the scales of a view, images, and scores.

Sources: mmsegmentation 1.2.2 (mmcv's imrescale, which calls OpenCV), the official ANN's and GALD's test code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocalseg.blocks.basic import resize
from nonlocalseg.blocks.tiles import Span, resample
from nonlocalseg.inference.windows import Window
from nonlocalseg.view import View

Extent = tuple[int, int]  # height, width

WEIGHT_BITS = 11  # of the weights of OpenCV's 8-bit bilinear resize


def extent_of(images: Tensor) -> Extent:
    """Height and width."""
    return images.shape[-2], images.shape[-1]


def base_of(images: Tensor, view: View) -> Tensor:
    """What every scale is made of: the images, or, for the official ANN, the images at their short side."""
    size = _base_size(extent_of(images), view)
    return opencv_resize(images, size) if size != extent_of(images) else images


def sizes_of(size: Extent, view: View) -> list[Extent]:
    """Height and width of an image of that size at each scale of the view."""
    if view.image_resize == "ann":
        base = _base_size(size, view)
        return [_each(base, lambda side, scale=scale: int(side * scale)) for scale in view.scales]
    ratio = _ratio(view, size)
    return [_each(size, lambda side, scale=scale: math.floor(side * ratio * scale + 0.5)) for scale in view.scales]


def resized_images(base: Tensor, view: View, size: Extent, align_corners: bool) -> Tensor:
    """[B, 3, h, w] at one of the sizes: 8 bits where OpenCV resizes them, else float in [0, 1]; itself at its size."""
    if extent_of(base) == size:
        return base
    if view.image_resize == "opencv":
        return opencv_resize(base, size)
    resized = []
    for channel in base.split(1, dim=1):  # one at a time: the float copy of a large photograph is four times its size
        channel = channel.float() / 255 if channel.dtype == torch.uint8 else channel
        resized.append(resize(channel, size, align_corners))
    return torch.cat(resized, dim=1)


def opencv_resize(images: Tensor, size: Extent) -> Tensor:
    """[B, C, H, W], uint8 or float in [0, 1] -> uint8 [B, C, h, w], equal to cv2.resize with INTER_LINEAR bit by bit.

    OpenCV multiplies with weights of 11 bits, drops four bits between the two directions, and takes the plain mean
    where both sides are halved.
    """
    images = images if images.dtype == torch.uint8 else images.mul(255).round().clamp(0, 255).to(torch.uint8)
    if extent_of(images) == size:
        return images
    (height, width), (rows, columns) = extent_of(images), size
    if (height, width) == (2 * rows, 2 * columns):
        parts = [images[..., top::2, left::2] for top in (0, 1) for left in (0, 1)]
        return (torch.stack(parts).sum(0, dtype=torch.int32).add_(2) >> 2).to(torch.uint8)
    left, share = (found.to(images.device) for found in _weights(width, columns))
    top, depth = (found.to(images.device) for found in _weights(height, rows))
    outside = (left < 0) | (left >= width - 1)
    share = torch.where(outside, torch.tensor([1 << WEIGHT_BITS, 0], device=share.device)[:, None].int(), share)
    left, right = left.clamp(0, width - 1), (left + 1).clamp(0, width - 1)
    top, bottom = top.clamp(0, height - 1), (top + 1).clamp(0, height - 1)
    resized = []
    for channel in images.split(1, dim=1):
        across = channel[..., left].int().mul_(share[0]).add_(channel[..., right].int().mul_(share[1])) >> 4
        upper = across[..., top, :].mul_(depth[0][:, None]) >> 16
        lower = across[..., bottom, :].mul_(depth[1][:, None]) >> 16
        resized.append(((upper.add_(lower).add_(2)) >> 2).clamp_(0, 255).to(torch.uint8))
    return torch.cat(resized, dim=1)


@dataclass(frozen=True)
class Placement:
    """How scores on a grid come to the image's size: resized to what they cover, cropped to what was seen, turned back,
    resized to the image. Each class goes its way alone.

    covered: the size that the grid stands for. seen: of it, without what was padded.
    """

    covered: Extent
    seen: Extent
    size: Extent
    mirrored: bool = False
    how: str = "bilinear"
    align_corners: bool = False

    @property
    def direct(self) -> bool:
        """In one step, from the grid to the image; padding is in the way."""
        return self.how == "direct" and self.covered == self.seen

    @property
    def reach(self) -> int | None:
        """In a square of how many cells to a side of the grid lie all of which a pixel's score is an average with
        weights from 0 to 1; None where weights can be negative."""
        steps = 1 if self.direct or self.seen == self.size else 2
        return None if steps == 2 and self.how == "bicubic" else steps + 1

    def __call__(self, scores: Tensor) -> Tensor:
        """Any classes of the scores, [B, k, h, w] -> [B, k, H, W]; the same tensor where there is nothing to do."""
        if not self.direct:
            scores = resize(scores, self.covered, self.align_corners)
            if self.covered != self.seen:
                scores = scores[..., : self.seen[0], : self.seen[1]]
            if self.how == "bicubic" and self.seen != self.size:
                scores = F.interpolate(scores, self.size, mode="bicubic", align_corners=False)
        scores = resize(scores, self.size, self.align_corners)
        return scores.flip(-1) if self.mirrored else scores


@dataclass(frozen=True)
class TilePlacement:
    """How scores of a tile on some grid come to a window of what the grid is resized to. Each class goes its way alone.

    origin: where the tile begins in the grid. grid: height and width of the whole grid. target: what it is resized to.
    """

    origin: tuple[int, int]
    grid: Extent
    target: Extent
    window: Window
    mirrored: bool = False
    align_corners: bool = False

    @property
    def size(self) -> Extent:
        return self.window.bottom - self.window.top, self.window.right - self.window.left

    @property
    def reach(self) -> int | None:
        """As `Placement.reach`."""
        return 2

    def __call__(self, scores: Tensor) -> Tensor:
        window = self.window.mirrored(self.target[1]) if self.mirrored else self.window
        spans = ((window.top, window.bottom), (window.left, window.right))
        placed = resample(scores, self.origin, self.grid, spans, self.target, self.align_corners)
        return placed.flip(-1) if self.mirrored else placed


def needed(span: Span, length: int, side: int, align_corners: bool) -> Span:
    """The positions of `length` between which those of the span of `side` lie."""
    first, last = (
        place * (length - 1) / max(side - 1, 1) if align_corners else (place + 0.5) * length / side - 0.5
        for place in (span[0], span[1] - 1)
    )
    return max(0, int(first) - 1), min(length, int(last) + 3)


def _weights(length: int, count: int) -> tuple[Tensor, Tensor]:
    """The cell before each of `count` pixels, which may be -1, int64 [count], and the weights of it and the next, int32
    [2, count], in OpenCV's precision: positions in float32, weights of 11 bits."""
    positions = ((torch.arange(count, dtype=torch.float64) + 0.5) * (1 / (count / length)) - 0.5).float()
    cells = positions.floor()
    share = positions - cells
    weights = torch.stack([1 - share, share]).mul(1 << WEIGHT_BITS).round().int()
    return cells.long(), weights


def _ratio(view: View, extent: Extent) -> float:
    """By what the sides of an image are multiplied at scale 1."""
    ratio = 1.0 if view.short_side is None else view.short_side / min(extent)
    return ratio if view.long_side is None else min(view.long_side / max(extent), ratio)


def _base_size(size: Extent, view: View) -> Extent:
    return size if view.image_resize != "ann" else _each(size, lambda side: round(side * _ratio(view, size)))


def _each(extent: Extent, rule: Callable[[int], int]) -> Extent:
    return max(1, rule(extent[0])), max(1, rule(extent[1]))
