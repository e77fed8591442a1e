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
    counts = np.bincount(indices[indices != IGNORE].ravel(), minlength=len(classes)).tolist()
    order = sorted(range(len(counts)), key=lambda k: -counts[k])
    shares = {k: counts[k] / indices.size for k in order if counts[k]}
    return with_legend(marked(overlay(image, indices, palette, opacity), indices), classes, palette, shares, title)


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
    present: Mapping[int, float | None] | None = None,
    height: int = 480,
    text: int = SMALLEST_TEXT,
    numbered: bool = True,
) -> np.ndarray:
    """Swatches with the classes' numbers, names and shares, uint8 [about height, W, 3], in columns where needed.

    present: class -> share of the pixels, or None to list it without, in the order to list them; by default all
    classes without shares.
    text: size in pixels. numbered: write the class's number into its swatch.
    """
    if len(classes) != len(palette):
        raise ValueError(f"palette: {len(palette)} colours for {len(classes)} classes; give one colour for each")
    row, font = round(1.5 * text), _font(text)
    lines = [(k, classes[k], _percent(share)) for k, share in present.items()] if present is not None else []
    lines = lines if present is not None else [(k, name, "") for k, name in enumerate(classes)]
    per_column = max(8, (height - text) // row)
    columns = [lines[i : i + per_column] for i in range(0, len(lines), per_column)]
    names = [max(font.getlength(name) for _, name, _ in column) for column in columns]
    values = [max(font.getlength(value) for _, _, value in column) for column in columns]
    widths = [round(a + b + 4.2 * text + (text if b else 0)) for a, b in zip(names, values, strict=True)]
    size = (sum(widths) + text, max(height, min(per_column, max(1, len(lines))) * row + text))
    canvas = Image.new("RGB", size, WHITE)
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
    present: Mapping[int, float | None] | None = None,
    title: str = "",
    text: int | None = None,
    numbered: bool = True,
) -> np.ndarray:
    """`picture` uint8 [H, W, 3] with a legend at its right and a title above; text, in pixels, grows with it."""
    text = text if text is not None else _text_size(picture.shape)
    side = legend(classes, palette, present, picture.shape[0], text, numbered)
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
    titles: Sequence[str],
    row_titles: Sequence[str],
    classes: Sequence[str],
    palette: Palette,
    title: str = "",
    present: Sequence[int] | None = None,
) -> np.ndarray:
    """A table of pictures uint8 [h, w, 3] (image, truth, models ...) with titles and the legend of all classes.

    present: the classes to list, where not all.

    Every picture is fitted into a square cell as wide as the largest, between 288 and 640 pixels; a row is as high as
    its highest picture.
    """
    if len(rows) != len(row_titles) or any(len(row) != len(titles) for row in rows):
        raise ValueError(f"rows: give {len(row_titles)} rows of {len(titles)} pictures, one per row and column title")
    side = min(640, max(SMALLEST_SIDE, *(length for row in rows for picture in row for length in picture.shape[:2])))
    fitted = [[_fitted(picture, side) for picture in row] for row in rows]
    wide = max(picture.width for row in fitted for picture in row)
    text, gap = SMALLEST_TEXT + 2, 6
    tops = [2 * text]
    for row in fitted:
        tops.append(tops[-1] + max(picture.height for picture in row) + gap)
    canvas = Image.new("RGB", (2 * text + len(titles) * (wide + gap), tops[-1]), WHITE)
    draw, font = ImageDraw.Draw(canvas), _font(text)
    lefts = [2 * text + j * (wide + gap) for j in range(len(titles))]
    for left, name in zip(lefts, titles, strict=True):
        draw.text((left + wide // 2, text), _shortened(name, font, wide), INK, font, anchor="mm")
    for i, (row, name) in enumerate(zip(fitted, row_titles, strict=True)):
        high = tops[i + 1] - tops[i] - gap
        label = Image.new("RGB", (high, 2 * text), WHITE)
        ImageDraw.Draw(label).text((high / 2, text), _shortened(name, font, high), INK, font, anchor="mm")
        canvas.paste(label.rotate(90, expand=True), (0, tops[i]))
        for left, picture in zip(lefts, row, strict=True):
            canvas.paste(picture, (left + (wide - picture.width) // 2, tops[i] + (high - picture.height) // 2))
    listed = None if present is None else dict.fromkeys(present)
    return with_legend(np.array(canvas), classes, palette, listed, title, text)


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
    return max(SMALLEST_TEXT, round(max(shape[:2]) / 50))


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


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "<0.1 %"
