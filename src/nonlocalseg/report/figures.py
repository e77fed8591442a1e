"""The pictures of the page, as data URIs so that it needs no other file, each with the text that stands for it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from nonlocalseg import drawing
from nonlocalseg.explanation.collect import Explanation, explain
from nonlocalseg.explanation.pictures import PICTURES
from nonlocalseg.explanation.subject import Subject
from nonlocalseg.labels import IGNORE
from nonlocalseg.report.examples import Example, choose_pixels
from nonlocalseg.report.gather import Curve, Findings
from nonlocalseg.report.tables import mistakes
from nonlocalseg.report.words import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
JPEG_QUALITY = 88
LONGEST_SIDE = 640  # pixels of a picture on the page
CURVES = {
    "loss": ("Training loss", "nats", "{:.3g}"),
    "miou": ("mean IoU on the validation split", "mIoU in %", "{:.2f} %"),
    "rate": ("Learning rate of the backbone", "rate", "{:.2g}"),
    "images_per_second": ("Speed of the training", "images per second", "{:.3g}"),
}


@dataclass(frozen=True)
class Shown:
    """A picture on the page. source: its data URI. kind: "wide" scrolls on narrow screens, "plain" is no wider than text."""

    source: str
    alt: str
    caption: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Attending:
    """Where the model looks at one pixel: what stands above the pictures, and they."""

    heading: str
    pictures: Sequence[Shown]


def png(picture: np.ndarray | Figure) -> str:
    """A plot, or a picture uint8 [H, W, 3], as a data URI."""
    buffer = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    else:
        picture.savefig(buffer, format="png", dpi=DPI)
    return _uri(buffer.getvalue(), "png")


def jpeg(picture: np.ndarray | Figure) -> str:
    """A photograph uint8 [H, W, 3], or a plot with photographs in it, as a data URI a fraction as long as a PNG's."""
    buffer = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        how = {"quality": JPEG_QUALITY, "subsampling": 0}
        picture.savefig(buffer, format="jpeg", dpi=DPI, pil_kwargs=how)
    return _uri(buffer.getvalue(), "jpeg")


def curve_pictures(findings: Findings) -> list[Shown]:
    return [_curve(*CURVES[name], findings.curves[name]) for name in CURVES if name in findings.curves]


def _curve(title: str, unit: str, style: str, phases: Mapping[str, Curve]) -> Shown:
    if unit == "mIoU in %":
        phases = {phase: (steps, [100 * share for share in shares]) for phase, (steps, shares) in phases.items()}
    lines = {phase or unit: curve for phase, curve in phases.items()}
    plot = drawing.curves(lines, title, "step", unit, from_zero=unit == "images per second")
    plot.set_size_inches(5.6, 3.5)
    if len(lines) == 1 and (legend := plot.axes[0].get_legend()) is not None:
        legend.remove()
    told = []
    for phase, (steps, values) in phases.items():
        ends = [0, -1] if len(values) > 1 else [0]
        text = ", ".join(f"{style.format(values[end])} at step {steps[end]:.0f}" for end in ends)
        told.append(f"{phase}: {text}" if phase else text)
    if unit == "mIoU in %":
        highest, step = max(pair for steps, values in phases.values() for pair in zip(values, steps, strict=True))
        told.append(f"highest {style.format(highest)} at step {step:.0f}")
    text = "; ".join(told)
    return Shown(png(plot), f"{title} by step: {text}", f"{title}: {text}.")


def confusion_picture(findings: Findings) -> Shown:
    evaluation = findings.evaluation
    classes = evaluation.classes
    images = len(evaluation.images)
    title = f"{findings.run.resolve().name}: confusion matrix of {images} image{'' if images == 1 else 's'}"
    plot = drawing.confusion_picture(evaluation.confusion, classes, title)
    worst = next((f"; the commonest mistake is {m.truth} taken for {m.said}" for m in mistakes(findings)), "")
    return Shown(
        png(plot),
        f"Confusion matrix of {len(classes)} classes, rows the truth, columns the prediction{worst}",
        "Each row is divided by its sum; the brighter a cell off the diagonal, the commoner the mistake.",
        kind="plain" if len(classes) <= 40 else "wide",
    )


def example_pictures(findings: Findings, example: Example) -> list[Shown]:
    """Image, truth, prediction and errors, large enough to read and no larger than the page needs."""
    image = _resized(example.image, Image.Resampling.BOX)
    truth, said = (_resized(mask, Image.Resampling.NEAREST) for mask in (example.truth, example.prediction))
    factor = math.ceil(drawing.SMALLEST_SIDE / max(truth.shape))  # as `marked` enlarges
    palette, classes, name = findings.model.palette, findings.evaluation.classes, example.name

    def masked(mask: np.ndarray) -> str:
        return jpeg(drawing.marked(drawing.overlay(image, mask, palette, 0.7), mask))

    def listed(mask: np.ndarray) -> str:
        counts = np.bincount(mask[mask != IGNORE].astype(np.int64).ravel(), minlength=len(classes))
        return ", ".join(classes[k] for k in np.argsort(-counts, kind="stable") if counts[k])

    wrong = percent(1 - example.pixel_accuracy)
    errors = drawing.enlarged(drawing.error_map(said, truth), factor)
    return [
        Shown(jpeg(drawing.enlarged(image, factor)), f"The image {name}", "image"),
        Shown(masked(truth), f"Ground truth of {name}, from large to small: {listed(truth)}", "ground truth"),
        Shown(masked(said), f"Prediction for {name}, from large to small: {listed(said)}", "prediction"),
        Shown(png(errors), f"Errors in {name}: {wrong} % of the labelled pixels are wrong", "errors"),
    ]


def _resized(picture: np.ndarray, how: Image.Resampling) -> np.ndarray:
    """The picture, or class indices as uint8, at most `LONGEST_SIDE` pixels long."""
    longest = max(picture.shape[:2])
    if longest <= LONGEST_SIDE:
        return picture
    wide, high = (max(1, round(picture.shape[axis] * LONGEST_SIDE / longest)) for axis in (1, 0))
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((wide, high), how))


def attention_pictures(findings: Findings, count: int) -> list[Attending]:
    """Of `count` pixels, all pictures that show where a model looks; without pictures for a model that has none."""
    found = []
    for example, pixel in choose_pixels(findings, count):
        explanation = explain(findings.network, example.image, pixel)
        model = findings.plan.model
        subject = Subject({model: explanation}, example.name, example.truth, {model: findings.network})
        pictures = [
            Shown(jpeg(drawn.figure), "; ".join([drawn.alt, *drawn.lines]), drawn.caption, "wide")
            for picture in PICTURES.values()
            if picture.attends
            for drawn in picture.draw(subject)
        ]
        found.append(Attending(_heading(example, explanation), pictures))
    return found


def _heading(example: Example, explanation: Explanation) -> str:
    (x, y), classes = explanation.pixel, explanation.classes
    truth, said = classes[int(example.truth[y, x])], classes[int(explanation.prediction[y, x])]
    told = f"a right pixel, {truth}" if truth == said else f"a wrong pixel, {said} where {truth} is true"
    return f"{example.name}, x = {x}, y = {y}: {told}"


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
