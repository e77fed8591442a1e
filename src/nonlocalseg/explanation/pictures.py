"""PICTURES: every picture of what models attend to and where they differ, for command line, report and page alike.

A new picture is one function here and one line in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nonlocalseg import drawing
from nonlocalseg.choices import pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nonlocalseg.explanation.subject import Subject

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Drawn:
    """One picture. stem: what its file is called, without the photograph's name. figure: a plot, or uint8 [H, W, 3].

    alt: what it shows, for those who do not see it. caption and lines: what may stand below it, a sentence and a list.
    """

    stem: str
    figure: Figure | np.ndarray
    alt: str
    caption: str = ""
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A kind of picture. help: what it shows, in one line. missing: why there is none; {model} is the first model.

    attends: it shows where a model looks, or what it lets through, at one pixel; such pictures stand in the report.
    """

    help: str
    draw: Callable[[Subject], Iterator[Drawn]]
    missing: str = ""
    attends: bool = False


def draw_pictures(subject: Subject, kind: str | None = None) -> list[Drawn]:
    """All pictures of `subject`, or those of one kind. Raises `ValueError` where a kind is unknown or has none."""
    if kind is None:
        return [drawn for picture in PICTURES.values() for drawn in picture.draw(subject)]
    picture = PICTURES[pick("kind of picture", kind, PICTURES)]
    found = list(picture.draw(subject))
    if not found:
        raise ValueError(picture.missing.format(model=subject.first))
    return found


def write_pictures(subject: Subject, folder: str | Path, kind: str | None = None) -> list[Path]:
    """Write what `draw_pictures` draws, as PNG and plots as SVG too, called PHOTOGRAPH-STEM; returns the paths."""
    written = []
    for drawn in draw_pictures(subject, kind):
        name = f"{subject.photograph}-{drawn.stem}".replace("/", "-")
        suffixes = (".png",) if isinstance(drawn.figure, np.ndarray) else (".png", ".svg")
        written += [drawing.save(drawn.figure, Path(folder) / f"{name}{suffix}") for suffix in suffixes]
    return written


def _anchors(subject: Subject) -> Iterator[Drawn]:
    for model, found in subject.explanations.items():
        for block, seen in found.attention.items():
            listed = seen.listed(found.classes)
            title = f"attention of one pixel in {seen.title}"
            figure = drawing.anchors_picture(
                found.image, found.pixel, seen.weights, seen.boxes, seen.levels, listed, f"{model}: {title}", found.said
            )
            yield Drawn(
                f"anchors-{model}-{block}",
                figure,
                f"{_capital(title)}, {subject.place}; the largest weight: {listed[0][1]}",
                f"The weights of {seen.title} over its regions; they sum to 1.",
                [text for _, text in listed],
            )


def _local(subject: Subject) -> Iterator[Drawn]:
    for model, found in subject.explanations.items():
        for block, seen in found.local.items():
            title = f"{model}: local affinity of one pixel, {seen.title}"
            figure = drawing.local_picture(
                found.image, found.pixel, seen.weights, seen.boxes, seen.inside, title, found.said
            )
            k, largest = len(seen.weights), 100 * float(seen.weights.max())
            yield Drawn(
                f"local-{model}" if len(found.local) == 1 else f"local-{model}-{block}",
                figure,
                f"Local affinity of {subject.place}, {seen.title}, {k} × {k} neighbours",
                f"The weights of {seen.title} over the neighbours; they sum to 1, the largest is {largest:.1f} %.",
                seen.listed(found.classes),
            )


