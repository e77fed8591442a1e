"""Published figures beside measured ones: those of the zoo's checkpoint, or of the recipe, that a model comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocalseg.cli.terminal import percent
from nonlocalseg.view import View

if TYPE_CHECKING:
    from rich.table import Table

    from nonlocalseg.evaluation.results import Evaluation
    from nonlocalseg.recipes.schema import Published

PUBLISHED = "published"
"""In the place of a setting's name: how the figures of a model's own recipe were measured."""
_TEST = " (test)"


@dataclass(frozen=True)
class Claim:
    """Figures that a model answers to, the data set that they are of and its options."""

    origin: str
    data: str
    options: dict[str, object]
    rows: tuple[Published, ...]


def claim_of(model: str) -> Claim | None:
    """What was published of a model, by its name in the zoo, by the recipe of its run, or by where its weights come from;
    None where nothing was."""
    from nonlocalseg.models.storage import read_config
    from nonlocalseg.zoo.pretrained import ZOO

    folder = Path(model)
    if model.startswith(ZOO):
        return _of_zoo(model)
    if (folder / "recipe.yaml").is_file():
        return _of_recipe(folder)
    if (folder / "config.json").is_file():
        source = read_config(folder).converted_from or ""
        return _of_zoo(source) if source.startswith(ZOO) else None
    return None


def published_view(model: str) -> View:
    """How the first figure published of `model` was measured. Raises ValueError where there is none."""
    claim = claim_of(model)
    if claim is None or not claim.rows:
        raise ValueError(
            f"--setting {PUBLISHED}: no figure was published of {model}, which comes from no such recipe; give a setting's name"
        )
    return claim.rows[0].view


def beside(result: Evaluation) -> Iterator[Table]:
    """What was published of a model, metric by metric and class by class, beside what was measured of it; nothing where
    nothing was published, or other data were measured."""
    claim, source = claim_of(result.settings.model), result.settings.source
    if claim is None or not claim.rows or claim.data != source.data:
        return
    if any(source.data_options.get(name, value) != value for name, value in claim.options.items()):
        return
    yield _metrics(result, claim)
    for row in claim.rows:
        if row.classes and len(row.classes) == len(result.classes) and _split(row) == source.split:
            yield from _by_class(result, row)


def _of_zoo(name: str) -> Claim:
    from nonlocalseg.data.catalog import DATASETS
    from nonlocalseg.recipes.schema import Published
    from nonlocalseg.view import mmsegmentation_view
    from nonlocalseg.zoo.entries import find_entry
    from nonlocalseg.zoo.official import OFFICIAL, find_official

    if name.startswith(OFFICIAL):
        official = find_official(name)
        metric = "mIoU" if official.split == "val" else f"mIoU{_TEST}"
        row = Published(f"its page ({official.figure})", metric, float(official.figure.split()[0]), official.view)
        return Claim(name, official.data, {}, (row,))
    entry = find_entry(name)
    metric = "mIoU" if "val" in DATASETS[entry.data].splits else f"mIoU{_TEST}"
    rows = [Published("mmsegmentation's zoo", metric, entry.miou, entry.view)]
    if entry.miou_flip is not None:
        several = mmsegmentation_view(entry.labels, entry.crop, entry.test, augmented=True)
        rows.append(Published("mmsegmentation's zoo, ms+flip", metric, entry.miou_flip, several))
    return Claim(f"mmseg:{entry.name}", entry.data, entry.data_options, tuple(rows))


def _of_recipe(run: Path) -> Claim | None:
    from nonlocalseg.recipes.catalog import RECIPES
    from nonlocalseg.training.plan import read_plan

    recipe = RECIPES.get(read_plan(run / "recipe.yaml").recipe or "")
    if recipe is None:
        return None
    last = recipe.phases[-1]
    return Claim(f"recipe {recipe.name}", last.data, dict(last.data_options), recipe.published)


def _split(row: Published) -> str:
    return "test" if row.metric.endswith(_TEST) else "val"


def _metrics(result: Evaluation, claim: Claim) -> Table:
    from rich.table import Table

    table = Table("metric", "published %", "measured %", "95 % interval", "published in", "its images were seen")
    table.title = f"published of {claim.origin}"
    for column in table.columns[1:4]:
        column.justify = "right"
    for row in claim.rows:
        measured, interval = _measured(result, row)
        same = row.view.economical == result.settings.view.economical
        seen = "as these" if same else f"otherwise: {', '.join(row.view.words())}"
        where = f"{row.table}, {row.whose}" if row.whose else row.table
        table.add_row(row.metric, f"{row.value:g}", measured, interval, where, seen)
    return table


def _measured(result: Evaluation, row: Published) -> tuple[str, str]:
    """The same metric of `result`, with its interval; dashes where this split or metric was not measured."""
    metric = row.metric.removesuffix(_TEST)
    if _split(row) != result.settings.source.split:
        return "-", "-"
    if metric == "mIoU":
        return percent(result.scores.mean_iou), " to ".join(map(percent, result.interval))
    if metric == "pixel accuracy":
        return percent(result.scores.pixel_accuracy), "-"
    place = _threshold(result, metric)
    if place is not None and result.boundary is not None:
        return percent(result.boundary.published[place]), "-"
    return "-", "-"


def _threshold(result: Evaluation, metric: str) -> int | None:
    """Which of the measured thresholds a metric such as "boundary F 3 px" is of; None for none of them."""
    if result.boundary is None or not metric.startswith("boundary F "):
        return None
    wanted = metric.removeprefix("boundary F ").removesuffix(" px")
    count = len(result.boundary.thresholds)
    return next((place for place in range(count) if result.boundary.radius(place) == wanted), None)


def _by_class(result: Evaluation, row: Published) -> Iterator[Table]:
    from rich.table import Table

    place = _threshold(result, row.metric)
    if row.metric.startswith("mIoU"):
        measured = [found["iou"] for found in result.scores.per_class(result.classes)]
    elif place is not None and result.boundary is not None:
        measured = list(result.boundary.published_classes[place])
    else:
        return
    table = Table("class", "published %", "measured %", title=f"{row.metric} by class, {row.table}")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, published, found in zip(result.classes, row.classes, measured, strict=True):
        table.add_row(name, f"{published:g}", percent(found))
    yield table
