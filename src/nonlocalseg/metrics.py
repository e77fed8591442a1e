"""Scores of label maps from one confusion matrix over the whole set, by cityscapesScripts' rules, with bootstrap
intervals over images.

A class in neither prediction nor ground truth is left out of every mean; one that is only predicted has IoU 0 and
counts. Pixels whose ground truth is ignored count nowhere; a void prediction on a valid pixel is a miss of that
pixel's class and nobody's false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nonlocalseg.labels import IGNORE
from nonlocalseg.runtime import gather

AT_ONCE = 1 << 19
"""Numbers of a table that a bootstrap holds at once: 4 MB of float64."""


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE) -> Tensor:
    """Counts of pixels, int64 [K, K + 1]: rows are the truth, columns the prediction.

    prediction and target: class indices of one shape, [..., H, W]. The last column counts predictions that are no
    class (255, or anything outside 0..K-1) on valid pixels. Raises ValueError when the shapes differ or the target
    holds a label that is neither a class nor `ignore_index`.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction is {tuple(prediction.shape)} but target is {tuple(target.shape)}: "
            "resize the prediction to the label's own size"
        )
    prediction, target = prediction.long().flatten(), target.long().flatten()
    wrong = ((target < 0) | (target >= num_classes)) & (target != ignore_index)
    if wrong.any():
        raise ValueError(
            f"target holds label {int(target[wrong][0])}, but there are {num_classes} classes: "
            f"correct num_classes, or map that label to {ignore_index} (ignore)"
        )
    prediction = torch.where((prediction < 0) | (prediction >= num_classes), num_classes, prediction)
    cells = num_classes * (num_classes + 1)
    index = torch.where(target == ignore_index, cells, target * (num_classes + 1) + prediction)
    # bincount without weights adds integers: the same result in any order, also on CUDA
    return torch.bincount(index, minlength=cells + 1)[:cells].view(num_classes, num_classes + 1)


@dataclass(eq=False)
class Scores:
    """What a confusion matrix int64 [K, K + 1] says. Vectors are float64 [K], nan where undefined; scalars in [0, 1].

    The figures are read from the matrix when asked for; treat it as constant.
    """

    confusion: Tensor

    def __repr__(self) -> str:
        return f"Scores(mIoU {100 * self.mean_iou:.2f} % of {self.num_classes} classes)"

    @property
    def true_positives(self) -> Tensor:
        return self.confusion.diagonal()[: self.num_classes]

    @property
    def truth(self) -> Tensor:
        """Valid pixels of each class in the ground truth, int64 [K]."""
        return self.confusion.sum(1)

    @property
    def predicted(self) -> Tensor:
        """Valid pixels on which each class was predicted, int64 [K]."""
        return self.confusion[:, : self.num_classes].sum(0)

    @property
    def num_classes(self) -> int:
        return len(self.confusion)

    @property
    def iou(self) -> Tensor:
        """TP / (TP + FP + FN), nan where the class is in neither prediction nor ground truth."""
        return _ratio(self.true_positives, self.truth + self.predicted - self.true_positives)

    @property
    def precision(self) -> Tensor:
        """TP / (TP + FP), nan where the class was never predicted."""
        return _ratio(self.true_positives, self.predicted)

    @property
    def recall(self) -> Tensor:
        """TP / (TP + FN), also called class accuracy; nan where the class is not in the ground truth."""
        return _ratio(self.true_positives, self.truth)

    @property
    def mean_iou(self) -> float:
        return float(self.iou.nanmean())

    @property
    def mean_accuracy(self) -> float:
        """Mean recall over the classes of the ground truth."""
        return float(self.recall.nanmean())

    @property
    def pixel_accuracy(self) -> float:
        return float(_ratio(self.true_positives.sum(), self.truth.sum()))

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU averaged with the classes' shares of the ground truth as weights."""
        return float(_ratio((self.iou.nan_to_num() * self.truth).sum(), self.truth.sum()))

    def per_class(self, classes: Sequence[str] | None = None) -> list[dict[str, str | int | float | None]]:
        """One row per class: class, iou, precision, recall (None where undefined) and pixels of ground truth.

        Raises ValueError when the number of names is not K; without names the classes are called by their index.
        """
        names = [str(i) for i in range(self.num_classes)] if classes is None else list(classes)
        if len(names) != self.num_classes:
            raise ValueError(f"classes holds {len(names)} names for {self.num_classes} classes: give one name for each")
        columns = (self.iou.tolist(), self.precision.tolist(), self.recall.tolist(), self.truth.tolist())
        return [
            without_nan({"class": name, "iou": iou, "precision": p, "recall": r, "pixels": pixels})
            for name, iou, p, r, pixels in zip(names, *columns, strict=True)
        ]

    def to_dict(self, classes: Sequence[str] | None = None) -> dict:
        """Everything as plain numbers for JSON, nan as None: the scalar scores, and "classes", see `per_class`."""
        scalars = ("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou")
        return without_nan({name: getattr(self, name) for name in scalars} | {"classes": self.per_class(classes)})


