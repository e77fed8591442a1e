"""From images to scores, or to the best class, with any callable: whole or sliding, at several scales, mirrored.

How windows are placed and what is averaged follows, by the view, the evaluation code published with ANN
(arXiv:1908.07678), with GALD (arXiv:1909.07229) or mmsegmentation's; by default probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nonlocalseg.inference.best import (
    Layer,
    best_class,
    best_of_layers,
    probability_in,
    probability_of_best,
    sum_of_layers,
)
from nonlocalseg.inference.borrowed import Coarse, Model, smallest_side
from nonlocalseg.inference.readers import Reader
from nonlocalseg.inference.resizing import Extent, Placement, base_of, extent_of, resized_images, sizes_of
from nonlocalseg.inference.tiled import TiledBatch, in_tiles
from nonlocalseg.inference.windows import Grid, Span, Window, grid_of
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
        kept, large = self._kept, 4 * sum(one.scores.numel() for one in self._kept) > ROLLING
        self._kept = [] if large else kept  # what is large is handed over, once
        layers = kept or self._runner.layers(self._images)
        return sum_of_layers(layers, extent_of(self._images), large or not kept)

    def best(self, keep: bool = True) -> Tensor:
        """int64 [B, H, W]. keep: remember what `scores` needs, except where that is large."""
        if self._rolls:
            return torch.cat([best_class(band) for band in self._runner.bands(self._images)], dim=-2)
        size, layers = extent_of(self._images), []
        for layer in self._runner.layers(self._images):
            layers.append(layer)
            if layer.softmax or sum(one.scores[0, 0].numel() for one in layers) > size[0] * size[1]:
                layers = [Layer(sum_of_layers(layers, size), Placement(size, size, size), fresh=True)]
            del layer  # which may hold as much as the sum
        self._kept = layers if keep else []
        return best_of_layers(layers)

    def best_and_probability(self) -> tuple[Tensor, Tensor]:
        """`best()`, and the probability of that class where it is the best: int64 and float32 [B, H, W]."""
        logits = self._runner.view.average == "logits"
        if not self._rolls:
            return self.best(), probability_of_best(self._kept, logits)
        found = [(best_class(band), probability_in(band, logits)) for band in self._runner.bands(self._images)]
        classes, probabilities = zip(*found, strict=True)
        return torch.cat(classes, dim=-2), torch.cat(probabilities, dim=-2)

    @property
    def _rolls(self) -> bool:
        """Whether windows are to become classes row by row: where their scores are large."""
        size, classes = extent_of(self._images), int(getattr(self._runner.model, "num_classes", 256))  # or many
        return self._runner.rolls(size) and 4 * len(self._images) * size[0] * size[1] * classes > ROLLING

    @property
    def passes(self) -> int:
        """How often the model runs for one answer."""
        view = self._runner.view
        grids = [grid_of(view, extent) for extent in sizes_of(extent_of(self._images), view)]
        windows = sum(1 if view.mode == "whole" else len(grid.rows) * len(grid.columns) for grid in grids)
        return windows * (1 + view.flip)


@dataclass(frozen=True)
class Runner:
    """Runs a model over what a view shows of images, on `device`; scores are kept on `kept_on`."""

    model: Model
    view: View
    device: torch.device
    kept_on: torch.device
    align_corners: bool
    before_pass: Callable[[], None] | None = None

    def layers(self, images: Tensor) -> Iterator[Layer]:
        """The scores at each scale, and those of the mirror image apart where they are not averaged there."""
        view, size = self.view, extent_of(images)
        base, mirrorings = base_of(images, view), (False, True)[: 1 + view.flip]
        share, later = 1 / (len(view.scales) * len(mirrorings)), view.softmax == "image"
        for extent in sorted(sizes_of(size, view), key=size.__ne__):  # what needs no resizing first: it becomes the sum
            seen, grid = resized_images(base, view, extent, self.align_corners), grid_of(view, extent)
            here = self._placement(extent, extent, size)
            if view.mode == "whole" and not self._softmax_of_windows:
                for mirrored in mirrorings:
                    scores, place = self._logits(self._window(seen, grid.whole, mirrored))
                    place = replace(here, covered=place.covered, mirrored=mirrored)
                    yield Layer(scores.float().to(self.kept_on), place, share, later)
            elif later:
                for mirrored in mirrorings:
                    yield Layer(self._swept(seen, grid, (mirrored,), 1.0), here, share, later)
            else:
                yield Layer(self._swept(seen, grid, mirrorings, share), here, fresh=True)

    def rolls(self, size: Extent) -> bool:
        """Whether windows over an image of that size become classes row by row: where their scores need no resizing."""
        sliding = self.view.mode == "slide" and self.view.softmax == "window" and self.view.image_resize != "ann"
        return sliding and sizes_of(size, self.view) == [size]

    def bands(self, images: Tensor | Reader, columns: Span | None = None, first: int = 0) -> Iterator[Tensor]:
        """The scores [B, K, n, W] of bands of rows, top down: each row of windows is summed into a band that moves down.

        columns: by default all. first: the row of windows to begin with; it knows nothing of those above.
        """
        grid = grid_of(self.view, extent_of(images) if isinstance(images, Tensor) else images.size)
        left, right = columns or (0, grid.size[1])
        mirrorings = (False, True)[: 1 + self.view.flip]
        band: Tensor | None = None
        for row, (top, end) in zip(grid.rows[first:], grid.parts[first:], strict=True):
            for window, scores in self._row(images, grid, row, mirrorings, 1 / len(mirrorings), (left, right)):
                if band is None:
                    band = scores.new_zeros(*scores.shape[:2], row[1] - row[0], right - left)
                start, end_of_part = max(left, window.left), min(right, window.right)
                part = scores[..., start - window.left : end_of_part - window.left]
                band[..., start - left : end_of_part - left] += part
            assert band is not None  # a row has windows
            done, high = end - top, row[1] - top
            yield band[..., :done, :]
            band[..., : high - done, :] = band[..., done:, :].clone()
            band[..., high - done :, :] = 0

    @property
    def _softmax_of_windows(self) -> bool:
        return self.view.average == "probabilities" and self.view.softmax == "window"

    def _swept(self, images: Tensor, grid: Grid, mirrorings: tuple[bool, ...], share: float) -> Tensor:
        """`share` times the mean over the windows that see each pixel, summed over the mirrorings, [B, K, h, w]."""
        total: Tensor | None = None
        for row in grid.rows:
            for window, scores in self._row(images, grid, row, mirrorings, share):
                if total is None:
                    total = scores.new_zeros(*scores.shape[:2], *grid.size)
                total[window.area] += scores
        assert total is not None  # a grid has windows
        return total

    def _row(
        self,
        images: Tensor | Reader,
        grid: Grid,
        row: Span,
        mirrorings: tuple[bool, ...],
        share: float,
        within: Span | None = None,
    ) -> Iterator[tuple[Window, Tensor]]:
        """Each window of a row, of those that have columns `within`, and its scores, already divided by the number of
        windows that see the pixel."""
        first, last = within or (0, grid.size[1])
        for mirrored in mirrorings:
            placed = grid.mirrored() if mirrored else grid
            rows, columns = (counts.to(self.kept_on) for counts in placed.counts())
            for window in placed.across(row):
                if window.right <= first or window.left >= last:
                    continue
                scores = self._scores(self._window(images, window, mirrored))
                scores = scores.flip(-1) if mirrored else scores
                counts = torch.outer(rows[window.top : window.bottom], columns[window.left : window.right])
                yield window, scores.to(self.kept_on) * (share / counts)

    def _scores(self, images: Tensor) -> Tensor:
        """Of one window [B, 3, h, w]: logits or probabilities, float32 [B, K, h, w] on the device."""
        scores, place = self._logits(images)
        scores = place(scores.float())
        return scores.softmax(1) if self._softmax_of_windows else scores

    def _window(self, images: Tensor | Reader, window: Window, mirrored: bool) -> Tensor:
        seen = images[window.area] if isinstance(images, Tensor) else images.read(window)[None]
        seen = seen.to(self.device)
        seen = seen.float() / 255 if seen.dtype == torch.uint8 else seen
        return seen.flip(-1) if mirrored else seen

    def _logits(self, images: Tensor) -> tuple[Tensor, Placement]:
        """What the model says of a window [B, 3, h, w], and how that comes to h x w."""
        seen, images = extent_of(images), self._padded(images)
        covered = extent_of(images)
        if self.before_pass is not None:
            self.before_pass()
        with torch.inference_mode():
            if isinstance(self.model, Coarse):
                scores, covered = self.model.coarse(images)
            else:
                output = self.model(images)
                scores = output["out"] if isinstance(output, Mapping) else output
                if scores.ndim != 4 or extent_of(scores) != covered:
                    expected = [len(images), "K", *covered]
                    raise ValueError(f"model: scores of shape {list(scores.shape)} for a window that needs {expected}")
        return scores, self._placement(covered, seen, seen)

    def _padded(self, images: Tensor) -> Tensor:
        """The images with the mean colour on the right and bottom, as large as the view wants windows to be."""
        least = (smallest_side(self.model),) * 2
        crop = self.view.crop if self.view.small == "pad" and self.view.crop else least
        multiple = self.view.pad_multiple or 1
        height, width = (-(-max(pair) // multiple) * multiple for pair in zip(extent_of(images), crop, strict=True))
        if (height, width) == extent_of(images):
            return images
        colour: Tensor = getattr(self.model, "mean", images.new_zeros(1, images.shape[1], 1, 1))
        padded = colour.to(images).expand(len(images), -1, height, width).clone()
        padded[..., : images.shape[-2], : images.shape[-1]] = images
        return padded

    def _placement(self, covered: Extent, seen: Extent, size: Extent) -> Placement:
        return Placement(covered, seen, size, how=self.view.score_resize, align_corners=self.align_corners)
