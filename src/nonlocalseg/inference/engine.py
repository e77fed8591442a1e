"""From images to scores with any callable: whole or sliding, at several scales, mirrored.

Averaging over windows, scales and mirror images follows the evaluation code published with ANN (arXiv:1908.07678) and
GALD (arXiv:1909.07229).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.inference.windows import Grid, Window, grid_of
from nonlocalseg.values import changed
from nonlocalseg.view import WHOLE, View

Model = Callable[[Tensor], Tensor | Mapping[str, Tensor]]
Reader = Callable[[Window], Tensor]
"""A window -> its images [B, 3, h, w], float in [0, 1] or uint8."""

STRIP_ROWS = 256  # rows of a full-size array treated at once where a copy of all of it would be too much


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
        view: what of the image the model sees. At each of its scales the image is resized (bilinear, no antialiasing,
            as the published codes do) and the scores are resized back before they are averaged. `view.average` is what
            is returned: probabilities (softmax of every window first) or logits.
        align_corners: of both resizings; the model's own.
        device: where the windows run; by default where the images are.
        accumulate_on: where the scores are kept; by default `device`.
        changes: fields of the view, put over it.

    Returns float32 [B, K, H, W] on `accumulate_on`. No gradient is recorded. Memory: one window on `device`, and one
    array of scores, plus a second one of scale**2 its size while a scale other than 1 runs.
    Raises ValueError for options that make no sense and for a model whose scores are not of the window's size.
    """
    view = changed(view, changes)
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise ValueError(f"images: {images.dtype} {list(images.shape)}; give float or uint8 [B, 3, H, W]")
    device = torch.device(device) if device is not None else images.device
    kept_on = torch.device(accumulate_on) if accumulate_on is not None else device
    runner = Runner(model, view.average == "probabilities", device)
    height, width = images.shape[-2:]
    unit = 1.0 if view.short_side is None else view.short_side / min(height, width)
    share = 1 / (len(view.scales) * (2 if view.flip else 1))
    total = Canvas((height, width), kept_on)
    with torch.no_grad():
        for scale in view.scales:
            size = (max(1, math.floor(height * unit * scale + 0.5)), max(1, math.floor(width * unit * scale + 0.5)))
            same = size == total.size
            scaled = images if same else _resized_images(images, size, align_corners)
            canvas = total if same else Canvas(size, kept_on)
            read, grid = _reader(scaled), grid_of(view, size)
            runner.sweep(read, grid, canvas, share)
            if view.flip:
                runner.sweep(read, grid, canvas, share, mirrored=True)
            if not same:
                total.add_resized(canvas, align_corners)
    return total.scores


class Canvas:
    """Sums scores in float32 [B, K, H, W] on a device; the array is made when the first scores say how many there are.

    `add` takes the scores of one window and the weight [h, w] of each of its pixels.
    """

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self.size, self.device = size, device
        self._scores: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        assert self._scores is not None  # a view has at least one scale, and a grid one window
        return self._scores

    def add(self, window: Window, scores: Tensor, weight: Tensor) -> None:
        scores = scores.to(self.device) * weight
        self._made(scores)[window.area] += scores

    def add_resized(self, other: Canvas, align_corners: bool) -> None:
        """Another's scores brought to this size, one class at a time so that no second full-size copy is made."""
        total = self._made(other.scores)
        for sums, one in zip(total.split(1, dim=1), other.scores.split(1, dim=1), strict=True):  # [B, 1, H, W]
            sums += F.interpolate(one, self.size, mode="bilinear", align_corners=align_corners)

    def _made(self, like: Tensor) -> Tensor:
        if self._scores is None:
            self._scores = like.new_zeros(*like.shape[:2], *self.size)
        return self._scores


@dataclass(frozen=True)
class Runner:
    """Runs a model over windows on one device."""

    model: Model
    probabilities: bool
    device: torch.device

    def sweep(self, read: Reader, grid: Grid, canvas: Canvas, share: float, mirrored: bool = False) -> None:
        """Add `share` times the mean over the windows that see each pixel."""
        grid = grid.mirrored() if mirrored else grid
        rows, columns = (counts.to(canvas.device) for counts in grid.counts())
        for window in grid:
            images = read(window).to(self.device)
            scores = self.scores(images.flip(-1)).flip(-1) if mirrored else self.scores(images)
            counts = torch.outer(rows[window.top : window.bottom], columns[window.left : window.right])
            canvas.add(window, scores, share / counts)

    def scores(self, images: Tensor) -> Tensor:
        """[B, 3, h, w] -> float32 [B, K, h, w], logits or probabilities."""
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        with torch.inference_mode():
            output = self.model(images)
        logits = output["out"] if isinstance(output, Mapping) else output
        if logits.ndim != 4 or logits.shape[-2:] != images.shape[-2:]:
            expected = [len(images), "K", *images.shape[-2:]]
            raise ValueError(f"model: scores of shape {list(logits.shape)} for a window that needs {expected}")
        return logits.float().softmax(1) if self.probabilities else logits.float()


def best_class(scores: Tensor) -> Tensor:
    """[K, H, W] -> int64 [H, W], the index of the highest score, in strips of rows."""
    return torch.cat([strip.argmax(0) for strip in scores.split(STRIP_ROWS, dim=1)])


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Evaluation mode within the block; after it, every submodule's own mode again."""
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _reader(images: Tensor) -> Reader:
    return lambda window: images[window.area]


def _resized_images(images: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Float [B, 3, h, w] in [0, 1], one channel at a time."""
    resized = []
    for channel in images.split(1, dim=1):
        channel = channel.float() / 255 if channel.dtype == torch.uint8 else channel
        resized.append(F.interpolate(channel, size, mode="bilinear", align_corners=align_corners))
    return torch.cat(resized, dim=1)