def scores(confusion: Tensor) -> Scores:
    """The scores of a confusion matrix [K, K + 1], or [K, K] where every prediction is a class."""
    if confusion.ndim != 2 or confusion.shape[1] - confusion.shape[0] not in (0, 1):
        raise ValueError(f"confusion is {tuple(confusion.shape)}: it must be [K, K + 1] or [K, K]")
    return Scores(confusion.detach().cpu().long())


class SegmentationMetric:
    """The confusion matrix of a whole set, summed over batches and processes; `compute()` returns `Scores`.

    No module, because DistributedDataParallel would overwrite its buffers with those of the first process.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE) -> None:
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.reset()

    def reset(self) -> None:
        self.confusion = torch.zeros(self.num_classes, self.num_classes + 1, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction and target: class indices of one shape, [..., H, W]; see `confusion_matrix`."""
        self.confusion += confusion_matrix(prediction, target, self.num_classes, self.ignore_index).cpu()

    def compute(self) -> Scores:
        """The scores of what all processes have seen; each of them must ask."""
        return scores(torch.stack(gather(self.confusion)).sum(0))


def class_counts(confusion: Tensor) -> Tensor:
    """True positives, false positives and false negatives of each class: int64 [..., K, K + 1] -> [..., K, 3]."""
    hits = confusion.diagonal(dim1=-2, dim2=-1)  # [..., K]
    return torch.stack([hits, confusion[..., :-1].sum(-2) - hits, confusion.sum(-1) - hits], dim=-1)


