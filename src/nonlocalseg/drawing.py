"""Pictures of masks, scores and training: pixel-exact ones with Pillow, plots with matplotlib; colours are arguments.

Every picture can be told apart without hue: regions carry their class's number and an outline, curves their own
marker and dash, and colour maps grow steadily in lightness. The first default colours are those of Okabe and Ito
(Color Universal Design, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from nonlocalseg.files import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]
Palette = Sequence[Sequence[int]]  # K colours, RGB 0-255

IGNORE = 255
VOID_COLOUR: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
INK: Colour = (20, 20, 20)
RIGHT: Colour = (232, 232, 232)
WRONG: Colour = (190, 60, 0)
UNSCORED: tuple[Colour, Colour] = (170, 170, 170), (205, 205, 205)  # the two stripes
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
    (153, 153, 153),  # grey; their eighth colour, black, is kept for void
)
SMALLEST_TEXT = 14  # pixels
SMALLEST_SIDE = (
    288  # pictures whose longer side is below it are enlarged by a whole factor before anything is written beside them
)
STRIP_ROWS = 512  # rows blended at once


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Distinct colours for any number of classes up to 1000: Okabe and Ito's, then each the farthest from all before.

    Distances are in CIELAB. None is black, which is void's.
    """
    if not 0 < num_classes <= 1000:
        raise ValueError(f"num_classes: {num_classes}; a palette has 1 to 1000 colours")
    levels = np.linspace(0, 255, 12).round().astype(int)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    places = _lab(candidates)
    palette = list(OKABE_ITO)
    taken = _lab(np.array([VOID_COLOUR, WHITE, *palette]))
    distance = np.linalg.norm(places[:, None] - taken[None], axis=-1).min(1)
    while len(palette) < num_classes:
        best = int(distance.argmax())
        red, green, blue = candidates[best].tolist()
        palette.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(places - places[best], axis=-1))
    return tuple(palette[:num_classes])


def colour(mask: ArrayLike, palette: Palette, void: Colour = VOID_COLOUR) -> np.ndarray:
    """Class indices [H, W] -> uint8 [H, W, 3]; 255 becomes `void`. Raises ValueError for an index without a colour."""
    indices = np.asarray(mask)
    table = np.zeros((max(256, len(palette)), 3), np.uint8)
    table[IGNORE] = void
    table[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    wrong = indices[(indices < 0) | ((indices >= len(palette)) & (indices != IGNORE))]
    if wrong.size:
        raise ValueError(f"mask: class {wrong[0]} has no colour; the palette has {len(palette)} (0-{len(palette) - 1})")
    return table[indices]


def overlay(image: np.ndarray, mask: ArrayLike, palette: Palette, opacity: float = 0.5) -> np.ndarray:
    """The mask's colours over the image uint8 [H, W, 3], of the same size; void shows the image alone."""
    indices = np.asarray(mask)
    if image.shape[:2] != indices.shape:
        raise ValueError(f"mask: {list(indices.shape)} over an image of {list(image.shape[:2])}; sizes must agree")
    result = np.empty_like(image)
    for start in range(0, len(image), STRIP_ROWS):
        rows = slice(start, start + STRIP_ROWS)
        share = np.where(indices[rows] == IGNORE, 0, opacity)[..., None].astype(np.float32)
        result[rows] = (image[rows] * (1 - share) + colour(indices[rows], palette) * share + 0.5).astype(np.uint8)
    return result


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
    picture, indices = _enlarged(picture, factor), _enlarged(indices, factor)
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
    present: Mapping[int, float] | None = None,
    height: int = 480,
    text: int = SMALLEST_TEXT,
    numbered: bool = True,
) -> np.ndarray:
    """Swatches with the classes' numbers, names and shares, uint8 [about height, W, 3], in columns where needed.

    present: class -> share of the pixels, in the order to list them; all classes without shares where it is None.
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
            ink = INK if np.dot(fill, (0.299, 0.587, 0.114)) > 120 else WHITE
            if numbered:
                draw.text((left + text, middle), str(index), font=_font(round(0.8 * text)), fill=ink, anchor="mm")
            draw.text((left + 2.6 * text, middle), name, font=font, fill=INK, anchor="lm")
            draw.text((left + width - 1.6 * text, middle), value, font=font, fill=INK, anchor="rm")
        left += width
    return np.array(canvas)


def with_legend(
    picture: np.ndarray,
    classes: Sequence[str],
    palette: Palette,
    present: Mapping[int, float] | None = None,
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
) -> np.ndarray:
    """A table of pictures uint8 [h, w, 3] (image, truth, models ...) with titles and the legend of all classes.

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
    return with_legend(np.array(canvas), classes, palette, title=title, text=text)


