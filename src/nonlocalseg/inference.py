"""From images to scores with any callable: whole or sliding, at several scales, mirrored; and `predict()` on files.

The window grid, and averaging over windows, scales and mirror images, follow the evaluation code published with ANN
(arXiv:1908.07678) and GALD (arXiv:1909.07229).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.images import read_image

Model = Callable[[Tensor], Any]
Span = tuple[int, int]  # first pixel, one past the last

DEFAULT_STRIDE = 2 / 3  # of the crop
STRIP_ROWS = 256  # rows of a full-size array treated at once where a copy of all of it would be too much


@dataclass
class Prediction:
    """What a model says of one photograph.

    mask: int64 [H, W], the best class of each pixel, at the photograph's own size, on the CPU.
    classes, palette: the model's class names and colours; empty for a callable that has none.
    """

    mask: Tensor
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    _scores: Tensor = field(repr=False)  # [K, H, W], owned by this object
    _are_probabilities: bool = field(repr=False)

    @property
    def probabilities(self) -> Tensor:
        """float32 [K, H, W] on the CPU, sums to 1 over K; made of averaged logits in place on the first call."""
        if not self._are_probabilities:
            with torch.no_grad():
                for strip in self._scores.split(STRIP_ROWS, dim=1):
                    strip.copy_(strip.softmax(0))
            self._are_probabilities = True
        return self._scores.cpu()


def infer(
    model: Model,
    images: Tensor,
    mode: str = "whole",
    crop: int | tuple[int, int] | None = None,
    stride: float | tuple[float, float] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    average: str = "probabilities",
    align_corners: bool = False,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    short_side: int | None = None,
) -> Tensor:
    """Scores of a batch at its own size, averaged over windows, scales and mirror images.

    Args:
        model: images float [B, 3, h, w] in [0, 1] -> logits [B, K, h, w] or {"out": logits}.
        images: [B, 3, H, W], float in [0, 1], or uint8, of which each window becomes float when its turn comes.
        mode: "whole", or "slide": windows of `crop` pixels in steps of `stride`, the last one shifted inside the
            image. A side shorter than the crop is taken whole, without padding.
        crop: height and width in pixels, one number for both; the same at every scale.
        stride: pixels (int), or a fraction of the crop (float, at most 1.0); 2/3 of the crop where none is given.
        scales: the image is resized by each (bilinear, no antialiasing, as the published codes do) and the scores of
            each are resized back, before they are averaged.
        flip: add the left-right mirrored image at every scale.
        average: "probabilities" (softmax of every window first) or "logits"; it is also what is returned.
        align_corners: of both resizings; the model's own.
        device: where the windows run; by default where the images are.
        accumulate_on: where the scores are kept; by default `device`.
        short_side: length in pixels to which the shorter side is brought first, so that scale 1 means that; by default
            the image keeps its size.

    Returns float32 [B, K, H, W] on `accumulate_on`. No gradient is recorded. Memory: one window on `device`, and one
    array of scores, plus a second one of scale**2 its size while a scale other than 1 runs.
    Raises ValueError for options that make no sense and for a model whose scores are not of the window's size.
    """
    check_options(mode, crop, stride, scales, average, short_side)
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise ValueError(f"images: {images.dtype} {list(images.shape)}; give float or uint8 [B, 3, H, W]")
    device = torch.device(device) if device is not None else images.device
    run = _Runner(model, average, device, torch.device(accumulate_on) if accumulate_on is not None else device)
    height, width = images.shape[-2:]
    unit = 1.0 if short_side is None else short_side / min(height, width)
    share = 1 / (len(scales) * (2 if flip else 1))
    total = None
    with torch.no_grad():
        for scale in scales:
            size = (max(1, math.floor(height * unit * scale + 0.5)), max(1, math.floor(width * unit * scale + 0.5)))
            same = size == (height, width)
            scaled = images if same else _resized_images(images, size, align_corners)
            scores = total if same else None
            rows, columns = _grid(size, crop if mode == "slide" else None, stride)
            scores = run.add_windows(scores, scaled, rows, columns, share, mirrored=False)
            if flip:
                columns = [(size[1] - end, size[1] - start) for start, end in columns]  # the mirrored image's grid
                scores = run.add_windows(scores, scaled, rows, columns, share, mirrored=True)
            total = scores if same else _add_resized(total, scores, (height, width), align_corners)
    assert total is not None  # check_options: there is at least one scale
    return total


def predict(
    model: Model,
    image: str | Path | np.ndarray,
    mode: str = "whole",
    crop: int | tuple[int, int] | None = None,
    stride: float | tuple[float, float] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    average: str = "probabilities",
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    short_side: int | None = None,
) -> Prediction:
    """The classes of one photograph, a file or an RGB array uint8 [H, W, 3].

    The other arguments are those of `infer`; `device` is by default that of the model's parameters. The model runs in
    evaluation mode and is left in the mode it came in. Raises ValueError for an image that cannot be read.
    """
    check_options(mode, crop, stride, scales, average, short_side)
    array = read_image(image) if isinstance(image, (str, Path)) else image
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"image: {array.dtype} {list(array.shape)}; give a path or an RGB array uint8 [H, W, 3]")
    if mode == "whole" and tuple(scales) == (1.0,) and not flip:
        average = "logits"  # one pass: nothing to average, and the mask needs no softmax
    with evaluating(model):
        scores = infer(
            model,
            torch.from_numpy(np.array(array)).permute(2, 0, 1)[None],  # [H, W, 3] -> [1, 3, H, W], still uint8
            mode=mode,
            crop=crop,
            stride=stride,
            scales=scales,
            flip=flip,
            average=average,
            align_corners=bool(getattr(model, "align_corners", False)),
            device=device if device is not None else _device_of(model),
            accumulate_on=accumulate_on,
            short_side=short_side,
        )[0]
    return Prediction(
        mask=best_class(scores).cpu(),
        classes=tuple(getattr(model, "classes", None) or ()),
        palette=tuple(getattr(model, "palette", None) or ()),
        _scores=scores,
        _are_probabilities=average == "probabilities",
    )


def best_class(scores: Tensor) -> Tensor:
    """[K, H, W] -> int64 [H, W], the index of the highest score, in strips of rows."""
    return torch.cat([strip.argmax(0) for strip in scores.split(STRIP_ROWS, dim=1)])


def check_options(
    mode: str = "whole",
    crop: int | tuple[int, int] | None = None,
    stride: float | tuple[float, float] | None = None,
    scales: Sequence[float] = (1.0,),
    average: str = "probabilities",
    short_side: int | None = None,
) -> None:
    """Raise a ValueError that names the first option of `infer` that makes no sense."""
    if short_side is not None and short_side < 16:
        raise ValueError(f"short_side: {short_side} pixels; give 16 or more")
    if mode not in ("whole", "slide"):
        raise ValueError(f"mode: {mode!r} is unknown; choose whole or slide")
    if average not in ("probabilities", "logits"):
        raise ValueError(f"average: {average!r} is unknown; choose probabilities or logits")
    if not scales or not all(scale > 0 and math.isfinite(scale) for scale in scales):
        raise ValueError(f"scales: {list(scales)}; give one or more numbers above 0, such as 0.75 1.0 1.25")
    if crop is not None and (any(side != int(side) for side in _pair(crop)) or min(_pair(crop)) <= 0):
        raise ValueError(f"crop: {crop} is not a size in pixels; give one or two whole numbers above 0")
    if mode == "slide" and crop is None:
        raise ValueError("crop: mode slide needs the size of its windows in pixels, such as 769")
    if mode == "whole" and (crop is not None or stride is not None):
        raise ValueError(f"{'crop' if crop is not None else 'stride'}: mode whole has no windows; choose mode slide")
    if stride is not None and crop is not None:
        for side, step in zip(_pair(crop), _pair(stride), strict=True):
            if step <= 0:
                raise ValueError(f"stride: {step} is not above 0; give pixels (512) or a fraction of the crop (0.667)")
            if step > (1.0 if isinstance(step, float) else side):
                raise ValueError(
                    f"stride: {step} is more than the crop ({side}) and would leave holes; make it smaller"
                )


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


@dataclass(frozen=True)
class _Runner:
    """Runs windows on one device and keeps what they score on another."""

    model: Model
    average: str
    device: torch.device
    accumulate_on: torch.device

    def add_windows(
        self, total: Tensor | None, images: Tensor, rows: list[Span], columns: list[Span], share: float, mirrored: bool
    ) -> Tensor:
        """`total` [B, K, h, w] plus `share` times the mean over the windows that see each pixel."""
        height, width = images.shape[-2:]
        row_counts, column_counts = (
            _counts(spans, length).to(self.accumulate_on) for spans, length in ((rows, height), (columns, width))
        )
        for top, bottom in rows:
            for left, right in columns:
                window = images[..., top:bottom, left:right].to(self.device)
                scores = self.scores(window.flip(-1)).flip(-1) if mirrored else self.scores(window)
                counts = torch.outer(row_counts[top:bottom], column_counts[left:right])
                scores = scores.to(self.accumulate_on) * (share / counts)
                if total is None:
                    total = scores.new_zeros(*scores.shape[:2], height, width)
                total[..., top:bottom, left:right] += scores
        assert total is not None  # a grid has at least one window
        return total

    def scores(self, window: Tensor) -> Tensor:
        """[B, 3, h, w] -> float32 [B, K, h, w], logits or probabilities."""
        window = window.float() / 255 if window.dtype == torch.uint8 else window
        with torch.inference_mode():
            output = self.model(window)
        logits = output["out"] if isinstance(output, dict) else output
        if logits.ndim != 4 or logits.shape[-2:] != window.shape[-2:]:
            expected = [len(window), "K", *window.shape[-2:]]
            raise ValueError(f"model: scores of shape {list(logits.shape)} for a window that needs {expected}")
        return logits.float().softmax(1) if self.average == "probabilities" else logits.float()


def _grid(
    size: tuple[int, int], crop: int | tuple[int, int] | None, stride: float | tuple[float, float] | None
) -> tuple[list[Span], list[Span]]:
    """Rows and columns of the windows; each window is one of each."""
    sides = _pair(crop) if crop is not None else size
    steps = _pair(stride) if stride is not None else (DEFAULT_STRIDE, DEFAULT_STRIDE)
    spans = []
    for length, side, step in zip(size, sides, steps, strict=True):
        step = max(1, round(step * side)) if isinstance(step, float) else step
        side = min(side, length)
        starts = [min(i * step, length - side) for i in range(math.ceil((length - side) / step) + 1)]
        spans.append([(start, start + side) for start in starts])
    return spans[0], spans[1]


def _counts(spans: list[Span], length: int) -> Tensor:
    """How many spans hold each position, float32 [length]."""
    counts = torch.zeros(length)
    for start, end in spans:
        counts[start:end] += 1
    return counts


def _resized_images(images: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Float [B, 3, h, w] in [0, 1], one channel at a time."""
    resized = []
    for channel in images.split(1, dim=1):
        channel = channel.float() / 255 if channel.dtype == torch.uint8 else channel
        resized.append(F.interpolate(channel, size, mode="bilinear", align_corners=align_corners))
    return torch.cat(resized, dim=1)


def _add_resized(total: Tensor | None, scores: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """`total` plus `scores` brought to `size`, one class at a time so that no second full-size copy is made."""
    if total is None:
        total = scores.new_zeros(*scores.shape[:2], *size)
    for sums, one in zip(total.split(1, dim=1), scores.split(1, dim=1), strict=True):  # [B, 1, H, W], [B, 1, h, w]
        sums += F.interpolate(one, size, mode="bilinear", align_corners=align_corners)
    return total


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if isinstance(value, (int, float)) else (value[0], value[1])


def _device_of(model: Model) -> torch.device:
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
