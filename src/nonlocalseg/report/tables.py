"""Rows of the page's tables: scores with intervals, classes, mistakes, boundaries, and the recipe field by field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nonlocalseg.data.augmentation import Augmentation
from nonlocalseg.data.source import DataSource
from nonlocalseg.labels import Colour
from nonlocalseg.metrics import bootstrap_intervals
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.report.gather import Findings
from nonlocalseg.training.plan import Plan
from nonlocalseg.values import names_of, options_of

SCORES = {
    "mean_iou": ("mean IoU", "IoU averaged over the classes"),
    "mean_accuracy": ("mean accuracy", "recall averaged over the classes"),
    "pixel_accuracy": ("pixel accuracy", "share of the labelled pixels that are right"),
    "frequency_weighted_iou": ("frequency-weighted IoU", "IoU averaged with the classes' shares of the pixels"),
}
MISTAKES = 8
OF_MODEL = ("model", "backbone", "model_options", "pretrained", "backbone_weights", "init_from")
"""The fields of `Plan` that decide the model; the others but `phases` decide the run."""


@dataclass(frozen=True)
class Score:
    name: str
    meaning: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassRow:
    number: int
    colour: Colour
    found: Mapping[str, Any]
    """class, iou, precision, recall and pixels."""


@dataclass(frozen=True)
class Mistake:
    """Pixels of a class that were taken for another, and their share of the class."""

    truth: str
    said: str
    pixels: int
    share: float


@dataclass(frozen=True)
class BoundaryRow:
    threshold: float
    radius: str
    published: float
    present: float


@dataclass(frozen=True)
class OptionRow:
    """One field of one or of several values; `differs` says of which it is not the default."""

    name: str
    help: str
    values: tuple[object, ...]
    differs: tuple[bool, ...]


def score_rows(findings: Findings) -> list[Score]:
    evaluation = findings.evaluation
    intervals = bootstrap_intervals(evaluation.counts) | {"mean_iou": evaluation.interval}
    return [
        Score(name, meaning, getattr(evaluation.scores, key), *intervals[key])
        for key, (name, meaning) in SCORES.items()
    ]


def class_rows(findings: Findings) -> list[ClassRow]:
    rows = findings.evaluation.scores.per_class(findings.evaluation.classes)
    return [ClassRow(number, findings.model.palette[number], row) for number, row in enumerate(rows)]


def mistakes(findings: Findings) -> list[Mistake]:
    """The commonest, the most pixels first."""
    confusion, classes = findings.evaluation.confusion, findings.evaluation.classes
    wrong = confusion.clone()
    wrong.fill_diagonal_(0)
    truth, columns = confusion.sum(1), wrong.shape[1]
    found = []
    for place in wrong.flatten().argsort(descending=True, stable=True)[:MISTAKES].tolist():
        row, column = divmod(place, columns)
        if pixels := int(wrong[row, column]):
            said = classes[column] if column < len(classes) else "(no class)"
            found.append(Mistake(classes[row], said, pixels, pixels / int(truth[row])))
    return found


def boundary_rows(findings: Findings) -> list[BoundaryRow]:
    """One row for each tolerance; none where boundaries were not measured."""
    found = findings.evaluation.boundary
    if found is None:
        return []
    return [
        BoundaryRow(threshold, found.radius(number), found.published[number], found.present[number])
        for number, threshold in enumerate(found.thresholds)
    ]


def plan_rows(plan: Plan) -> tuple[list[OptionRow], list[OptionRow]]:
    """Every field of the plan but its phases: those that decide the model, and those that decide the run."""
    run = [name for name in names_of(Plan) if name not in (*OF_MODEL, "phases")]
    return _option_rows(Plan, OF_MODEL, [plan]), _option_rows(Plan, run, [plan])


def phase_groups(phases: tuple[Phase, ...]) -> dict[str, list[OptionRow]]:
    """Every field of the phases, grouped by the value that it comes from."""
    data, augmentation = names_of(DataSource), names_of(Augmentation)
    own = [name for name in names_of(Phase) if name not in (*data, *augmentation)]
    groups = {"Data": data, "Augmentation": augmentation, "Schedule, loss and weights": own}
    return {title: _option_rows(Phase, names, phases) for title, names in groups.items()}


def _option_rows(kind: type, names: Iterable[str], values: Iterable[object]) -> list[OptionRow]:
    rows = []
    for name in names:
        option = options_of(kind)[name]
        found = tuple(getattr(value, name) for value in values)
        differs = tuple(item != option.default for item in found)
        rows.append(OptionRow(name.replace("_", " "), option.help, found, differs))
    return rows
