"""From images to scores, or to the best class, with any callable: whole or sliding, at several scales, mirrored.

How windows are placed and what is averaged follows, by the view, the evaluation code published with ANN
(arXiv:1908.07678), with GALD (arXiv:1909.07229) or mmsegmentation's; by default probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from nonlocalseg.inference.best import STRIP_ROWS, Layer, best_class, best_of_layers, in_turn, probability_of_best
from nonlocalseg.inference.borrowed import Model
from nonlocalseg.inference.resizing import Extent, Placement, extent_of, sizes_of
from nonlocalseg.inference.runner import Runner, smallest_side
from nonlocalseg.inference.tiled import TiledBatch, in_tiles
from nonlocalseg.inference.windows import grid_of
from nonlocalseg.values import changed
from nonlocalseg.view import WHOLE, View

ROLLING = 2**28  # bytes of scores from which windows are turned into classes row by row


def infer(
    model: Model,
    images: Tensor,
    view: View = WHOLE,
    *,
    align_corners: bool = False,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    **changes: object,
) -> Tensor:
    """Scores of a batch at its own size, averaged over windows, scales and mirror images.

    Args:
        model: images float [B, 3, h, w] in [0, 1] -> logits [B, K, h, w] or {"out": logits}.
        images: [B, 3, H, W], float in [0, 1], or uint8, of which each window becomes float when its turn comes.
        view: what of the image the model sees, how it is resized, and what is averaged and returned: probabilities (by
            default of every window, see `View.softmax`) or logits.
        align_corners: of bilinear resizing of scores, and of images in float; the model's own.
        device: where the windows run; by default where the images are.
        accumulate_on: where the scores are kept; by default `device`.
        changes: fields of the view, put over it.

    Returns float32 [B, K, H, W] on `accumulate_on`. No gradient is recorded. Memory: one window on `device`, and one
    array of scores, plus a second one of scale**2 its size while a scale other than 1 runs.
    Raises ValueError for options that make no sense and for a model whose scores are not of the window's size.
    """
    with torch.no_grad():
        return look(model, images, changed(view, changes), align_corners, device, accumulate_on).scores()


def classify(
    model: Model,
    images: Tensor,
    view: View = WHOLE,
    *,
    align_corners: bool = False,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    **changes: object,
) -> Tensor:
    """The class of the highest score, the first of equal ones: `infer(...).argmax(1)`, int64 [B, H, W].

    Arguments and errors are those of `infer`. Memory: whole images, and windows at one scale that are not resized, take
    no array of all scores at the image's size; elsewhere as `infer`.
    """
    with torch.no_grad():
        return look(model, images, changed(view, changes), align_corners, device, accumulate_on).best(keep=False)


def look(
    model: Model,
    images: Tensor,
    view: View,
    align_corners: bool = False,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    before_pass: Callable[[], None] | None = None,
) -> Seen | TiledBatch:
    """What `infer` and `classify` answer from; the model runs when one of the two is asked for.

    before_pass: called before every pass through the model, to count them, or to stop by an exception of its own.
    """
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise ValueError(f"images: {images.dtype} {list(images.shape)}; give float or uint8 [B, 3, H, W]")
    smallest = smallest_side(model)
    if min(extent_of(images)) < smallest:
        height, width = extent_of(images)
        raise ValueError(f"images must be at least {smallest}x{smallest} pixels, not {height}x{width}")
    device = torch.device(device) if device is not None else images.device
    kept_on = torch.device(accumulate_on) if accumulate_on is not None else device
    if view.mode == "stream":
        return in_tiles(model, images, view, align_corners, device, kept_on, before_pass)
    return Seen(Runner(model, view, device, kept_on, align_corners, before_pass), images)


class Seen:
    """A batch as a model sees it: its scores and its classes, both of one run of the model where memory allows."""

    def __init__(self, runner: Runner, images: Tensor) -> None:
        self._runner, self._images = runner, images
        self._kept: list[Layer] = []

    def scores(self) -> Tensor:
        """float32 [B, K, H, W], the caller's own."""
        return _summed(self._kept or self._runner.layers(self._images), extent_of(self._images))

    def best(self, keep: bool = True) -> Tensor:
        """int64 [B, H, W]. keep: remember what `scores` needs, except where that is large."""
        if self._rolls:
            return torch.cat([best_class(band) for band in self._runner.bands(self._images)], dim=-2)
        size, layers = extent_of(self._images), []
        for layer in self._runner.layers(self._images):
            layers.append(layer)
            if layer.softmax or sum(one.scores[0, 0].numel() for one in layers) > size[0] * size[1]:
                layers = [Layer(_summed(layers, size), Placement(size, size, size))]
        self._kept = layers if keep else []
        return best_of_layers(layers)

    def best_and_probability(self) -> tuple[Tensor, Tensor]:
        """`best()`, and the probability of that class where it is the best: int64 and float32 [B, H, W]."""
        logits = self._runner.view.average == "logits"
        if not self._rolls:
            return self.best(), probability_of_best(self._kept, logits)
        found = [(best_class(band), _highest(band, logits)) for band in self._runner.bands(self._images)]
        classes, probabilities = zip(*found, strict=True)
        return torch.cat(classes, dim=-2), torch.cat(probabilities, dim=-2)

    @property
    def _rolls(self) -> bool:
        """Whether windows are to become classes row by row: where their scores are large."""
        size, classes = extent_of(self._images), int(getattr(self._runner.model, "num_classes", 0))
        return self._runner.rolls(size) and 4 * len(self._images) * size[0] * size[1] * classes > ROLLING

    @property
    def passes(self) -> int:
        """How often the model runs for one answer."""
        view = self._runner.view
        grids = [grid_of(view, extent) for extent in sizes_of(extent_of(self._images), view)]
        windows = sum(1 if view.mode == "whole" else len(grid.rows) * len(grid.columns) for grid in grids)
        return windows * (1 + view.flip)


def _highest(scores: Tensor, logits: bool) -> Tensor:
    """The highest probability [B, H, W] of scores [B, K, H, W], in strips of rows."""
    strips = scores.split(STRIP_ROWS, dim=-2)
    return torch.cat([(strip.softmax(1) if logits else strip).amax(1) for strip in strips], dim=-2)


def _summed(layers: Iterable[Layer], size: Extent) -> Tensor:
    """The sum of layers at the image's size, a few classes at a time, so that no second array of all scores is made."""
    total: Tensor | None = None
    for layer in layers:
        batch, classes = layer.scores.shape[:2]
        total = torch.zeros(batch, classes, *size, device=layer.scores.device) if total is None else total
        if layer.softmax:
            total += layer.classes(range(classes)).softmax(1).mul_(layer.share)
            continue
        for numbers in in_turn(range(classes), batch * size[0] * size[1]):
            total[:, numbers[0] : numbers[-1] + 1] += layer.classes(numbers)
    assert total is not None  # a view has at least one scale
    return total
