"""`explain()`: what a model attends to at one pixel, its masks and its stages, as tensors that `pictures` draws.

The weights are those of the pass that gives the prediction, told by the head itself, in plain and folded models alike.
They say where a block looks, not why the model decides as it does. Figures: ANN Fig. 5, GALD Fig. 7-11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.heads.base import Watch
from nonlocalseg.images import channels_first, read_image
from nonlocalseg.inference.best import Layer, best_of_layers, probability_of_best
from nonlocalseg.inference.borrowed import evaluated
from nonlocalseg.inference.resizing import Placement, base_of, extent_of, resized_images, sizes_of
from nonlocalseg.labels import IGNORE, Colour
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.values import changed
from nonlocalseg.view import WHOLE, View

Size = tuple[int, int]  # height, width
Pixel = tuple[int, int]  # x, y
LARGEST = 2**21
"""Pixels (2048 x 1024) that a model sees at once unless told otherwise: weights are of a whole image, in one pass."""


@dataclass(frozen=True, eq=False)
class RegionAttention:
    """The weights that one pixel gives to the anchors of a block, or to all positions where it samples none.

    title: what the block is called. weights: float32 [S]; they sum to 1 (with the default normalisation, softmax).
    boxes: float32 [S, 4], left, top, right, bottom of what each weight belongs to, in pixels of the image.
    levels: int64 [S], n for a cell of the n x n sampling, 0 for a single position.
    classes: int64 [S], the class predicted for most pixels of the box; 255 for a box in the padding.
    """

    title: str
    weights: Tensor
    boxes: Tensor
    levels: Tensor
    classes: Tensor

    def top(self, count: int = 5) -> list[int]:
        """Indices of the largest weights, the largest first."""
        return [int(index) for index in self.weights.topk(min(count, len(self.weights))).indices]

    def listed(self, classes: Sequence[str], count: int = 5) -> list[tuple[int, str]]:
        """Index and description of the largest weights: level, place, weight and predicted class."""
        return [(index, self._described(index, classes)) for index in self.top(count)]

    def _described(self, index: int, classes: Sequence[str]) -> str:
        n, found = int(self.levels[index]), int(self.classes[index])
        first = int((self.levels == n).nonzero()[0])
        left, top, right, bottom = (round(float(side)) for side in self.boxes[index])
        if n:
            place = f"{n} × {n}, row {(index - first) // n + 1}, column {(index - first) % n + 1}"
        else:
            place = f"x {left}-{right}, y {top}-{bottom}"
        name = "padding" if found == IGNORE else classes[found]
        return f"{100 * float(self.weights[index]):.2g} %  {name}  ({place})"


@dataclass(frozen=True, eq=False)
class LocalAttention:
    """The weights over the k x k neighbours of one pixel, as LDv2 gives them (GALD, Eq. 6-8, Fig. 9).

    title: what the block is called. weights: float32 [k, k], sum 1, neighbours outside the feature map included, whose
    key is zero. boxes: float32 [k, k, 4], left, top, right, bottom in pixels of the image.
    inside: bool [k, k], whether the neighbour lies in the feature map. classes: int64 [k, k], the class predicted for most
    pixels of the box; 255 outside the image.
    """

    title: str
    weights: Tensor
    boxes: Tensor
    inside: Tensor
    classes: Tensor

    def listed(self, classes: Sequence[str], count: int = 5) -> list[str]:
        """The largest weights in words: predicted class, and place among the neighbours."""
        middle = len(self.weights) // 2
        found: list[str] = []
        for index in self.weights.flatten().topk(min(count, self.weights.numel())).indices:
            row, column = divmod(int(index), len(self.weights))
            number = int(self.classes[row, column])
            name = "outside the map" if number == IGNORE or not self.inside[row, column] else classes[number]
            place = "the pixel itself" if row == column == middle else f"{_offset(row - middle, column - middle)}"
            found.append(f"{100 * float(self.weights[row, column]):.2g} %  {name}  ({place})")
        return found


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask over the whole image, as LDv1's M. title: what it is called. values: float32 [C, h, w] in [0, 1]."""

    title: str
    values: Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` found; every tensor is on the CPU.

    image: uint8 [H, W, 3]. pixel: x, y. seen: height and width at which the model saw the image. prediction: int64
    [H, W]. scores: what it was made of, on the head's own grid, with the way to the image's size.
    attention, local, masks: of every block that has them, by its short name. stages: predictions int64 [H, W] of the
    classifiers that look at a step of the head. Each is empty for a model without.
    """

    image: np.ndarray
    pixel: Pixel
    seen: Size
    prediction: Tensor
    scores: Layer = field(repr=False)
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    attention: Mapping[str, RegionAttention]
    local: Mapping[str, LocalAttention]
    masks: Mapping[str, Mask]
    stages: Mapping[str, Tensor]

    def __repr__(self) -> str:
        found = [*self.attention, *self.local, *self.masks, *(f"{name} (stage)" for name in self.stages)]
        size = f"{self.image.shape[1]}x{self.image.shape[0]}"
        return f"Explanation(pixel {self.pixel[0]} {self.pixel[1]} of {size}: {', '.join(found) or 'nothing'})"

    @property
    def said(self) -> str:
        """The class that is predicted for the pixel."""
        x, y = self.pixel
        return self.classes[int(self.prediction[y, x])]

    def confidence(self) -> Tensor:
        """The softmax of the predicted class, float32 [H, W]; one class after the other, so never all at full size."""
        return probability_of_best([self.scores], logits=True)[0]


def explain(
    model: Segmenter, image: str | Path | np.ndarray, pixel: Pixel, short_side: int | None = None
) -> Explanation:
    """What `model`, plain or folded, attends to at `pixel` (x from the left, y from the top) of a file or RGB array.

    One pass in evaluation mode over the whole image, at the size of `seen_by`; never an N x N matrix, nor all scores at
    the image's size. Raises `ValueError` for a pixel outside the image and for an image that cannot be read.
    """
    array = pixels_of(image)
    height, width = array.shape[:2]
    x, y = pixel
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"pixel: {x} {y} is outside the image; x runs from 0 to {width - 1}, y from 0 to {height - 1}")
    images = seen_by(model, array, short_side)
    seen = images.shape[2], images.shape[3]
    found = Collector((x, y), (height, width), seen, model.backbone.padded_size(*seen), images.device)
    with torch.no_grad():
        scores = found.placed(evaluated(model).coarse(images, found)[0], model.align_corners)
        prediction = best_of_layers([scores])[0]
        stages = {
            name: best_of_layers([found.placed(step, model.align_corners)])[0] for name, step in found.stages.items()
        }
    attention = {
        name: replace(region, classes=_majorities(region.boxes, prediction)) for name, region in found.regions.items()
    }
    local = {
        name: replace(near, classes=_majorities(near.boxes.view(-1, 4), prediction).view_as(near.inside))
        for name, near in found.local.items()
    }
    return Explanation(
        image=array,
        pixel=(x, y),
        seen=seen,
        prediction=prediction,
        scores=scores,
        classes=model.classes,
        palette=model.palette,
        attention=attention,
        local=local,
        masks=found.masks,
        stages=stages,
    )


def seen_by(model: Segmenter, array: np.ndarray, short_side: int | None = None) -> Tensor:
    """The image as the model sees it, float [1, 3, h, w] on its device: the shorter side as asked for, or resized as the
    model's own view says; an image of more than `LARGEST` pixels is made smaller where nothing was asked for."""
    own = model.config.view if model.config is not None else WHOLE
    view = View(image_resize=own.image_resize, short_side=own.short_side, long_side=own.long_side)
    images = channels_first(array)[None]
    if short_side is not None:
        view = changed(view, {"short_side": short_side, "long_side": None})
    elif math.prod(size := sizes_of(extent_of(images), view)[0]) > LARGEST:
        least = max(16, math.floor(min(size) * math.sqrt(LARGEST / math.prod(size))))
        view = changed(view, {"short_side": least, "long_side": None})
    base = base_of(images, view)
    images = resized_images(base, view, sizes_of(extent_of(images), view)[0], model.align_corners)
    return (images.float() / 255 if images.dtype == torch.uint8 else images).contiguous().to(model.mean.device)


class Collector(Watch):
    """Keeps what the blocks of a head tell of one pixel (x, y) of an image of `size`, `seen` at another, and `padded`.

    regions, local and masks are filled in the pass, and `stages` with scores [1, K, h, w]; `classes` of the regions
    wait for the prediction and are 255.
    """

    def __init__(self, pixel: Pixel, size: Size, seen: Size, padded: Size, device: torch.device) -> None:
        self.pixel, self.size, self.seen, self.padded, self.device = pixel, size, seen, padded, device
        self.regions: dict[str, RegionAttention] = {}
        self.local: dict[str, LocalAttention] = {}
        self.masks: dict[str, Mask] = {}
        self.stages: dict[str, Tensor] = {}

    def attention(self, name: str, title: str, attended: Callable[[], Attended]) -> None:
        """The weights of the pixel's position alone, and their cells in pixels of the image."""
        seen = attended()
        y, x = (int((self.pixel[1 - axis] + 0.5) * self.seen[axis] / self.size[axis]) for axis in (0, 1))
        row, column = (place * seen.queries[axis] // self.padded[axis] for axis, place in enumerate((y, x)))
        position = row * seen.queries[1] + column
        weights = seen.weights(torch.tensor([position], device=self.device))[0, 0].float().cpu().clone()
        cells = seen.cells(position).cpu()
        down, across = (self.padded[axis] / seen.keys[axis] * self.size[axis] / self.seen[axis] for axis in (0, 1))
        scale = torch.tensor([across, down] * 2)
        boxes = cells[:, [1, 0, 3, 2]] * scale
        if seen.neighbours:
            inside = (cells[:, :2] >= 0).all(1) & (cells[:, 2:] <= torch.tensor(seen.keys)).all(1)
            k = math.isqrt(len(weights))
            unknown = torch.full((k, k), IGNORE)
            self.local[name] = LocalAttention(
                title, weights.view(k, k), boxes.view(k, k, 4), inside.view(k, k), unknown
            )
        else:
            boxes = torch.minimum(boxes, torch.tensor([self.size[1], self.size[0]] * 2, dtype=torch.float32))
            unknown = torch.full((len(weights),), IGNORE)
            self.regions[name] = RegionAttention(title, weights, boxes, seen.levels().cpu(), unknown)

    def mask(self, name: str, title: str, mask: Callable[[], Tensor]) -> None:
        self.masks[name] = Mask(title, without_padding(mask()[0], self.padded, self.seen))

    def scores(self, name: str, scores: Callable[[], Tensor]) -> None:
        self.stages[name] = scores()

    def placed(self, scores: Tensor, align_corners: bool) -> Layer:
        """Scores [1, K, h, w] of the padded image, on the CPU, with the way to the size of the image."""
        way = Placement(self.padded, self.seen, self.size, align_corners=align_corners)
        return Layer(scores.float().cpu(), way)


def pixels_of(image: str | Path | np.ndarray) -> np.ndarray:
    """A file, or an RGB array, as uint8 [H, W, 3]. Raises `ValueError` for another array and an unreadable file."""
    array = read_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"image: {array.dtype} {list(array.shape)}; give a path or an RGB array uint8 [H, W, 3]")
    return array


def without_padding(maps: Tensor, padded: Size, size: Size) -> Tensor:
    """A map [C, h, w] of the padded image without the cells that lie in the padding alone, float32 on the CPU."""
    height, width = (
        -(-maps.shape[axis + 1] * size[axis] // padded[axis]) if size[axis] < padded[axis] else maps.shape[axis + 1]
        for axis in (0, 1)
    )
    return maps[:, :height, :width].float().cpu().clone()


def _offset(down: int, right: int) -> str:
    words = [f"{abs(down)} {'below' if down > 0 else 'above'}"] if down else []
    words += [f"{abs(right)} to the {'right' if right > 0 else 'left'}"] if right else []
    return ", ".join(words)


def _majorities(boxes: Tensor, prediction: Tensor) -> Tensor:
    """The commonest class in each box [S, 4] of a prediction [H, W]: int64 [S], 255 for an empty box."""
    mask = prediction.numpy()
    found: list[int] = []
    for left, top, right, bottom in boxes.round().long().clamp(min=0).numpy():
        part = mask[top:bottom, left:right]
        found.append(int(np.bincount(part.ravel()).argmax()) if part.size else IGNORE)
    return torch.tensor(found)
