"""A whole image of any size, exactly, in the memory of a tile.

What blocks gather from all positions adds up over tiles (`blocks/tiles.py`). Each round of statistics is a pass over the
tiles, which reach beyond their own pixels by as far as the network sees; in the last pass every tile knows the totals of
the whole image, and its scores are those of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from nonlocalseg.blocks.tiles import Span, Statistics, Tile, resample
from nonlocalseg.heads.base import SILENT
from nonlocalseg.inference.best import Layer
from nonlocalseg.inference.features import FeatureStore
from nonlocalseg.inference.readers import Reader
from nonlocalseg.inference.resizing import Extent, TilePlacement, needed
from nonlocalseg.inference.windows import Window
from nonlocalseg.models.receptive import ReceptiveField, on_meta
from nonlocalseg.models.segmenter import Segmenter

S = TypeVar("S", bound=Statistics)
EXACT = torch.float64  # of sums over tiles


class _Gathered(Exception):
    """A tile has said all that it can before the totals are known."""


class _Ledger:
    """What the tiles of a pass gather, summed; the totals of earlier passes, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._totals: list[Statistics] = []
        self._asked = 0
        self._sum: Statistics | None = None
        self._dtype = EXACT

    def begin(self) -> None:
        """Another tile."""
        self._asked = 0

    def close(self) -> None:
        """The pass is over: its sum is a total."""
        assert self._sum is not None
        self._totals.append(self._sum.to(self._dtype))
        self._sum = None

    def total(self, gather: Callable[[], S], empty: bool = False) -> S:
        if self._asked < len(self._totals):
            self._asked += 1
            return cast(S, self._totals[self._asked - 1])  # of the kind that this very call gathered in its pass
        if empty:
            raise _Gathered
        found = gather()
        self._dtype, exact = found.parts[0].dtype, found.to(EXACT)
        self._sum = exact if self._sum is None else self._sum.merged(exact)
        raise _Gathered


@dataclass(frozen=True)
class Source:
    """An image at one scale, mirrored or not, read in windows of that scale."""

    reader: Reader
    size: Extent
    mirrored: bool
    align_corners: bool
    like: Tensor  # of the network, whose device and precision count

    def read(self, window: Window) -> Tensor:
        """Float [1, 3, h, w] in [0, 1]."""
        if self.mirrored:
            window = window.mirrored(self.size[1])
        rows, columns = ((window.top, window.bottom), (window.left, window.right))
        if self.size == self.reader.size:
            part = self._pixels(rows, columns)
        else:
            lengths = self.reader.size
            high, wide = (
                needed(span, length, side, self.align_corners)
                for span, length, side in zip((rows, columns), lengths, self.size, strict=True)
            )
            origin = (high[0], wide[0])
            part = resample(self._pixels(high, wide), origin, lengths, (rows, columns), self.size, self.align_corners)
        return part.flip(-1) if self.mirrored else part

    def _pixels(self, rows: Span, columns: Span) -> Tensor:
        part = self.reader.read(Window(*rows, *columns))[None].to(self.like.device)
        return part.to(self.like.dtype) / 255 if part.dtype == torch.uint8 else part.to(self.like.dtype)