def error_map(prediction: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Where a prediction [H, W] is wrong: right light, wrong dark red, unlabelled striped. uint8 [H, W, 3]."""
    said, truth = np.asarray(prediction), np.asarray(target)
    if said.shape != truth.shape:
        raise ValueError(f"prediction: {list(said.shape)} for a target of {list(truth.shape)}; sizes must agree")
    period = max(8, max(truth.shape) // 60)
    y, x = np.ogrid[: truth.shape[0], : truth.shape[1]]
    stripes = ((x + y) // (period // 2) % 2).astype(np.uint8)
    picture = np.array([WRONG, RIGHT], np.uint8)[(said == truth).astype(np.uint8)]
    return np.where((truth == IGNORE)[..., None], np.array(UNSCORED, np.uint8)[stripes], picture)


def error_map_with_legend(prediction: ArrayLike, target: ArrayLike, title: str = "errors") -> np.ndarray:
    """`error_map` beside its legend with shares of all pixels."""
    said, truth = np.asarray(prediction), np.asarray(target)
    unlabelled = float((truth == IGNORE).mean())
    wrong = float(((said != truth) & (truth != IGNORE)).mean())
    picture = _enlarged(error_map(said, truth), math.ceil(SMALLEST_SIDE / max(truth.shape)))
    names, colours = ("right", "wrong", "not scored (striped)"), (RIGHT, WRONG, UNSCORED[0])
    return with_legend(
        picture, names, colours, {0: 1 - wrong - unlabelled, 1: wrong, 2: unlabelled}, title, numbered=False
    )


def curves(
    metrics: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str = "step",
    y_label: str = "",
) -> Figure:
    """One line per name, name -> (x, y), each with its own colour, dash and marker."""
    figure, axes = _figure((8, 5), title)
    dashes, markers = ("-", "--", "-.", ":"), "osD^vPX*"
    colours = [colour for i, colour in enumerate(OKABE_ITO) if i != 3]  # yellow is too pale for a line on white
    for i, (name, (x, y)) in enumerate(metrics.items()):
        style = {"linestyle": dashes[i % 4], "marker": markers[i % 8], "color": np.array(colours[i % 7]) / 255}
        axes.plot(x, y, label=name, markevery=max(1, len(x) // 10), markersize=5, linewidth=1.6, **style)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if metrics:
        axes.legend()
    return figure


def confusion_picture(confusion: ArrayLike, classes: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """The matrix [K, K] or [K, K + 1] (rows truth, last column void), each row divided by its sum.

    Up to 25 classes carry their percentages; rows of classes without a pixel are hatched.
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(confusion, np.float64)
    rows, columns = counts.shape
    if rows != len(classes) or columns not in (rows, rows + 1):
        raise ValueError(f"confusion: {list(counts.shape)} for {len(classes)} classes; give [K, K] or [K, K + 1]")
    sums = counts.sum(1, keepdims=True)
    shares = np.divide(counts, sums, out=np.full_like(counts, np.nan), where=sums > 0)
    cell = 0.5 if rows <= 25 else max(0.13, 0.5 - 0.012 * (rows - 25))  # inches
    size, text = max(5.0, 3 + cell * columns), min(10, 60 * cell)
    figure, axes = _figure((size + 1, size), title)
    axes.title.set_fontsize(12 + size / 2)
    picture = axes.imshow(shares, cmap="cividis", norm=PowerNorm(0.5, 0, 1))
    for row in np.flatnonzero(sums[:, 0] == 0):
        axes.axhspan(row - 0.5, row + 0.5, facecolor="white", edgecolor="grey", hatch="///", linewidth=0)
    names = [*classes, "(void)"][:columns]
    axes.set_xticks(range(columns), names, rotation=90, fontsize=text)
    axes.set_yticks(
        range(rows), [n if s else f"{n} (absent)" for n, s in zip(classes, sums, strict=True)], fontsize=text
    )
    axes.set(xlabel="predicted class", ylabel="true class")
    if rows <= 25:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.005:
                ink = "black" if share > 0.3 else "white"
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=9)
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1", "5", "10", "25", "50", "100"])
    bar.set_label("% of the true class's pixels (square-root scale)")
    return figure


def score_table(columns: Mapping[str, Sequence[float]], classes: Sequence[str], mean: str = "mean") -> str:
    """Plain text: one line per class, one column per model, in percent; the mean over the classes present last."""
    lines = [("class", *columns)]
    lines += [(name, *(_hundred(column[i]) for column in columns.values())) for i, name in enumerate(classes)]
    values = [np.asarray(column, np.float64) for column in columns.values()]
    means = [float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for v in values]
    lines.append((mean, *(_hundred(value) for value in means)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    written = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    rule = "-" * len(written[0])
    return "\n".join([written[0], rule, *written[1:-1], rule, written[-1]])


def save(figure: Figure | np.ndarray, path: str | Path) -> Path:
    """Write a plot (format by the suffix: .png, .svg, .pdf) or a picture uint8 [H, W, 3], whole or not at all."""
    import matplotlib

    with writing(path) as temporary:
        if isinstance(figure, np.ndarray):
            Image.fromarray(figure).save(temporary)
        else:
            with matplotlib.rc_context({"svg.hashsalt": "nonlocalseg"}):  # the same plot gives the same bytes
                figure.savefig(temporary, dpi=120, metadata={"Date": None} if Path(path).suffix == ".svg" else None)
    return Path(path)


def _figure(size: tuple[float, float], title: str) -> tuple[Figure, Any]:
    """A figure that no global state knows, with its one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


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


def _enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "<0.1 %"


def _hundred(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0-255 [N, 3] -> CIELAB [N, 3] under D65."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
