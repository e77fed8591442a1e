"""Pictures with writing on them, in Pillow: legends, numbered outlines, tables of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from nonlocalseg.drawing.colours import INK, WHITE, ink_on, overlay
from nonlocalseg.labels import IGNORE, Palette

SMALLEST_TEXT = 14  # pixels
SMALLEST_SIDE = 288
"""Pictures whose longer side is below it are enlarged by a whole factor before anything is written beside them."""
LARGEST_TEXT = 64
TABLE_TEXT = 20
TABLE_WIDTH = 1000  # pixels of a table of pictures: its writing can be read on a telephone


def overlay_with_legend(
    image: np.ndarray,
    mask: ArrayLike,
    classes: Sequence[str],
    palette: Palette,
    opacity: float = 0.5,
    title: str = "",
) -> np.ndarray:
    """The overlay, outlined and numbered, beside the classes present, largest first, with their shares of the pixels.

    Text grows with the image; images less than 288 pixels wide and high are enlarged by a whole factor. Void is not
    listed. uint8 [H', W', 3].
    """
    indices = np.asarray(mask)
    shares = {k: percent(share) for k, share in class_shares(indices, len(classes)).items()}
    return with_legend(marked(overlay(image, indices, palette, opacity), indices), classes, palette, shares, title)


def class_shares(mask: ArrayLike, count: int) -> dict[int, float]:
    """The classes present in a mask [H, W], the largest first, with their shares of all pixels; void is left out."""
    indices = np.asarray(mask)
    counts = np.bincount(indices[indices != IGNORE].ravel(), minlength=count).tolist()
    return {k: counts[k] / indices.size for k in sorted(range(len(counts)), key=lambda k: -counts[k]) if counts[k]}


def marked(picture: np.ndarray, mask: ArrayLike) -> np.ndarray:
    """`picture` uint8 [H, W, 3] with the outlines of the mask's regions and each class's number in its widest one.

    Pictures less than 288 pixels wide and high are enlarged by a whole factor, so that the numbers fit.
    """
    indices = np.asarray(mask)
    factor = math.ceil(SMALLEST_SIDE / max(indices.shape))
    picture, indices = enlarged(picture, factor), enlarged(indices, factor)
    text = _text_size(picture.shape)
    picture = picture.copy()
    picture[_outlines(indices, max(1, text // 12))] = INK
    canvas = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(canvas), _font(text, bold=True)
    for index in np.flatnonzero(np.bincount(indices[indices != IGNORE].ravel())).tolist():
        x, y, radius = _centre(indices == index)
        if radius > 0.7 * text:
            stroke = max(1, text // 8)
            draw.text((x, y), str(index), WHITE, font, anchor="mm", stroke_width=stroke, stroke_fill=INK)
    return np.array(canvas)


def legend(
    classes: Sequence[str],
    palette: Palette,
    present: Mapping[int, str] | None = None,
    height: int = 480,
    text: int = SMALLEST_TEXT,
    numbered: bool = True,
    width: int | None = None,
) -> np.ndarray:
    """Swatches with the classes' numbers, names and what is told of them, uint8 [about height, W, 3], in columns.

    present: class -> what is written behind it, such as its share, in the order to list them; by default all classes.
    text: size in pixels. numbered: write the class's number into its swatch. width: where given, the legend is as wide
    and as low as its columns allow, whatever `height` is.
    """
    if len(classes) != len(palette):
        raise ValueError(f"palette: {len(palette)} colours for {len(classes)} classes; give one colour for each")
    row, font = round(1.5 * text), _font(text)
    lines = [(k, classes[k], told) for k, told in (present or {}).items()]
    lines = lines if present is not None else [(k, name, "") for k, name in enumerate(classes)]

    def divided(per_column: int) -> tuple[list[list[tuple[int, str, str]]], list[int]]:
        columns = [lines[i : i + per_column] for i in range(0, len(lines), per_column)]
        names = [max(font.getlength(name) for _, name, _ in column) for column in columns]
        values = [max(font.getlength(value) for _, _, value in column) for column in columns]
        return columns, [round(a + b + 4.2 * text + (text if b else 0)) for a, b in zip(names, values, strict=True)]

    per_column = max(8, (height - text) // row)
    if width is not None:
        fitting = (n for n in range(1, len(lines) + 1) if sum(divided(n)[1]) + text <= width)
        per_column = next(fitting, max(1, len(lines)))
    columns, widths = divided(per_column)
    room = min(per_column, max(1, len(lines))) * row + text
    canvas = Image.new("RGB", (max(sum(widths) + text, width or 0), room if width else max(height, room)), WHITE)
    draw = ImageDraw.Draw(canvas)
    left = text
    for column, width in zip(columns, widths, strict=True):
        for i, (index, name, value) in enumerate(column):
            top = text // 2 + i * row
            box = (left, top + row // 8, left + 2 * text, top + row - row // 8)
            fill = tuple(int(c) for c in palette[index])
            draw.rectangle(box, fill=fill, outline=INK)
            middle = top + row / 2
            if numbered:
                small = _font(round(0.8 * text))
                draw.text((left + text, middle), str(index), font=small, fill=ink_on(fill), anchor="mm")
            draw.text((left + 2.6 * text, middle), name, font=font, fill=INK, anchor="lm")
            draw.text((left + width - 1.6 * text, middle), value, font=font, fill=INK, anchor="rm")
        left += width
    return np.array(canvas)


def with_legend(
    picture: np.ndarray,
    classes: Sequence[str],
    palette: Palette,
    present: Mapping[int, str] | None = None,
    title: str = "",
) -> np.ndarray:
    """`picture` uint8 [H, W, 3] with a legend at its right and a title above; text grows with it."""
    text = _text_size(picture.shape)
    side = legend(classes, palette, present, picture.shape[0], text)
    band = 2 * text if title else 0
    height, width = max(len(picture), len(side)), picture.shape[1] + side.shape[1]
    canvas = Image.new("RGB", (width, height + band), WHITE)
    canvas.paste(Image.fromarray(picture), (0, band))
    canvas.paste(Image.fromarray(side), (picture.shape[1], band))
    font = _font(text, bold=True)
    ImageDraw.Draw(canvas).text((text // 2, band / 2), _shortened(title, font, width - text), INK, font, anchor="lm")
    return np.array(canvas)


def montage(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[Sequence[str]],
    legends: Sequence[np.ndarray] = (),
    title: str = "",
) -> np.ndarray:
    """A table of pictures uint8 [h, w, 3], each below its title, at most `TABLE_WIDTH` pixels wide where that is no
    less than 288 for a picture; legends of that width (`table_width`) stand below, a title above.

    Every picture is fitted into a square cell as wide as the largest; a row is as high as its highest picture.
    """
    if [len(row) for row in rows] != [len(row) for row in titles]:
        raise ValueError(f"titles: give one for each picture, {' + '.join(str(len(row)) for row in rows)} in all")
    columns = max(map(len, rows))
    side = _side(rows, columns)
    fitted = [[_fitted(picture, side) for picture in row] for row in rows]
    text, gap = TABLE_TEXT, 8
    width, step = table_width(rows), side + gap
    font = _font(text)
    bands: list[Image.Image] = [Image.fromarray(line(title, width, bold=True))] if title else []
    for row, names in zip(fitted, titles, strict=True):
        high = max(picture.height for picture in row)
        band = Image.new("RGB", (width, high + 2 * text), WHITE)
        for column, (picture, name) in enumerate(zip(row, names, strict=True)):
            left = gap + column * step
            shown = _shortened(name, font, side)
            ImageDraw.Draw(band).text((left + side // 2, text), shown, INK, font, anchor="mm")
            band.paste(picture, (left + (side - picture.width) // 2, 2 * text + (high - picture.height) // 2))
        bands.append(band)
    bands += [Image.fromarray(legend) for legend in legends]
    canvas = Image.new("RGB", (max(band.width for band in bands), sum(band.height for band in bands)), WHITE)
    top = 0
    for band in bands:
        canvas.paste(band, (0, top))
        top += band.height
    return np.array(canvas)


def table_width(rows: Sequence[Sequence[np.ndarray]]) -> int:
    """Pixels of what `montage` makes of the rows."""
    columns = max(map(len, rows))
    return 8 + columns * (_side(rows, columns) + 8)


def columns_for(picture: np.ndarray, count: int) -> int:
    """How many of `count` such pictures stand side by side: one wide one, three upright ones, otherwise two."""
    share = picture.shape[1] / picture.shape[0]
    return min(count, 1 if share >= 2.2 else 3 if share < 0.7 else 2)


def _side(rows: Sequence[Sequence[np.ndarray]], columns: int) -> int:
    longest = max(length for row in rows for picture in row for length in picture.shape[:2])
    return max(SMALLEST_SIDE, min(longest, TABLE_WIDTH // columns))


def line(text: str, width: int, bold: bool = False) -> np.ndarray:
    """A line of writing as wide as a table, uint8 [h, width, 3]."""
    font, high = _font(TABLE_TEXT, bold), 2 * TABLE_TEXT
    canvas = Image.new("RGB", (width, high), WHITE)
    ImageDraw.Draw(canvas).text((TABLE_TEXT, high / 2), _shortened(text, font, width - 30), INK, font, anchor="lm")
    return np.array(canvas)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, or as much of its beginning as `width` pixels hold."""
    whole = text
    while text and font.getlength(text if text == whole else text + "…") > width:
        text = text[:-1]
    return text if text == whole else text + "…"


