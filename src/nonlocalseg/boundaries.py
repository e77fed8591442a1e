"""Scores along object boundaries: the boundary F-score of GALD's Table V, as Gated-SCNN (Takikawa et al., ICCV 2019)
defines it, and Boundary IoU (Cheng et al., CVPR 2021).

Void pixels (`ignore_index` in the ground truth) become background in both label maps, as in Gated-SCNN's code, so an
object that meets void has the same contour there in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from nonlocalseg.labels import IGNORE
from nonlocalseg.runtime import gather

BOUNDARY_THRESHOLDS = (0.00088, 0.001875, 0.00375, 0.005)
"""Gated-SCNN's tolerances as shares of the image's diagonal: 3, 5, 9 and 12 pixels at 2048x1024."""


_OFFSETS_AT_ONCE = 16
_POINTS_PER_PIXEL = 20  # look-ups that cost as much as one pixel of a distance transform


class ImageBoundaries(NamedTuple):
    """Boundary scores of one image at T thresholds: float64 [T, K], and present [K]."""

    f: Tensor
    precision: Tensor
    recall: Tensor
    present: Tensor


def boundary_radius(threshold: float, height: int, width: int) -> int:
    """Tolerance in pixels: threshold times the diagonal, rounded up."""
    if threshold < 0:
        raise ValueError(f"threshold is {threshold}, but it is a share of the diagonal of 0 or more, such as 0.00088")
    return math.ceil(threshold * math.hypot(height, width))


def boundary_f(
    prediction: Tensor, target: Tensor, num_classes: int, threshold: float, ignore_index: int = IGNORE
) -> tuple[Tensor, Tensor]:
    """F-score of the boundaries in one image: (f float64 [K], present bool [K]); maps [H, W] of class indices.

    A boundary pixel is matched when the other map has a boundary pixel of that class within `boundary_radius`.
    present: the class occurs in the prediction or the ground truth; where it does not, f is 1, which counts in
    the published figures.
    """
    found = boundary_scores(prediction, target, num_classes, (threshold,), ignore_index)
    return found.f[0], found.present


def boundary_scores(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    thresholds: Sequence[float] = BOUNDARY_THRESHOLDS,
    ignore_index: int = IGNORE,
) -> ImageBoundaries:
    """F, precision and recall of one image's boundaries at several thresholds in one pass; see `boundary_f`.

    Only the few pixels where neighbours differ are looked at, for all classes at once, and one that found its match
    at a small radius is not searched again at a larger one.
    """
    if not thresholds:
        raise ValueError("thresholds is empty: give at least one share of the diagonal, such as 0.00088")
    maps = _without_void(prediction, target, num_classes, ignore_index)
    radii = [boundary_radius(t, *target.shape) for t in thresholds]
    points = [_boundary_points(labels, num_classes, max(radii)) for labels in maps]
    present = torch.bincount(torch.cat([m.flatten() for m in maps]), minlength=num_classes + 1)[:num_classes] > 0
    totals = [torch.bincount(classes, minlength=num_classes) for classes, _ in points]
    matched = [torch.zeros(len(radii), num_classes, dtype=torch.int64, device=target.device) for _ in maps]
    stride = target.shape[1] + 2 * max(radii)
    plane = torch.zeros((target.shape[0] + 2 * max(radii)) * stride, dtype=torch.bool, device=target.device)
    for index in ((totals[0] > 0) & (totals[1] > 0)).nonzero().flatten().tolist():
        places = [positions[classes == index] for classes, positions in points]
        for i in (0, 1):
            plane[places[1 - i]] = True
            matched[i][:, index] = torch.tensor(_count_within(places[i], plane, stride, radii))
            plane[places[1 - i]] = False
    # a class with boundaries in one map only: F = 0; in none: precision = recall = F = 1
    precision, recall = (
        torch.where(n > 0, m.double() / n.clamp_min(1), 1.0) for m, n in zip(matched, totals, strict=True)
    )
    f = 2 * precision * recall / (precision + recall).clamp_min(torch.finfo(torch.float64).tiny)
    return ImageBoundaries(f, precision, recall, present)


def _without_void(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """-> prediction and target [H, W] int16 with K for background: void in the target, no class in the prediction."""
    if target.ndim != 2 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction is {tuple(prediction.shape)} and target {tuple(target.shape)}: boundaries are scored on one "
            "image at a time, both [H, W]"
        )
    void = target == ignore_index
    if bool(((target < 0) | (target >= num_classes)).logical_and(~void).any()):
        raise ValueError(
            f"target holds labels outside 0 to {num_classes - 1}: correct num_classes, or map them to {ignore_index}"
        )
    outside = void | (prediction < 0) | (prediction >= num_classes)
    return (
        torch.where(outside, num_classes, prediction.long()).short(),
        torch.where(void, num_classes, target.long()).short(),
    )


def _boundary_points(labels: Tensor, num_classes: int, pad: int) -> tuple[Tensor, Tensor]:
    """Labels [H, W] -> the class [N] and the position [N] in a plane padded by `pad` of every boundary pixel.

    A pixel is on the boundary of class c when its right, lower or lower-right neighbour is in c and it is not, or the
    reverse: where the four differ, every class among them has a boundary pixel. In the last row and column the missing
    neighbours repeat the existing ones (seg2bmap in Gated-SCNN).
    """
    height, width = labels.shape
    differs = torch.zeros_like(labels, dtype=torch.bool)
    differs[:, :-1] = labels[:, 1:] != labels[:, :-1]
    differs[:-1] |= labels[1:] != labels[:-1]
    differs[:-1, :-1] |= labels[1:, 1:] != labels[:-1, :-1]
    y, x = differs.nonzero(as_tuple=True)
    below, right = (y + 1).clamp_max(height - 1), (x + 1).clamp_max(width - 1)
    four = torch.stack([labels[y, x], labels[y, right], labels[below, x], labels[below, right]]).long()  # [4, n]
    new = four < num_classes
    for slot in range(1, 4):
        new[slot] &= (four[:slot] != four[slot]).all(0)
    positions = (y + pad) * (width + 2 * pad) + x + pad
    return four[new], positions.expand(4, -1)[new]


def _count_within(points: Tensor, plane: Tensor, stride: int, radii: Sequence[int]) -> list[int]:
    """How many of the points [N] have a set pixel of the flat plane within each radius."""
    left, done, counts = points, -1, {}
    for radius in sorted(set(radii)):
        reach = torch.arange(-radius, radius + 1, device=points.device)
        if len(left) * len(reach) ** 2 > _POINTS_PER_PIXEL * len(plane):  # a noisy map: search the whole plane at once
            distance = ndimage.distance_transform_edt((~plane).view(-1, stride).cpu().numpy())
            found = torch.from_numpy(np.asarray(distance)).flatten()[points.cpu()]
            return [int((found <= r).sum()) for r in radii]
        squares = reach[:, None] ** 2 + reach**2
        ring = (squares <= radius**2) & (squares > done)  # the offsets that a smaller radius has not tried
        order = squares[ring].argsort()  # a match is likely to be near
        for offsets in (reach[:, None] * stride + reach)[ring][order].split(_OFFSETS_AT_ONCE):
            left = left[~plane[left[:, None] + offsets].any(1)]
        done, counts[radius] = radius**2, len(points) - len(left)
    return [counts[radius] for radius in radii]


def boundary_iou(
    prediction: Tensor, target: Tensor, num_classes: int, dilation_ratio: float = 0.02, ignore_index: int = IGNORE
) -> Tensor:
    """Boundary IoU of one image, float64 [K], nan where the class is in neither map (Cheng et al., 2021, Eq. 2).

    IoU of the two inner bands: a mask minus its erosion by `dilation_ratio` of the diagonal (at least one pixel).
    The authors' code erodes by squares and takes the image's edge for background; so does this.
    """
    overlap, union = boundary_areas(prediction, target, num_classes, dilation_ratio, ignore_index).double().unbind(1)
    return overlap / union  # 0 / 0 is nan


def boundary_areas(
    prediction: Tensor, target: Tensor, num_classes: int, dilation_ratio: float = 0.02, ignore_index: int = IGNORE
) -> Tensor:
    """Pixels in the intersection and the union of the inner bands of each class, int64 [K, 2]; summed over a set."""
    if dilation_ratio <= 0:
        raise ValueError(f"dilation_ratio is {dilation_ratio}, but it is a share of the diagonal above 0, such as 0.02")
    maps = _without_void(prediction, target, num_classes, ignore_index)
    depth = max(1, round(dilation_ratio * math.hypot(*target.shape)))
    (first, second), bands = maps, [_inner_band(labels, depth) for labels in maps]
    overlap = torch.bincount(first[bands[0] & bands[1] & (first == second)], minlength=num_classes + 1)
    total = sum(torch.bincount(m[band], minlength=num_classes + 1) for m, band in zip(maps, bands, strict=True))
    return torch.stack([overlap, total - overlap], dim=1)[:num_classes]


def _inner_band(labels: Tensor, depth: int) -> Tensor:
    """Pixels of [H, W] that have another label, or the outside, in the square window of 2 depth + 1 around them.

    For every class at once: the pixels of class c here are c's mask minus its erosion.
    """
    alike = _constant(labels, depth)  # along x
    return ~(_constant(labels.T, depth) & _constant(alike.T, depth) & alike.T).T


def _constant(values: Tensor, depth: int) -> Tensor:
    """[H, W] -> whether a row's values do not change from depth before a pixel to depth behind it; not at the ends."""
    changes = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
    changes[:, 1:] = values[:, 1:] != values[:, :-1]
    changes = changes.cumsum(1, dtype=torch.int32)
    constant = torch.zeros_like(values, dtype=torch.bool)
    if values.shape[1] > 2 * depth:
        constant[:, depth : values.shape[1] - depth] = changes[:, 2 * depth :] == changes[:, : -2 * depth]
    return constant


