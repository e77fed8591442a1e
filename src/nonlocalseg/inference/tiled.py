"""Scores and classes of an image in tiles, over scales and mirror images; where the image comes from and goes is free."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from nonlocalseg.inference.best import Layer, best_of_layers, probability_of_best
from nonlocalseg.inference.borrowed import tileable
from nonlocalseg.inference.memory import bytes_per_pixel, free_memory
from nonlocalseg.inference.readers import Canvas, Reader, TensorCanvas, TensorReader
from nonlocalseg.inference.resizing import Extent, Placement, TilePlacement, needed, sizes_of
from nonlocalseg.inference.streaming import Source, Sweep
from nonlocalseg.inference.windows import Window
from nonlocalseg.models.receptive import ReceptiveField, receptive_field
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.view import View

SMALLEST_TILE, LARGEST_TILE = 256, 2048  # pixels to a side, of tiles whose size nobody chose
OF_FREE, AT_MOST = 0.25, 3 * 2**28  # the share of free memory, and bytes, for the maps of a tile with its border


class Tiled:
    """An image as a model sees it in tiles. The passes over it are made when the first of its scores are asked for."""

    def __init__(
        self,
        model: Segmenter,
        reader: Reader,
        view: View,
        align_corners: bool,
        kept_on: torch.device | None = None,
        before_pass: Callable[[], None] | None = None,
        folder: Path | None = None,
    ) -> None:
        """before_pass: called before every tile's pass through the model. folder: where what tiles gather is kept, so
        that another process can go on with it."""
        self._model, self._reader, self._view = model, reader, view
        self._align_corners, self._kept_on, self._before_pass = align_corners, kept_on, before_pass
        self._folder, self._ready = folder, False
        self.field: ReceptiveField = receptive_field(model)
        if view.regional is not None and not self.field.rounds:
            raise ValueError("regional: this model gathers nothing from the whole image; leave it out")
        self.crop: Extent = view.crop or tile_of(model, self.field)

    @property
    def passes(self) -> int:
        """How many tiles pass through the model for one answer, of which none is begun."""
        return self.left(())

    def left(self, done: Collection[Window]) -> int:
        """How many tiles are still to pass through the model where `done` are written."""
        windows = sum(window not in done for window in self._windows)
        if not windows:
            return 0
        before = 0 if self._ready else sum(sweep.left for _, sweep in self._sweeps)
        return before + windows * len(self._sweeps)

    def write(self, canvas: Canvas, done: Collection[Window] = ()) -> None:
        """The best class of every pixel but those in the windows that are `done`."""
        for window in self._windows:
            if window not in done:
                canvas.write(window, best_of_layers(self._summable(window))[0])

    def write_with_probability(self, canvas: Canvas, probabilities: Tensor) -> None:
        """The same, and the probability of that class into float32 [H, W]."""
        for window in self._windows:
            layers = self._summable(window)
            canvas.write(window, best_of_layers(layers)[0])
            probabilities[window.area] = probability_of_best(layers, self._view.average == "logits")[0]

    def scores(self) -> Tensor:
        """float32 [K, H, W]."""
        total: Tensor | None = None
        for window in self._windows:
            for layer in self._layers(window):
                numbers = range(layer.scores.shape[1])
                placed = layer.classes(numbers)
                placed = placed.softmax(1).mul_(layer.share) if layer.softmax else placed
                if total is None:
                    total = torch.zeros(len(numbers), *self._reader.size, device=self._kept_on or placed.device)
                total[window.area] += placed[0].to(total.device)
        assert total is not None  # an image has tiles
        return total

    @property
    def _windows(self) -> Iterator[Window]:
        (height, width), step = self._reader.size, self.field.multiple
        high, wide = (-(-side // step) * step for side in self.crop)
        for top in range(0, height, high):
            for left in range(0, width, wide):
                yield Window(top, min(top + high, height), left, min(left + wide, width))

    @cached_property
    def _sweeps(self) -> Sequence[tuple[Extent, Sweep]]:
        sweeps = []
        for extent in sizes_of(self._reader.size, self._view):
            for mirrored in (False, True)[: 1 + self._view.flip]:
                source = Source(self._reader, extent, mirrored, self._align_corners, self._model.mean)
                folder = self._folder and self._folder / f"sweep{len(sweeps)}"
                if folder is not None:
                    folder.mkdir(exist_ok=True)
                given = (self.crop, self._view.regional, self._before_pass, folder)
                sweeps.append((extent, Sweep(self._model, self.field, source, *given)))
        return sweeps

    def _prepared(self) -> Sequence[tuple[Extent, Sweep]]:
        """The sweeps, behind all passes but the last."""
        if not self._ready:
            for _, sweep in self._sweeps:
                sweep.prepare()
            self._ready = True
        return self._sweeps

    def _summable(self, window: Window) -> list[Layer]:
        """Layers whose sum has the best class: one where a softmax is to be taken first."""
        layers = list(self._layers(window))
        if not any(layer.softmax for layer in layers):
            return layers
        every = range(layers[0].scores.shape[1])
        total = torch.stack([layer.classes(every).softmax(1) * layer.share for layer in layers]).sum(0)
        size = layers[0].place.size
        return [Layer(total, Placement(size, size, size))]

    def _layers(self, window: Window) -> Iterator[Layer]:
        """The scores of a window of the image at each scale, and of the mirror images."""
        view, size = self._view, self._reader.size
        sweeps = self._prepared()
        share = 1 / len(sweeps)
        at_once, later = view.average == "probabilities" and view.softmax == "window", view.softmax == "image"
        for extent, sweep in sweeps:
            if extent == size and view.regional is None and not at_once:
                for layer, _ in sweep.layers(window):
                    yield Layer(layer.scores.float(), layer.place, share, later)
                continue
            high, wide = (window.top, window.bottom), (window.left, window.right)
            inner = window
            if extent != size:
                high, wide = (
                    needed(span, length, side, self._align_corners)
                    for span, length, side in zip((high, wide), extent, size, strict=True)
                )
                inner = Window(*high, *wide)
            scores = _blended(sweep, inner, at_once)
            if extent == size:
                here = (window.bottom - window.top, window.right - window.left)
                yield Layer(scores, Placement(here, here, here), share, later)
            else:
                place = TilePlacement((high[0], wide[0]), extent, size, window, False, self._align_corners)
                yield Layer(scores, place, share, later)


class TiledBatch:
    """A batch as a model sees it in tiles: answers as `engine.Seen` does."""

    def __init__(self, images: Sequence[Tiled], sizes: Sequence[Extent], device: torch.device) -> None:
        self._images, self._sizes, self._device = images, sizes, device

    @property
    def passes(self) -> int:
        return sum(image.passes for image in self._images)

    def scores(self) -> Tensor:
        return torch.stack([image.scores() for image in self._images])

    def best(self, keep: bool = True) -> Tensor:
        found = []
        for image, size in zip(self._images, self._sizes, strict=True):
            canvas = TensorCanvas(size, self._device)
            image.write(canvas)
            found.append(canvas.classes)
        return torch.stack(found)

    def best_and_probability(self) -> tuple[Tensor, Tensor]:
        found, probabilities = [], []
        for image, size in zip(self._images, self._sizes, strict=True):
            canvas = TensorCanvas(size, self._device)
            probabilities.append(torch.zeros(size, device=self._device))
            image.write_with_probability(canvas, probabilities[-1])
            found.append(canvas.classes)
        return torch.stack(found), torch.stack(probabilities)


def in_tiles(
    model: object,
    images: Tensor,
    view: View,
    align_corners: bool,
    device: torch.device,
    kept_on: torch.device,
    before_pass: Callable[[], None] | None = None,
) -> TiledBatch:
    """Images [B, 3, H, W] in tiles."""
    network = tileable(model)
    if network.mean.device != device:
        raise ValueError(f"device: the model is on {network.mean.device}, and mode stream runs where it is")
    every = [Tiled(network, TensorReader(image), view, align_corners, kept_on, before_pass) for image in images]
    return TiledBatch(every, [(image.shape[-2], image.shape[-1]) for image in images], kept_on)


def words_of(model: object, view: View) -> str:
    """How images are seen in tiles, for people. ValueError for a model that cannot be."""
    network = tileable(model)
    field = receptive_field(network)
    crop, count = view.crop or tile_of(network, field), 1 + len(field.rounds)
    return (
        f"seen in tiles of {crop[1]} x {crop[0]} pixels with a border of {field.scores}, as far as the network sees, in "
        f"{count} pass{'es' if count > 1 else ''}"
    )


def tile_of(model: nn.Module, field: ReceptiveField) -> Extent:
    """As large as the free memory allows, within reason: the border is a smaller part of large tiles."""
    free, per_pixel = free_memory(next(model.parameters()).device), bytes_per_pixel(model)
    budget = AT_MOST if free is None else min(AT_MOST, OF_FREE * free)
    side = LARGEST_TILE if not per_pixel else int(math.sqrt(budget / per_pixel)) - 2 * field.scores
    step = field.multiple
    side = max(SMALLEST_TILE, min(LARGEST_TILE, side)) // step * step or step
    return side, side


def _blended(sweep: Sweep, window: Window, softmax: bool) -> Tensor:
    """The scores of a window, [1, K, h, w], of all regions that it lies in by their shares."""
    total: Tensor | None = None
    for layer, share in sweep.layers(window):
        scores = layer.classes(range(layer.scores.shape[1])).float()
        scores = scores.softmax(1) if softmax else scores
        scores = scores if share is None else scores * share
        total = scores if total is None else total + scores
    assert total is not None  # every pixel lies in a region
    return total
