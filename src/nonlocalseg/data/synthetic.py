"""Drawn scenes, nothing to download: some labels can only be known by looking at the other end of the image.

A strip of landscape. At one end stands a signal with two lamps; at the other end lie fields. A blue field is water
while the upper lamp is red and ice while it is blue; a green field is grass while the lower lamp is yellow and crop
while it is violet. The two readings of a field are drawn alike, pixel for pixel, and every field pixel is at least half
the image's width away from every signal pixel: what a network sees within that distance says nothing about its class.
Everything else can be told from a few pixels around it; poles (3 to 7 pixels wide) and discs (5 to 9 pixels in radius)
are lost by networks that smooth too much.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset
from nonlocalseg.data.pairing import Pair
from nonlocalseg.labels import same
from nonlocalseg.values import Count, Natural, Size, value

DEFAULT_SIZE = (96, 512)
MINIMUM_CUE_DISTANCE = 256  # pixels between any field and the signal, at the default size: half the width

SKY, GROUND, POLE, DISC, SIGNAL, WATER, ICE, GRASS, CROP = range(9)
LOCAL = (SKY, GROUND, POLE, DISC, SIGNAL)
FAR = (WATER, ICE, GRASS, CROP)

LAMPS = {WATER: (230, 30, 30), ICE: (30, 80, 245), GRASS: (255, 235, 20), CROP: (120, 20, 190)}
LENGTHS = {"train": 800, "val": 50, "test": 200}


@value
class SyntheticOptions(DatasetOptions):
    size: Size = DEFAULT_SIZE
    "Height and width of the scenes, at least 48 and 96 and not upright."
    length: Count | None = None
    "Number of scenes; by default 800 for training, 50 for validation and 200 for testing."
    seed: Natural = 0
    "Another seed gives other scenes."

    def __post_init__(self) -> None:
        height, width = self.size
        if height < 48 or width < 96 or height > width:
            raise ValueError(f"size: {height} {width}; give height and width, at least 48 and 96 and not upright")


class Synthetic(SegmentationDataset):
    """Scenes drawn on the fly from (seed, split, index): the same triple gives the same scene.

    `root` is not used. Fields and signal are always at least half the width apart.
    """

    classes = ("sky", "ground", "pole", "disc", "signal", "water", "ice", "grass", "crop")
    palette = (
        (150, 195, 235),
        (150, 120, 90),
        (60, 60, 70),
        (240, 120, 40),
        (230, 60, 150),
        (40, 95, 190),
        (185, 240, 250),
        (60, 160, 60),
        (225, 210, 70),
    )
    labels = Labels(same(len(classes)))
    needs_root = False
    Options = SyntheticOptions
    options: SyntheticOptions

    def discover(self) -> Discovery:
        count = LENGTHS[self.split] if self.options.length is None else self.options.length
        names = [f"{self.split}_{index:05d}" for index in range(count)]
        return self.found(([Pair(name, Path(name), Path(name)) for name in names], []))

    def read_image(self, index: int) -> np.ndarray:
        return self.read(index)[0]

    def raw_label(self, index: int) -> np.ndarray:
        return self.read(index)[1]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        generator = np.random.default_rng((self.options.seed, self.splits.index(self.split), index))
        return draw_scene(generator, *self.options.size)


def draw_scene(
    generator: np.random.Generator, height: int, width: int, readings: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image uint8 [H, W, 3] and exact label uint8 [H, W].

    readings: (WATER or ICE, GRASS or CROP) in place of the drawn pair; it changes the lamps and the label, and not one
    other pixel.
    """
    canvas = _Canvas(generator, height, width)
    drawn = int(generator.choice((WATER, ICE))), int(generator.choice((GRASS, CROP)))
    canvas.readings = dict(zip((WATER, GRASS), drawn if readings is None else readings, strict=True))
    horizon = _landscape(canvas)
    signal_end = round(width * 0.02) + round(33 * canvas.unit)  # the signal stays left of this column
    _fields(canvas, horizon, signal_end + (width + 1) // 2)
    _objects(canvas, horizon, signal_end)
    _signal(canvas, signal_end)
    image, label = canvas.image, canvas.label
    if generator.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    image = image + generator.standard_normal((height, width, 1), dtype=np.float32) * 5
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), np.ascontiguousarray(label)