def _text_size(shape: Sequence[int]) -> int:
    """Pixels: with the side of a square of the same area, so that a strip's is no larger than the strip."""
    return min(LARGEST_TEXT, max(SMALLEST_TEXT, round(math.sqrt(shape[0] * shape[1]) / 40)))


def _fitted(picture: np.ndarray, side: int) -> Image.Image:
    """The picture as large as a square of `side` pixels holds."""
    high, wide = (max(1, round(length * side / max(picture.shape[:2]))) for length in picture.shape[:2])
    how = Image.Resampling.NEAREST if side >= max(picture.shape[:2]) else Image.Resampling.BOX
    return Image.fromarray(picture).resize((wide, high), how)


def enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Every pixel of [H, W, ...] as `factor` x `factor` of them."""
    return pixels if factor <= 1 else pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _outlines(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels [H, W] within `width` to the upper left of a pixel of another class."""
    edges = np.zeros(mask.shape, bool)
    for step in range(1, width + 1):
        edges[:-step] |= mask[:-step] != mask[step:]
        edges[:, :-step] |= mask[:, :-step] != mask[:, step:]
    return edges


def _centre(region: np.ndarray) -> tuple[int, int, float]:
    """x, y and radius of about the largest disk within a region [H, W]."""
    from scipy.ndimage import distance_transform_edt

    step = max(1, max(region.shape) // 400)
    inside = np.pad(region[::step, ::step], 1)
    distance = np.asarray(distance_transform_edt(inside))
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return (int(x) - 1) * step, (int(y) - 1) * step, float(distance[y, x]) * step


def percent(share: float) -> str:
    """For people: 0.123 as 12.3 %."""
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "<0.1 %"
