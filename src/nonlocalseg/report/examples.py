"""The worst and the best images by their own mIoU, each beside its truth, its prediction and its errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nonlocalseg import drawing
from nonlocalseg.drawing.pictures import enlarged
from nonlocalseg.report.elements import (
    Html,
    figure,
    grid,
    joined,
    jpeg,
    legend,
    paragraph,
    percent,
    png,
    section,
    swatch,
)
from nonlocalseg.report.findings import Findings

LONGEST_SIDE = 640  # pixels of a picture on the page


@dataclass(frozen=True, eq=False)
class Example:
    """One evaluated image. image uint8 [H, W, 3], truth uint8 [H, W] (255 where nothing is labelled), prediction int64
    [H, W]; miou and pixel_accuracy are those of the evaluation."""

    name: str
    miou: float
    pixel_accuracy: float
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """bool [H, W]: labelled and not as predicted."""
        return (self.prediction != self.truth) & (self.truth != drawing.IGNORE)


@dataclass(frozen=True)
class Examples:
    worst: Sequence[Example]
    best: Sequence[Example]


def ranked(findings: Findings) -> list[int]:
    """Rows of the evaluation from the lowest mIoU to the highest, those without a labelled pixel left out."""
    rows = findings.evaluation.images
    scored = [row for row in range(len(rows)) if not math.isnan(rows[row]["miou"])]
    return sorted(scored, key=lambda row: rows[row]["miou"])


def open_example(findings: Findings, row: int) -> Example:
    image, truth = findings.measured.read(row)
    found = findings.evaluation.images[row]
    return Example(found["name"], found["miou"], found["pixel_accuracy"], image, truth, findings.predict(image))


def choose_examples(findings: Findings, count: int) -> Examples:
    """`count` worst and best images; fewer of each where that would show one twice."""
    rows = ranked(findings)
    each = min(count, max(1, len(rows) // 2))
    best = rows[::-1][: min(each, len(rows) - each)]
    return Examples(*([open_example(findings, row) for row in chosen] for chosen in (rows[:each], best)))


def images_section(findings: Findings, examples: Examples) -> Html:
    shown = [*examples.worst, *examples.best]
    if not shown:
        return section("images", "Images", paragraph("No images were asked for."))
    present = sorted(set().union(*(np.unique([*np.unique(e.truth), *np.unique(e.prediction)]).tolist() for e in shown)))
    classes = [(swatch(findings.palette[k], k), findings.evaluation.classes[k]) for k in present if k != drawing.IGNORE]
    errors = [
        (swatch(drawing.RIGHT), "right"),
        (swatch(drawing.WRONG), "wrong"),
        (Html('<span class="swatch stripes" aria-hidden="true">&nbsp;</span>'), "not labelled (striped)"),
    ]
    parts = [
        paragraph("Each image's mIoU is over the classes in it. Numbers and outlines mark the classes:"),
        legend(classes),
        paragraph("The error maps:"),
        legend(errors),
    ]
    for title, chosen in (("worst", examples.worst), ("best", examples.best)):
        for number, example in enumerate(chosen, 1):
            rank = f"The {title} image" if number == 1 else f"Number {number} of the {title}"
            parts += [
                Html(f"<h3>{joined([f'{rank}: {example.name}'])}</h3>"),
                _told(example),
                _pictures(findings, example),
            ]
    return section("images", "Worst and best images", *parts)


def _told(example: Example) -> Html:
    scores = f"mIoU {percent(example.miou)} %, {percent(example.pixel_accuracy)} % of the labelled pixels right"
    return paragraph(f"{scores}; {example.image.shape[1]} × {example.image.shape[0]} pixels")


def _pictures(findings: Findings, example: Example) -> Html:
    """Image, truth, prediction and errors, large enough to read and no larger than the page needs."""
    image = _resized(example.image, Image.Resampling.BOX)
    truth, said = (_resized(mask, Image.Resampling.NEAREST) for mask in (example.truth, example.prediction))
    factor = math.ceil(drawing.SMALLEST_SIDE / max(truth.shape))  # as `marked` enlarges
    palette, classes, name = findings.palette, findings.evaluation.classes, example.name

    def masked(mask: np.ndarray) -> str:
        return jpeg(drawing.marked(drawing.overlay(image, mask, palette, 0.7), mask))

    def listed(mask: np.ndarray) -> str:
        counts = np.bincount(mask[mask != drawing.IGNORE].astype(np.int64).ravel(), minlength=len(classes))
        return ", ".join(classes[k] for k in np.argsort(-counts, kind="stable") if counts[k])

    share = 1 - example.pixel_accuracy
    errors = enlarged(drawing.error_map(said, truth), factor)
    return grid(
        [
            figure(jpeg(enlarged(image, factor)), f"The image {name}", "image"),
            figure(masked(truth), f"Ground truth of {name}, from large to small: {listed(truth)}", "ground truth"),
            figure(masked(said), f"Prediction for {name}, from large to small: {listed(said)}", "prediction"),
            figure(png(errors), f"Errors in {name}: {percent(share)} % of the labelled pixels are wrong", "errors"),
        ]
    )


def _resized(picture: np.ndarray, how: Image.Resampling) -> np.ndarray:
    """The picture, or class indices as uint8, at most `LONGEST_SIDE` pixels long."""
    longest = max(picture.shape[:2])
    if longest <= LONGEST_SIDE:
        return picture
    wide, high = (max(1, round(picture.shape[axis] * LONGEST_SIDE / longest)) for axis in (1, 0))
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((wide, high), how))