class _Canvas:
    """The picture so far, and what there is to draw on it with."""

    def __init__(self, generator: np.random.Generator, height: int, width: int) -> None:
        self.generator = generator
        self.height, self.width = height, width
        self.unit = min(height / 96, width / 256)
        self.image = np.zeros((height, width, 3), np.float32)
        self.label = np.zeros((height, width), np.uint8)
        self.readings: dict[int, int] = {}  # what a blue (WATER) and a green (GRASS) field are in this scene

    def paint(
        self, top: int, left: int, coverage: np.ndarray, colour: np.ndarray | tuple[int, int, int], kind: int
    ) -> None:
        """Blend `colour` ([3] or [h, w, 3]) by `coverage` [h, w] in 0..1; the label changes from a half on."""
        window = np.s_[top : top + coverage.shape[0], left : left + coverage.shape[1]]
        under = self.image[window]
        self.image[window] = under + coverage[..., None] * (np.asarray(colour, np.float32) - under)
        self.label[window][coverage >= 0.5] = kind

    def wave(self, count: int, amplitude: float, length: int, periods: float) -> np.ndarray:
        """A smooth random curve of `length` points: `count` sines of up to `periods` periods."""
        x = np.linspace(0, 2 * np.pi, length, dtype=np.float32)
        frequency = self.generator.uniform(0.5, periods, (count, 1)).astype(np.float32)
        phase = self.generator.uniform(0, 2 * np.pi, (count, 1)).astype(np.float32)
        return amplitude / count * np.sin(frequency * x + phase).sum(0)

    def tint(self, strength: float) -> np.ndarray:
        """A random shift of red, green and blue."""
        return self.generator.uniform(-strength, strength, 3).astype(np.float32)


def _landscape(canvas: _Canvas) -> np.ndarray:
    """Sky above ground; returns the horizon's row in each column."""
    height, width, draw = canvas.height, canvas.width, canvas.generator.uniform
    row = np.arange(height, dtype=np.float32)[:, None]
    horizon = height * draw(0.34, 0.44) + canvas.wave(3, height * 0.09, width, 6)
    depth = (row / height)[..., None]
    sky = _colour(125, 175, 225) + depth * _colour(90, 60, 25) + canvas.tint(12)
    clouds = canvas.wave(4, 22, width, 9) * np.sin(row / height * draw(9, 15) + draw(0, 6))
    soil = _colour(176, 142, 104) - depth * _colour(60, 50, 40) + canvas.tint(10)
    furrows = 6 * np.sin(row**1.2 * 0.9 / canvas.unit + canvas.wave(3, 8, width, 12))
    canvas.image[:] = sky + np.maximum(clouds, 0)[..., None]
    top = max(int(horizon.min()) - 1, 0)
    ground = np.clip(row - horizon + 0.5, 0, 1)
    canvas.paint(top, 0, ground[top:], (soil + furrows[..., None])[top:], GROUND)
    return horizon