@dataclass(eq=False)
class BoundaryScores:
    """Boundary F over a set, one entry per threshold, by both rules; nan where undefined.

    `published`: mean over images, then over classes, where a class absent from both maps counts as 1 (Gated-SCNN, GALD
    Table V). `present`: the same means over the images, and the classes, in which the class is present.
    """

    thresholds: tuple[float, ...]
    radii: tuple[tuple[int, int], ...]
    """Least and greatest tolerance in pixels (images may differ in size)."""
    published: tuple[float, ...]
    present: tuple[float, ...]
    published_classes: tuple[tuple[float, ...], ...]
    """[T][K]"""
    present_classes: tuple[tuple[float, ...], ...]
    images: int
    boundary_iou: tuple[float, ...] | None
    """[K], areas summed over the set; None when it was not asked for."""
    mean_boundary_iou: float | None

    def radius(self, number: int) -> str:
        """The tolerance of one threshold in pixels, such as "3", or "2 to 3" where the images differ in size."""
        low, high = self.radii[number]
        return f"{low}" if low == high else f"{low} to {high}"


class BoundaryMetric:
    """Boundary F of a set, summed over images and processes; `compute()` returns `BoundaryScores`.

    With `dilation_ratio` (0.02 in the paper) Boundary IoU is measured as well.
    """

    def __init__(
        self,
        num_classes: int,
        thresholds: Sequence[float] = BOUNDARY_THRESHOLDS,
        ignore_index: int = IGNORE,
        dilation_ratio: float | None = None,
    ) -> None:
        self.num_classes, self.thresholds = num_classes, tuple(thresholds)
        self.ignore_index, self.dilation_ratio = ignore_index, dilation_ratio
        self._sums = {
            "f": torch.zeros(len(self.thresholds), num_classes, dtype=torch.float64),
            "f_present": torch.zeros(len(self.thresholds), num_classes, dtype=torch.float64),
            "present": torch.zeros(num_classes, dtype=torch.int64),
            "areas": torch.zeros(num_classes, 2, dtype=torch.int64),
        }
        self._sizes: list[tuple[int, int]] = []

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """One image: class indices [H, W], or several of one size: [B, H, W]."""
        if target.ndim == 3:
            for one, truth in zip(prediction, target, strict=True):
                self._add(one, truth)
        else:
            self._add(prediction, target)

    def _add(self, prediction: Tensor, target: Tensor) -> None:
        found = boundary_scores(prediction, target, self.num_classes, self.thresholds, self.ignore_index)
        self._sums["f"] += found.f.cpu()
        self._sums["f_present"] += (found.f * found.present).cpu()
        self._sums["present"] += found.present.cpu()
        self._sizes.append((target.shape[0], target.shape[1]))
        if self.dilation_ratio is not None:
            areas = boundary_areas(prediction, target, self.num_classes, self.dilation_ratio, self.ignore_index)
            self._sums["areas"] += areas.cpu()

    def compute(self) -> BoundaryScores:
        """The scores of what all processes have seen; each of them must ask."""
        shares = gather((self._sums, self._sizes))
        sums = {name: torch.stack([share[name] for share, _ in shares]).sum(0) for name in self._sums}
        sizes = [size for _, seen in shares for size in seen]
        radii = [[boundary_radius(threshold, *size) for size in sizes] or [0] for threshold in self.thresholds]
        published = sums["f"] / len(sizes)  # [T, K], nan without images
        present = sums["f_present"] / sums["present"]
        overlap, union = sums["areas"].double().unbind(1)
        iou = None if self.dilation_ratio is None else overlap / union
        return BoundaryScores(
            thresholds=self.thresholds,
            radii=tuple((min(found), max(found)) for found in radii),
            published=tuple(published.mean(1).tolist()),
            present=tuple(present.nanmean(1).tolist()),
            published_classes=tuple(map(tuple, published.tolist())),
            present_classes=tuple(map(tuple, present.tolist())),
            images=len(sizes),
            boundary_iou=None if iou is None else tuple(iou.tolist()),
            mean_boundary_iou=None if iou is None else float(iou.nanmean()),
        )