class Sweep:
    """The passes over one scale of an image, mirrored or not, and then the scores of any window of it."""

    def __init__(
        self,
        model: Segmenter,
        field: ReceptiveField,
        source: Source,
        crop: Extent,
        regional: int | None = None,
        before_pass: Callable[[], None] | None = None,
    ) -> None:
        self._model, self._field, self._source, self._before_pass = model, field, source, before_pass
        meta = on_meta(model)
        image = torch.empty(1, 3, *source.size, device="meta", dtype=model.mean.dtype)
        with torch.no_grad():
            maps, (scores, self.covered) = meta.features(image), meta.coarse(image)
        self.grid: Extent = (scores.shape[2], scores.shape[3])
        shapes = {stage: maps[stage].shape for stage in field.stage_strides}
        self._whole = {stage: (shape[1], shape[2], shape[3]) for stage, shape in shapes.items()}
        self._crop = tuple(-(-side // field.multiple) * field.multiple for side in crop)
        self._store: FeatureStore | None = None
        rows, columns = (regions_of(side, regional or side, field.multiple) for side in source.size)
        self._regions = {(high, wide): _Ledger() for high in rows for wide in columns}

    def prepare(self) -> None:
        """All passes but the last."""
        dtype = self._model.mean.dtype
        if self._field.rounds and FeatureStore.fits(self._whole, dtype):
            store = FeatureStore(self._whole, dtype)
            border = max(self._field.scores - self._field.head, 0)
            ((rows, columns), ledger), *_ = self._regions.items()
            every = ((0, self._source.size[0]), (0, self._source.size[1]))
            for core in self._cores(every):
                features, tiles = self._features(core, border, (rows, columns), ledger)
                for stage, x in features.items():
                    store.write(stage, tiles[stage], x)
            self._store = store
        for region, ledger in self._regions.items():
            for border in self._field.rounds:
                for core in self._cores(region):
                    features, tiles = self._features(core, border, region, ledger)
                    ledger.begin()
                    with suppress(_Gathered):
                        self._model.head(features, SILENT, tiles)
                ledger.close()

    def layers(self, window: Window) -> Iterator[tuple[Layer, Tensor | None]]:
        """The logits of a window of the image at this scale, of every region that it lies in, and the region's share in
        each of its pixels, [h, w]; None where it has them all."""
        step = self._field.multiple
        (height, width), mirrored = self._source.size, self._source.mirrored
        seen = window.mirrored(width) if mirrored else window
        core = (
            (seen.top // step * step, min(-(-seen.bottom // step) * step, height)),
            (seen.left // step * step, min(-(-seen.right // step) * step, width)),
        )
        features: dict[int, Tensor] = {}
        for region, ledger in self._regions.items():
            share = self._share(region, seen)
            if share is not None and not share.any():
                continue
            ledger.begin()
            features, tiles = self._features(core, self._field.scores, region, ledger, features)
            scores = self._model.head(features, SILENT, tiles)
            stage, stride = next(iter(tiles.values())), self._field.stride
            origin = (stage.origin[0] * stage.stride // stride, stage.origin[1] * stage.stride // stride)
            place = TilePlacement(origin, self.grid, self.covered, window, mirrored, self._source.align_corners)
            yield Layer(scores, place), share.flip(-1) if mirrored and share is not None else share

    def _share(self, region: tuple[Span, Span], window: Window) -> Tensor | None:
        """How much a region counts in each pixel of a window: it falls towards the region's border, and all regions that
        hold a pixel share it out."""
        if len(self._regions) == 1:
            return None
        rows, columns = ({spans[axis] for spans in self._regions} for axis in (0, 1))
        high = shares_of(region[0], rows, (window.top, window.bottom))
        wide = shares_of(region[1], columns, (window.left, window.right))
        return torch.outer(high, wide).to(self._source.like)

    def _cores(self, region: tuple[Span, Span]) -> Iterator[tuple[Span, Span]]:
        (top, bottom), (left, right) = region
        high, wide = self._crop
        for start in range(top, bottom, high):
            for first in range(left, right, wide):
                yield (start, min(start + high, bottom)), (first, min(first + wide, right))

    def _features(
        self,
        core: tuple[Span, Span],
        border: int,
        region: tuple[Span, Span],
        ledger: _Ledger,
        known: Mapping[int, Tensor] | None = None,
    ) -> tuple[dict[int, Tensor], dict[int, Tile]]:
        """The backbone's maps of a core with so many pixels of border, and where they lie."""
        border = border if self._store is None else self._field.head
        spans = [
            _around(span, border, self._field.multiple, side)
            for span, side in zip(core, self._source.size, strict=True)
        ]
        if self._before_pass is not None and not known:
            self._before_pass()
        if known:
            features = dict(known)
        elif self._store is None:
            every = self._model.features(self._source.read(Window(*spans[0], *spans[1])))
            features = {stage: every[stage] for stage in self._field.stage_strides}
        else:
            places = {stage: self._cells(stage, (spans[0], spans[1])) for stage in self._field.stage_strides}
            features = {
                stage: self._store.read(stage, *place).to(self._source.like.device) for stage, place in places.items()
            }
        tiles = {}
        for stage, x in features.items():
            stride, whole = self._field.stage_strides[stage], self._whole[stage][1:]
            tiles[stage] = Tile(
                whole,
                (spans[0][0] // stride, spans[1][0] // stride),
                (x.shape[2], x.shape[3]),
                self._cells(stage, core),
                self._cells(stage, region),
                stride,
                ledger,
            )
        return features, tiles

    def _cells(self, stage: int, pixels: tuple[Span, Span]) -> tuple[Span, Span]:
        """The cells of a stage's map that belong to these pixels."""
        stride, whole = self._field.stage_strides[stage], self._whole[stage][1:]
        first, second = (
            (min(start // stride, cells), cells if end >= side else min(end // stride, cells))
            for (start, end), cells, side in zip(pixels, whole, self._source.size, strict=True)
        )
        return first, second


def _around(span: Span, border: int, step: int, side: int) -> Span:
    """A span with a border on both sides, from and to multiples of `step`, inside."""
    return max(0, (span[0] - border) // step * step), min(side, -(-(span[1] + border) // step) * step)


def regions_of(side: int, length: int, step: int) -> tuple[Span, ...]:
    """Spans of that length, which overlap by half, from multiples of `step`; the last one ends with the side."""
    length = -(-length // step) * step
    if side <= length:
        return ((0, side),)
    last = -(-(side - length) // step) * step
    starts = [*range(0, last, max(step, length // 2 // step * step)), last]
    return tuple((start, min(start + length, side)) for start in starts)


def shares_of(span: Span, spans: Iterable[Span], window: Span) -> Tensor:
    """The share of one of the spans in each position of a window, float64: by the distance to its nearer end."""
    place = torch.arange(*window, dtype=EXACT) + 0.5

    def weight(span: Span) -> Tensor:
        return torch.minimum(place - span[0], span[1] - place).clamp(min=0)

    return weight(span) / torch.stack([weight(one) for one in spans]).sum(0)