def _masks(subject: Subject) -> Iterator[Drawn]:
    means, titles = {}, []
    for model, found in subject.explanations.items():
        for mask in found.masks.values():
            means[model if len(found.masks) == 1 else f"{model}: {mask.title}"] = mask.values.mean(0).numpy()
            titles.append(mask.title)
    if not means:
        return
    title = _capital(", ".join(dict.fromkeys(titles)))
    ranges = "; ".join(f"{name} from {mean.min():.3f} to {mean.max():.3f}" for name, mean in means.items())
    yield Drawn(
        "masks",
        drawing.masks_picture(subject.image, means, title, "mean of the mask M over channels (0 to 1)"),
        f"{title} over {subject.photograph}, mean over channels: {ranges}",
        f"{title} over the whole image, mean over channels: where details are let through.",
    )


def _stages(subject: Subject) -> Iterator[Drawn]:
    for model, found in subject.explanations.items():
        if found.stages:
            shown = {f"after {stage.upper()}": mask for stage, mask in found.stages.items()}
            shown["final prediction"] = found.prediction
            title = f"{model}: what linear heads read from each step"
            picture = drawing.comparison(subject.image, shown, found.classes, found.palette, subject.truth, title)
            yield Drawn(f"stages-{model}", picture, f"{title}, {subject.photograph}: {', '.join(shown)}")


def _errors(subject: Subject) -> Iterator[Drawn]:
    if subject.truth is not None:
        masks, classes, palette = subject.predictions()
        picture = drawing.error_comparison(subject.image, masks, subject.truth, classes, palette, subject.photograph)
        yield Drawn("errors", picture, f"Errors in {subject.photograph} of {', '.join(masks)}")


def _features(subject: Subject) -> Iterator[Drawn]:
    from nonlocalseg.explanation.features import feature_components

    if not subject.networks:
        return
    seen = feature_components(subject.networks, subject.image, shared=subject.one_basis, short_side=subject.short_side)
    several = "one basis for all models, each in units of its own spread" if seen.shared else "each model its own"
    note = "Principal components of the features" + (f", {several}" if len(subject.networks) > 1 else "")
    parts, shares = _by_stage(seen.components), _by_stage(seen.shares)
    title = "Features of the backbone's stages"
    figure = drawing.features_picture(
        subject.image,
        parts,
        shares,
        title,
        f"{note}; a colour's range is two standard deviations to either side of the mean.",
    )
    yield Drawn("features", figure, f"{title} of {', '.join(parts)} over {subject.photograph}", f"{note}.")


def _compare(subject: Subject) -> Iterator[Drawn]:
    masks, classes, palette = subject.predictions()
    picture = drawing.comparison(subject.image, masks, classes, palette, subject.truth, subject.photograph)
    yield Drawn("compare", picture, f"Predictions for {subject.photograph} by {', '.join(masks)}")


def _by_stage(found: Mapping[str, Mapping[int, T]]) -> dict[str, dict[str, T]]:
    return {name: {f"stage {stage}": part for stage, part in stages.items()} for name, stages in found.items()}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


PICTURES: dict[str, Picture] = {
    "anchors": Picture(
        "the weights that the pixel gives to the anchors of each block (ANN; all positions of NB)",
        _anchors,
        "--kind: {model} has no block that attends to anchors or positions; use an ANN or non-local model",
        attends=True,
    ),
    "local": Picture(
        "the weights that the pixel gives to its neighbours (GALD with LDv2)",
        _local,
        "--kind: {model} has no LDv2; use a model such as galdv2",
        attends=True,
    ),
    "masks": Picture(
        "the mean of the masks (GALD with LDv1), those of --compare beside it",
        _masks,
        "--kind: {model} has no LDv1; use a model such as galdv1",
        attends=True,
    ),
    "stages": Picture(
        "what each step of a GALD head predicts (trained with --stage-heads)",
        _stages,
        "--kind: {model} has no stage heads; train a GALD model with --stage-heads",
    ),
    "errors": Picture(
        "where the predictions differ from --truth",
        _errors,
        "--truth: errors need the label image of the photograph; give one",
    ),
    "features": Picture(
        "the backbone's features as colours, those of --compare beside it",
        _features,
        "--kind: features need the networks of the models",
    ),
    "compare": Picture("the predictions of MODEL and --compare side by side", _compare),
}
