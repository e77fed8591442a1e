"""`report()`: gathers what is known of a run, measures what is not, and writes the page."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from nonlocalseg.files import check_folder, write_text
from nonlocalseg.models.hub import WEIGHTS
from nonlocalseg.report.attention import attention_section
from nonlocalseg.report.elements import Html, escaped, joined, percent
from nonlocalseg.report.examples import choose_examples, images_section
from nonlocalseg.report.findings import Findings, gather, open_measured, open_run
from nonlocalseg.report.recipe import curves_section, recipe_section
from nonlocalseg.report.scores import boundary_section, confusion_section, scores_section, told_setting
from nonlocalseg.report.speed import Speed, measure_speed, speed_section
from nonlocalseg.report.style import STYLE
from nonlocalseg.timing.measuring import surroundings
from nonlocalseg.timing.tables import spell

PACKAGES = ("torch", "torchvision", "timm", "lightning")
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
    data: str | None = None,
    root: str | None = None,
    split: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    images: int = 3,
    pixels: int = 3,
    device: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Write one HTML file about a run, which needs no other file and no network, and return its path.

    Where RUN/evaluation holds no evaluation of these images by these weights, they are measured first, boundaries
    included, and the evaluation is kept there. Raises ValueError and FileNotFoundError, in one line, for a folder that
    is no run, for data that is not there and for an `out` that cannot be written.

    Args:
        run: folder of the run.
        data: name of the data set to measure on; by default the one that was trained on last.
        root: folder of the data; by default as in training.
        split: split to measure on, several joined with +; by default the validation split of the training.
        data_options: further options of the data set, over those of the training.
        images: the worst and the best images to show, this many of each.
        pixels: pixels whose attention is shown.
        device: cpu, cuda, cuda:1 ...; by default a GPU where there is one.
        workers: processes that read images; by default up to four.
        out: the file; by default report.html in the folder of the run.
        progress: show progress.
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
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    measured = open_measured(folder, plan, data, root, split, data_options)
    console = Console(quiet=not progress, stderr=True, highlight=False)
    findings = gather(folder, plan, measured, where, workers, progress)
    with console.status("measuring speed"):
        speed = measure_speed(findings)
    with console.status("drawing"):
        examples = choose_examples(findings, images)
        sections = [
            scores_section(findings),
            curves_section(findings),
            confusion_section(findings),
            boundary_section(findings),
            images_section(findings, examples),
            attention_section(findings, pixels),
            speed_section(findings, speed),
            recipe_section(findings),
        ]
    return write_text(path, _document(findings, speed, sections))


def _document(findings: Findings, speed: Speed, sections: list[Html]) -> str:
    name = findings.run.resolve().name
    plan = findings.plan
    title = f"{name}: {plan.model} on {plan.backbone}, {findings.measured.phase.data}"
    links = "".join(f'<li><a href="#{key}">{text}</a></li>' for key, text in CONTENTS.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="nonlocalseg {escaped(version("nonlocalseg"))}">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="soft">Report on a trained model</p>
<h1>{escaped(title)}</h1>
<p class="soft">{escaped(_occasion(findings))}</p>
{_key_figures(findings, speed)}
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{joined(sections)}
</main>
<footer><p class="soft">{escaped(_machine(findings))}</p></footer>
</body>
</html>
"""


def _key_figures(findings: Findings, speed: Speed) -> Html:
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
    cells = [
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}<small>{escaped(note)}</small></dd></div>"
        for name, value, note in figures
    ]
    return Html(f'<dl class="key">{"".join(cells)}</dl>')


def _occasion(findings: Findings) -> str:
    trained = datetime.fromtimestamp((findings.run / "model" / WEIGHTS).stat().st_mtime).astimezone()
    written = datetime.now().astimezone()
    shown = f"Measured on {findings.measured.phase.data}, split {findings.measured.split}: {told_setting(findings)}."
    return f"{shown} Model of {trained:%d %B %Y, %H:%M %Z}; report of {written:%d %B %Y, %H:%M %Z}."


def _machine(findings: Findings) -> str:
    """The versions and the machine that the figures belong to."""
    about = surroundings(findings.device)
    versions = [f"nonlocalseg {about['nonlocalseg']}", f"Python {about['python']}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # built from source without metadata
            continue
    return f"{', '.join(versions)}; {about['device']}; {platform.system()} {platform.machine()}."
