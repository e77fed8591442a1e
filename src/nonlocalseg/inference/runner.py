"""A model run over what a view shows of images: whole or in windows, each scale and mirror image in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nonlocalseg.inference.best import Layer
from nonlocalseg.inference.borrowed import Coarse, Model
from nonlocalseg.inference.readers import Reader
from nonlocalseg.inference.resizing import Extent, Placement, base_of, extent_of, resized_images, sizes_of
from nonlocalseg.inference.windows import Grid, Span, Window, grid_of
from nonlocalseg.view import View

SMALLEST = 16  # pixels to a side that a Segmenter sees; what is smaller at a scale below 1 is padded


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
        for extent in sizes_of(size, view):
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
                yield Layer(self._swept(seen, grid, mirrorings, share), here)

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


def smallest_side(model: Model) -> int:
    """Pixels that a side must have for the model to see it; one for a callable that says nothing."""
    return SMALLEST if isinstance(model, Coarse) else int(getattr(model, "smallest_side", 1))