def _fields(canvas: _Canvas, horizon: np.ndarray, left: int) -> None:
    """A blue and a green field, side by side, from column `left` on."""
    generator = canvas.generator
    row = np.arange(canvas.height, dtype=np.float32)[:, None]
    column = np.arange(left, canvas.width, dtype=np.float32)
    top = horizon[left:] + 4 * canvas.unit
    middle = left + (canvas.width - left) * generator.uniform(0.35, 0.65)
    edge = middle + canvas.wave(3, 0.12 * (canvas.width - left), canvas.height, 4)[:, None]
    looks = generator.permutation([WATER, GRASS])
    gap = 3 * canvas.unit
    bottom = canvas.height - 5 * canvas.unit + canvas.wave(3, 5 * canvas.unit, len(column), 4)
    between = np.clip(np.minimum(row - top, bottom - row) + 0.5, 0, 1)
    first = np.minimum(edge - gap - column, column - left - gap - canvas.wave(3, gap, canvas.height, 5)[:, None])
    second = np.minimum(column - edge - gap, canvas.width - 2 * gap - column)
    for look, inside in zip(looks, (first, second), strict=True):
        coverage = between * np.clip(inside + 0.5, 0, 1)
        canvas.paint(0, left, coverage, _texture(canvas, look, row, column), canvas.readings[int(look)])


def _texture(canvas: _Canvas, look: int, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Blue with flat ripples, or green with slanting rows; knows the look and not the class."""
    phase = canvas.generator.uniform(0, 6, 2).astype(np.float32)
    tint = canvas.tint(8)
    if look == WATER:
        ripple = np.sin(row * 1.1 / canvas.unit + 1.5 * np.sin(column * 0.11 / canvas.unit + phase[0]) + phase[1])
        return _colour(92, 150, 190) + tint + 13 * ripple[..., None]
    rows = np.sin((column + 0.6 * row) * 0.9 / canvas.unit + phase[0])
    return _colour(118, 158, 72) + tint + 15 * rows[..., None]


def _objects(canvas: _Canvas, horizon: np.ndarray, left: int) -> None:
    """Poles and discs anywhere right of `left`, behind nothing."""
    generator, unit = canvas.generator, canvas.unit
    margin = round(6 * unit)
    for column in generator.integers(left + margin, canvas.width - margin, generator.integers(4, 8)):
        foot = min(int(horizon[column] + generator.uniform(6, 40) * unit), canvas.height - 1)
        head = max(int(foot - generator.uniform(30, 55) * unit), 2)
        thickness = max(round(generator.uniform(2.5, 7) * unit), 1)
        coverage = np.ones((foot - head, thickness), np.float32)
        canvas.paint(head, int(column), coverage, (52, 50, 56), POLE)
    for _ in range(generator.integers(4, 9)):
        radius = max(generator.uniform(4.5, 9) * unit, 1.2)
        x = generator.uniform(left + margin, canvas.width - margin)
        y = generator.uniform(margin, canvas.height - margin)
        _disc(canvas, x, y, radius, (238, 122, 38), DISC)


def _signal(canvas: _Canvas, right: int) -> None:
    """A dark board with the two lamps, left of column `right`; all of it is class signal."""
    unit, generator = canvas.unit, canvas.generator
    board_height, board_width = round(66 * unit), round(31 * unit)
    top = int(generator.uniform(0.1, 0.9) * (canvas.height - board_height))
    left = int(generator.integers(0, right - board_width + 1))
    canvas.paint(top, left, np.ones((board_height, board_width), np.float32), (38, 36, 44), SIGNAL)
    x = left + board_width / 2 - 0.5
    for y, look in ((17, WATER), (49, GRASS)):
        _disc(canvas, x, top + y * unit - 0.5, 14.5 * unit, LAMPS[canvas.readings[look]], SIGNAL)


def _colour(red: int, green: int, blue: int) -> np.ndarray:
    return np.array([red, green, blue], np.float32)


def _disc(canvas: _Canvas, x: float, y: float, radius: float, colour: tuple[int, int, int], kind: int) -> None:
    top, left = max(int(y - radius - 1), 0), max(int(x - radius - 1), 0)
    row = np.arange(top, min(int(y + radius + 3), canvas.height), dtype=np.float32)[:, None]
    column = np.arange(left, min(int(x + radius + 3), canvas.width), dtype=np.float32)
    distance = np.hypot(row - np.float32(y), column - np.float32(x))
    canvas.paint(top, left, np.clip(radius - distance + 0.5, 0, 1), colour, kind)
