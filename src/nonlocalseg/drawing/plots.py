"""Plots, in matplotlib: curves, confusion matrices; the table of scores; and writing any picture to a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from nonlocalseg.drawing.colours import OKABE_ITO
from nonlocalseg.files import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves(
    metrics: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str = "step",
    y_label: str = "",
    from_zero: bool = False,
) -> Figure:
    """One line per name, name -> (x, y), each with its own colour, dash and marker.

    from_zero: the y axis begins at 0, for what is compared by its ratio, such as a speed.
    """
    figure, axes = _figure((8, 5), title)
    dashes, markers = ("-", "--", "-.", ":"), "osD^vPX*"
    colours = [colour for i, colour in enumerate(OKABE_ITO) if i != 3]  # yellow is too pale for a line on white
    for i, (name, (x, y)) in enumerate(metrics.items()):
        style = {"linestyle": dashes[i % 4], "marker": markers[i % 8], "color": np.array(colours[i % 7]) / 255}
        axes.plot(x, y, label=name, markevery=max(1, len(x) // 10), markersize=5, linewidth=1.6, **style)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if from_zero:
        axes.set_ylim(bottom=0)
    if metrics:
        axes.legend()
    return figure


def confusion_picture(confusion: ArrayLike, classes: Sequence[str], title: str = "Confusion matrix") -> Figure:
    """The matrix [K, K] or [K, K + 1] (rows truth, last column void), each row divided by its sum.

    A void column without a pixel is left out. Up to 25 classes carry their percentages; rows of classes without a
    pixel are hatched.
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(confusion, np.float64)
    rows, columns = counts.shape
    if rows != len(classes) or columns not in (rows, rows + 1):
        raise ValueError(f"confusion: {list(counts.shape)} for {len(classes)} classes; give [K, K] or [K, K + 1]")
    if columns > rows and not counts[:, rows].any():
        counts, columns = counts[:, :rows], rows
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


def rastered(figure: Figure) -> np.ndarray:
    """A plot as a picture uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(120)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


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


def _figure(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    """A figure that no global state knows, with its one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _hundred(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
