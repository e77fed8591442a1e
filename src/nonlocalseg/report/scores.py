"""Scores with their intervals, the classes one by one, the confusion matrix, and the scores along boundaries."""

from __future__ import annotations

import math

import torch

from nonlocalseg import drawing
from nonlocalseg.metrics import bootstrap_intervals
from nonlocalseg.report.elements import (
    Html,
    bar,
    escaped,
    figure,
    joined,
    paragraph,
    percent,
    png,
    section,
    swatch,
    table,
    words,
)
from nonlocalseg.report.findings import Findings

SCORES = {
    "mean_iou": ("mean IoU", "IoU averaged over the classes"),
    "mean_accuracy": ("mean accuracy", "recall averaged over the classes"),
    "pixel_accuracy": ("pixel accuracy", "share of the labelled pixels that are right"),
    "frequency_weighted_iou": ("frequency-weighted IoU", "IoU averaged with the classes' shares of the pixels"),
}
MISTAKES = 8


def told_setting(findings: Findings) -> str:
    """The inference setting in words."""
    settings = findings.evaluation.settings
    words = [f"setting {settings['setting']}"] if settings.get("setting") else []
    if settings["mode"] == "slide":
        crop = settings["crop"]
        sides = (crop, crop) if isinstance(crop, int) else tuple(crop)
        words.append(f"windows of {sides[1]} × {sides[0]} pixels")
    else:
        words.append("whole images")
    if settings.get("short_side"):
        words.append(f"shorter side {settings['short_side']} pixels")
    scales = list(settings["scales"])
    words.append("one scale" if scales == [1.0] else f"scales {', '.join(f'{scale:g}' for scale in scales)}")
    if settings["flip"]:
        words.append("mirrored as well")
    if settings.get("precision", "32") != "32":
        words.append(f"precision {settings['precision']}")
    if settings.get("fast"):
        words.append(f"fast ({', '.join(settings['fast'])})")
    return ", ".join(words)


def scores_section(findings: Findings) -> Html:
    evaluation = findings.evaluation
    intervals = bootstrap_intervals(evaluation.counts) | {"mean_iou": evaluation.interval}
    rows = [
        (_named(name, meaning), percent(getattr(evaluation.scores, key)), *map(percent, intervals[key]))
        for key, (name, meaning) in SCORES.items()
    ]
    count = len(evaluation.images)
    caption = (
        f"Scores in per cent on {count} image{'' if count == 1 else 's'} of {findings.measured.phase.data}, split "
        f"{findings.measured.split}; {told_setting(findings)}"
    )
    heads = ("score", "%", "95 % from", "to")
    return section(
        "scores",
        "Scores",
        table(caption, heads, rows, kind="figures"),
        paragraph(
            "The intervals are bootstrap percentiles over the images: 1000 times as many images were drawn with "
            "replacement. They say how much the choice of images matters, not how much another training would differ.",
            kind="soft",
        ),
        _classes(findings),
    )


def _named(name: str, meaning: str) -> Html:
    return Html(f"{escaped(name)}<small>{escaped(meaning)}</small>")


def _classes(findings: Findings) -> Html:
    scores = findings.evaluation.scores
    rows = []
    for number, row in enumerate(scores.per_class(findings.evaluation.classes)):
        iou = row["iou"]
        assert iou is None or isinstance(iou, float)
        name = joined([swatch(findings.palette[number], number), str(row["class"])], " ")
        figures = (percent(row[key]) for key in ("precision", "recall"))  # pyright: ignore[reportArgumentType]
        rows.append((name, percent(iou), bar(math.nan if iou is None else iou), *figures, f"{row['pixels']:,}"))
    caption = "The classes in per cent, and their labelled pixels; a dash where a class is absent"
    return table(caption, ("class", "IoU", "", "precision", "recall", "pixels"), rows, kind="figures")


def confusion_section(findings: Findings) -> Html:
    evaluation = findings.evaluation
    classes = evaluation.classes
    plot = drawing.confusion_picture(evaluation.confusion, classes, "Confusion matrix")
    mistakes = _mistakes(evaluation.confusion, classes)
    worst = f"; the commonest mistake is {mistakes[0][0]} taken for {mistakes[0][1]}" if mistakes else ""
    alt = f"Confusion matrix of {len(classes)} classes, rows the truth, columns the prediction{worst}"
    caption = "Each row is divided by its sum; the brighter a cell off the diagonal, the commoner the mistake."
    rows = [(truth, escaped(said), f"{pixels:,}", percent(share)) for truth, said, pixels, share in mistakes]
    heads = ("true class", words("taken for"), "pixels", "% of the true class")
    shown = [table("The commonest mistakes, by pixels", heads, rows, kind="figures")] if rows else []
    kind = "plain" if len(classes) <= 40 else "wide"
    return section("confusion", "Confusion", figure(png(plot), alt, caption, kind=kind), *shown)


def _mistakes(confusion: torch.Tensor, classes: tuple[str, ...]) -> list[tuple[str, str, int, float]]:
    """True class, predicted class, pixels and their share of the true class, the most pixels first."""
    wrong = confusion.clone()
    wrong.fill_diagonal_(0)
    truth, columns = confusion.sum(1), wrong.shape[1]
    found = []
    for place in wrong.flatten().argsort(descending=True, stable=True)[:MISTAKES].tolist():
        row, column = divmod(place, columns)
        pixels = int(wrong[row, column])
        if pixels:
            said = classes[column] if column < len(classes) else "(no class)"
            found.append((classes[row], said, pixels, pixels / int(truth[row])))
    return found


def boundary_section(findings: Findings) -> Html:
    found = findings.evaluation.boundary
    if found is None:
        command = f"nonlocalseg evaluate {findings.run} --data {findings.measured.phase.data} --boundary"
        told = Html(f"<code>{escaped(command)}</code>")
        return section(
            "boundaries", "Boundaries", paragraph("This evaluation did not measure the boundaries;", told, "does.")
        )
    rows = []
    for number, threshold in enumerate(found.thresholds):
        rows.append(
            (f"{threshold:g}", found.radius(number), percent(found.published[number]), percent(found.present[number]))
        )
    heads = ("share of the diagonal", "radius in pixels", "F, all classes", "F, classes present")
    parts = [
        table("Boundary F in per cent at four tolerances", heads, rows, kind="figures"),
        paragraph(
            "F is the harmonic mean of the boundary pixels' precision and recall, one counting as found within the "
            "radius. All classes: as published (GALD, Table V), where a class absent from an image counts as 1 there. "
            "Classes present: only images and classes that the class occurs in; the harder figure.",
            kind="soft",
        ),
    ]
    if found.mean_boundary_iou is not None:
        figures = [(f"Boundary IoU: {percent(found.mean_boundary_iou)} %,")]
        parts.append(paragraph(*figures, "the IoU of the bands along the objects' edges, 2 % of the diagonal wide."))
    return section("boundaries", "Boundaries", *parts)
