"""`report()`: gathers what is known of a run, measures what is not, and writes the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from rich.console import Console

from nonlocalseg import __version__, drawing
from nonlocalseg.exporting.loading import ExportedModel
from nonlocalseg.files import check_folder, write_text
from nonlocalseg.labels import IGNORE, Colour
from nonlocalseg.report.examples import Example, choose_examples
from nonlocalseg.report.figures import attention_pictures, confusion_picture, curve_pictures, example_pictures
from nonlocalseg.report.gather import Findings, gather_findings, open_measured, open_run
from nonlocalseg.report.speed import Speed, measure_speed
from nonlocalseg.report.tables import boundary_rows, class_rows, mistakes, phase_groups, plan_rows, score_rows
from nonlocalseg.report.words import percent, spelled, told_machine, told_occasion, told_setting, told_start
from nonlocalseg.runtime import pick_device
from nonlocalseg.timing.measuring import surroundings
from nonlocalseg.timing.tables import spell
from nonlocalseg.training.folder import RECIPE
from nonlocalseg.values import names_of
from nonlocalseg.view import View

TEMPLATE, STYLE = "page.html.j2", "page.css"
CONTENTS = {
    "scores": "Scores",
    "curves": "Training",
    "confusion": "Confusion",
    "boundaries": "Boundaries",
    "images": "Images",
    "attention": "Attention",
    "speed": "Speed",
    "recipe": "Recipe",
}


def report(
    run: str | Path,
    *,
    images: int = 3,
    pixels: int = 3,
    setting: str | None = None,
    file: str | Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **changes: object,
) -> Path:
    """Write one HTML file about a run, which needs no other file and no network, and return its path.

    Where RUN/evaluation holds no evaluation of these images by these weights, seen so, boundaries included, they are
    measured first, and the evaluation is kept there. Raises ValueError and FileNotFoundError, in one line, for a folder that
    is no run, for data that is not there and for an `out` that cannot be written.

    Args:
        run: folder of the run.
        images: the worst and the best images to show, this many of each.
        pixels: pixels whose attention is shown.
        file: exported of the run's model: what it scores, predicts and takes is told, with the network's attention.
        device: cpu, cuda, cuda:1 ...; by default a GPU where there is one.
        workers: processes that read images; by default up to four.
        out: the file; by default report.html in the folder of the run.
        progress: show progress.
        setting: a paper's way to see images, one of `view.VIEWS`; by default `model.view`.
        changes: fields of `DataSource`, put over what the training validated on (data, root, split, data_options), and
            of `View`, put over the model's.
    """
    for name, number in (("images", images), ("pixels", pixels)):
        if number < 0:
            raise ValueError(f"--{name}: {number}; give 0 or more")
    folder = Path(run).expanduser()
    plan = open_run(folder)
    path = Path(out).expanduser() if out is not None else folder / "report.html"
    if path.is_dir():
        raise ValueError(f"--out: {path} is a folder; give the name of a file, such as {path / 'report.html'}")
    check_folder(path.parent)
    where = pick_device(device)
    of_view = {name: given for name, given in changes.items() if name in names_of(View)}
    measured = open_measured(folder, {name: given for name, given in changes.items() if name not in of_view})
    console = Console(quiet=not progress, stderr=True, highlight=False)
    exported = None if file is None else Path(file).expanduser()
    findings = gather_findings(folder, plan, measured, (setting, of_view), exported, where, workers, progress)
    with console.status("measuring speed"):
        speed = measure_speed(findings)
    with console.status("drawing"):
        content = _told(findings, speed) | _drawn(findings, images, pixels)
        return write_text(path, _template().render(content))


def _template() -> Template:
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "spelled": spelled, "hex": _hex, "ink": drawing.ink_on}
    css = Markup((folder / STYLE).read_text(encoding="utf-8"))  # our own file: no reader's text is in it
    return environment.get_template(TEMPLATE, globals={"css": css, "version": __version__, "contents": CONTENTS})


def _told(findings: Findings, speed: Speed) -> dict[str, Any]:
    """What the template writes, but for pictures."""
    plan, evaluation, source = findings.plan, findings.evaluation, findings.measured.source
    model_options, run_options = plan_rows(plan)
    recipe = findings.run / RECIPE
    config = findings.model.config
    several = len(plan.phases) > 1
    return {
        "title": f"{_name(findings)}: {plan.model} on {plan.backbone}, {source.data}",
        "occasion": told_occasion(findings),
        "key_figures": _key_figures(findings, speed),
        "run": findings.run,
        "plan": plan,
        "source": source,
        "images": len(evaluation.images),
        "setting": told_setting(findings),
        "scores": score_rows(findings),
        "classes": class_rows(findings),
        "mistakes": mistakes(findings),
        "boundaries": boundary_rows(findings),
        "boundary_iou": None if evaluation.boundary is None else evaluation.boundary.mean_boundary_iou,
        "speed": speed,
        "speed_rows": speed.rows(len(evaluation.images), evaluation.seconds),
        "device": surroundings(findings.device)["device"],
        "recipe_path": recipe,
        "recipe_text": recipe.read_text(encoding="utf-8"),
        "start": told_start(findings),
        "model_options": model_options,
        "run_options": run_options,
        "phases": [f"phase {n}" for n in range(1, len(plan.phases) + 1)] if several else ["value"],
        "phase_options": phase_groups(plan.phases),
        "resolved": [(name.replace("_", " "), spelled(item)) for name, item in config.flat().items()] if config else [],
        "machine": told_machine(findings),
    }


def _name(findings: Findings) -> str:
    """Of the run, and of the file that was exported of it."""
    name, model = findings.run.resolve().name, findings.model
    return f"{name}, {model.path.name}" if isinstance(model, ExportedModel) else name


def _drawn(findings: Findings, images: int, pixels: int) -> dict[str, Any]:
    """The pictures of the template, and what it writes beside them."""
    chosen = choose_examples(findings, images)
    examples = [
        (f"The {end} image" if number == 1 else f"Number {number} of the {end}", example)
        for end, few in (("worst", chosen.worst), ("best", chosen.best))
        for number, example in enumerate(few, 1)
    ]
    attention = attention_pictures(findings, pixels)
    return {
        "measured_steps": bool(findings.curves),
        "validated": "miou" in findings.curves,
        "curves": curve_pictures(findings),
        "confusion": confusion_picture(findings),
        "examples": [(rank, example, example_pictures(findings, example)) for rank, example in examples],
        "present": _present(findings, [example for _, example in examples]),
        "right": drawing.RIGHT,
        "wrong": drawing.WRONG,
        "attention": attention,
        "attends": any(seen.pictures for seen in attention) or not attention,
    }


def _key_figures(findings: Findings, speed: Speed) -> list[tuple[str, str, str]]:
    """Name, value and note of the figures at the top."""
    scores, (low, high) = findings.evaluation.scores, findings.evaluation.interval
    boundary = findings.evaluation.boundary
    figures = [
        ("mean IoU", f"{percent(scores.mean_iou)} %", f"95 % interval {percent(low)} to {percent(high)}"),
        ("pixel accuracy", f"{percent(scores.pixel_accuracy)} %", f"{len(findings.evaluation.images)} images"),
    ]
    if boundary is not None:
        figures.append(
            ("boundary F", f"{percent(boundary.present[0])} %", f"within {boundary.radius(0)} px, classes present")
        )
    figures.append(("one image", spell("seconds", speed.row["seconds"]), f"{speed.size}, {findings.device.type}"))
    figures.append(("parameters", spell("parameters", speed.parameters), findings.plan.backbone))
    return figures


def _present(findings: Findings, examples: list[Example]) -> list[tuple[int, str, Colour]]:
    """Number, name and colour of the classes in the examples."""
    found = {int(k) for e in examples for mask in (e.truth, e.prediction) for k in np.unique(mask)} - {IGNORE}
    return [(k, findings.evaluation.classes[k], findings.model.palette[k]) for k in sorted(found)]


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
