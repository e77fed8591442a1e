"""A whole image of any size, exactly, in the memory of a tile.

What blocks gather from all positions adds up over tiles (`blocks/tiles.py`). Each round of statistics is a pass over the
tiles, which reach beyond their own pixels by as far as the network sees; in the last pass every tile knows the totals of
the whole image, and its scores are those of the whole image.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from nonlocalseg.blocks.tiles import Span, Tile, resample
from nonlocalseg.files import write_text
from nonlocalseg.heads.base import SILENT
from nonlocalseg.inference.best import Layer
from nonlocalseg.inference.features import FeatureStore
from nonlocalseg.inference.ledger import Gathered, Ledger
from nonlocalseg.inference.readers import Reader
from nonlocalseg.inference.regions import regions_of, shares_of
from nonlocalseg.inference.resizing import Extent, TilePlacement, needed
from nonlocalseg.inference.windows import Window
from nonlocalseg.models.receptive import ReceptiveField, on_meta
from nonlocalseg.models.segmenter import Segmenter

STEPS, MAPS = "steps.txt", "maps"
"""What is kept in the folder of a sweep, beside the sums."""


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


@dataclass(frozen=True, eq=False)
class _Step:
    """One tile of one pass: its own pixels, and the border that it needs around them. gathers: what it adds to its
    region's ledger; else its maps are stored. last: of its pass."""

    core: tuple[Span, Span]
    border: int
    region: tuple[Span, Span]
    gathers: bool
    last: bool


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
        folder: Path | None = None,
    ) -> None:
        """folder: where what is found is kept tile by tile, so that another process goes on with it."""
        self._model, self._field, self._source, self._before_pass = model, field, source, before_pass
        meta = on_meta(model)
        image = torch.empty(1, 3, *source.size, device="meta", dtype=model.mean.dtype)
        with torch.no_grad():
            maps, (scores, self.covered) = meta.features(image), meta.coarse(image)
        self.grid: Extent = (scores.shape[2], scores.shape[3])
        shapes = {stage: maps[stage].shape for stage in field.stage_strides}
        self._whole = {stage: (shape[1], shape[2], shape[3]) for stage, shape in shapes.items()}
        self._crop = tuple(-(-side // field.multiple) * field.multiple for side in crop)
        self._folder = folder
        self._store: FeatureStore | None = None
        rows, columns = (regions_of(side, regional or side, field.multiple) for side in source.size)
        self._regions = {(high, wide): Ledger() for high in rows for wide in columns}

    @property
    def left(self) -> int:
        """How many tiles are to pass through the model before the first scores."""
        return len(self._steps) - self._done

    def prepare(self) -> None:
        """All passes but the last; what an earlier process has done is not done again."""
        done = self._restored()
        if self._stores:
            self._store = FeatureStore(self._whole, self._model.mean.dtype, self._folder and self._folder / MAPS)
        for number, step in enumerate(self._steps[done:], start=done + 1):
            ledger = self._regions[step.region]
            features, tiles = self._features(step.core, step.border, step.region, ledger, anew=not step.gathers)
            if step.gathers:
                ledger.begin()
                with suppress(Gathered):
                    self._model.head(features, SILENT, tiles)
            elif self._store is not None:
                for stage, x in features.items():
                    self._store.write(stage, tiles[stage], x)
            if self._folder is not None:
                self._keep(number, step)
            if step.gathers and step.last:
                ledger.close()

    @cached_property
    def _steps(self) -> Sequence[_Step]:
        """Every tile of every pass but the last, in their order."""
        found, regions = [], [*self._regions]
        if self._stores:
            every = ((0, self._source.size[0]), (0, self._source.size[1]))
            border = max(self._field.scores - self._field.head, 0)
            found += [_Step(core, border, regions[0], False, False) for core in self._cores(every)]
        for region in regions:
            cores = [*self._cores(region)]
            for border in self._field.rounds:
                found += [_Step(core, border, region, True, core is cores[-1]) for core in cores]
        return found

    @cached_property
    def _stores(self) -> bool:
        """Whether the backbone's maps are stored."""
        kept = self._folder and self._folder / MAPS
        if self._done:
            return kept is not None and kept.is_dir()
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)
        return bool(self._field.rounds) and FeatureStore.fits(self._whole, self._model.mean.dtype, self._folder)

    @property
    def _done(self) -> int:
        """How many steps are done, as the folder says."""
        said = self._folder and self._folder / STEPS
        return int(said.read_text()) if said is not None and said.is_file() else 0

    def _keep(self, number: int, step: _Step) -> None:
        """Note that so many steps are done, of which `step` is the last."""
        assert self._folder is not None
        if step.gathers:
            self._regions[step.region].keep(self._sum(number))
        write_text(self._folder / STEPS, str(number))
        if step.gathers and not self._steps[number - 2].last:
            self._sum(number - 1).unlink(missing_ok=True)

    def _restored(self) -> int:
        """How many steps are done; what they have gathered is in the ledgers again."""
        done = self._done
        try:
            for number, step in enumerate(self._steps[:done], start=1):
                if step.gathers and (step.last or number == done):
                    self._regions[step.region].restore(self._sum(number), self._source.like.device)
                    if step.last:
                        self._regions[step.region].close()
        except ValueError:  # a file that is not whole, as where the machine itself stopped
            self._regions = {region: Ledger() for region in self._regions}
            return 0
        return done

    def _sum(self, number: int) -> Path:
        """What a pass has gathered after so many steps."""
        assert self._folder is not None
        return self._folder / f"sum{number}.safetensors"

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
        ledger: Ledger,
        known: Mapping[int, Tensor] | None = None,
        anew: bool = False,
    ) -> tuple[dict[int, Tensor], dict[int, Tile]]:
        """The backbone's maps of a core with so many pixels of border, and where they lie. anew: not the stored ones."""
        stored = None if anew else self._store
        border = border if stored is None else self._field.head
        spans = [
            _around(span, border, self._field.multiple, side)
            for span, side in zip(core, self._source.size, strict=True)
        ]
        if self._before_pass is not None and not known:
            self._before_pass()
        if known:
            features = dict(known)
        elif stored is None:
            every = self._model.features(self._source.read(Window(*spans[0], *spans[1])))
            features = {stage: every[stage] for stage in self._field.stage_strides}
        else:
            places = {stage: self._cells(stage, (spans[0], spans[1])) for stage in self._field.stage_strides}
            features = {
                stage: stored.read(stage, *place).to(self._source.like.device) for stage, place in places.items()
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