def bootstrap_mean_iou(
    counts: Tensor, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the set's mIoU over images (Efron, 1979); counts int64 [N, K, 3].

    Images are drawn with replacement, their counts summed, and IoU taken of the sums, as for the set itself.
    """
    means = _resampled_iou([counts], resamples, seed)[0].nanmean(1)  # [R, K] -> [R]
    low, high = _interval(means, level)
    return float(low), float(high)


def bootstrap_intervals(
    counts: Tensor, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """As `bootstrap_mean_iou`, from the same draws, of mean_iou, mean_accuracy, pixel_accuracy and
    frequency_weighted_iou."""
    sums = _resampled_counts([counts], resamples, seed)[0]  # [R, K, 3]
    iou, hits, truth = _iou_of_counts(sums), sums[..., 0], sums[..., 0] + sums[..., 2]
    drawn = {
        "mean_iou": iou.nanmean(1),
        "mean_accuracy": _ratio(hits, truth).nanmean(1),
        "pixel_accuracy": _ratio(hits.sum(1), truth.sum(1)),
        "frequency_weighted_iou": _ratio((iou.nan_to_num() * truth).sum(1), truth.sum(1)),
    }
    bounds = {name: _interval(values, level).tolist() for name, values in drawn.items()}
    return {name: (low, high) for name, (low, high) in bounds.items()}


@dataclass(frozen=True, eq=False)
class BootstrapDifference:
    """Second model minus first: difference of mIoU and of each class's IoU [K], with percentile intervals.

    The interval belongs to the difference, images being drawn for both models at once; nan for a class that a model
    cannot be scored on.
    """

    mean_iou: float
    low: float
    high: float
    iou: Tensor
    iou_low: Tensor
    iou_high: Tensor


def bootstrap_difference(
    first: Tensor, second: Tensor, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> BootstrapDifference:
    """Paired bootstrap of second minus first; both int64 [N, K, 3], the same images in the same order."""
    if first.shape != second.shape:
        raise ValueError(
            f"counts are {tuple(first.shape)} and {tuple(second.shape)}: evaluate both models on the same images"
        )
    before, after = _resampled_iou([first, second], resamples, seed)
    low, high = _interval(after.nanmean(1) - before.nanmean(1), level)
    class_low, class_high = _interval(after - before, level)
    iou_before, iou_after = (_iou_of_counts(c.cpu().sum(0)) for c in (first, second))
    mean = float(iou_after.nanmean() - iou_before.nanmean())
    return BootstrapDifference(mean, float(low), float(high), iou_after - iou_before, class_low, class_high)


def _resampled_iou(counts: Sequence[Tensor], resamples: int, seed: int) -> list[Tensor]:
    """[N, K, 3] each -> IoU of each resample [R, K]."""
    return [_iou_of_counts(sums) for sums in _resampled_counts(counts, resamples, seed)]


def _resampled_counts(counts: Sequence[Tensor], resamples: int, seed: int) -> list[Tensor]:
    """[N, K, 3] each -> sums over each resample [R, K, 3]; all of them are resampled with the same images."""
    images = len(counts[0])
    if images == 0 or resamples < 1:
        raise ValueError(f"a bootstrap of {resamples} resamples over {images} images is empty: give at least 1 of each")
    generator = torch.Generator().manual_seed(seed)
    sums: list[list[Tensor]] = [[] for _ in counts]
    rows = max(1, AT_ONCE // images)  # the generator gives the same draws, however many are asked for at once
    for start in range(0, resamples, rows):
        drawn = torch.randint(images, (min(rows, resamples - start), images), generator=generator)
        times = torch.zeros(drawn.shape, dtype=torch.float64)  # how often each image was drawn
        times.scatter_add_(1, drawn, torch.ones_like(times))
        for found, c in zip(sums, counts, strict=True):
            found.append(_weighted(times, c))
    return [torch.cat(found).view(resamples, *c.shape[1:]) for found, c in zip(sums, counts, strict=True)]


def _weighted(times: Tensor, counts: Tensor) -> Tensor:
    """[R, N] @ [N, K, 3] -> [R, 3 K]; float64 holds these sums exactly up to 2^53 pixels, in any order."""
    total = torch.zeros(len(times), counts[0].numel(), dtype=torch.float64)
    images = max(1, AT_ONCE // counts[0].numel())
    for start in range(0, len(counts), images):
        part = counts[start : start + images].cpu().double().flatten(1)
        total += times[:, start : start + images] @ part
    return total


def _iou_of_counts(counts: Tensor) -> Tensor:
    """[..., K, 3] -> [..., K]."""
    return _ratio(counts[..., 0], counts.sum(-1))


def _interval(values: Tensor, level: float) -> Tensor:
    """[R, ...] -> [2, ...]: the bounds of the central `level` share."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, but an interval covers a share between 0 and 1, such as 0.95")
    bounds = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype)
    return values.nanquantile(bounds, dim=0)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / whole.double()  # 0 / 0 is nan


def without_nan(found: Any) -> Any:
    """Figures as JSON holds them: nan as None, in whatever it stands, and tuples as lists."""
    if isinstance(found, float):
        return None if math.isnan(found) else found
    if isinstance(found, Mapping):
        return {name: without_nan(item) for name, item in found.items()}
    return [without_nan(item) for item in found] if isinstance(found, (list, tuple)) else found


def with_nan(found: Any) -> Any:
    """The reverse of `without_nan` for lists of figures: None as nan in them, and the lists as tuples."""
    if not isinstance(found, (list, tuple)):
        return found
    return tuple(math.nan if item is None else with_nan(item) for item in found)
