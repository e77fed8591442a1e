"""The verb that writes a page about a run: report."""

from __future__ import annotations

import sys
from typing import Annotated

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output
from nonlocalseg.data.source import DataSource
from nonlocalseg.values import Metavar, Natural, Positional, value
from nonlocalseg.view import View


@value
class Report(OnDevice):
    """The verb's own options."""

    run: Annotated[str, Positional()]
    """Folder of the run."""
    out: Annotated[str | None, Metavar("FILE")] = None
    """The file; by default report.html in the folder of the run."""
    images: Natural = 3
    """The worst and the best images to show, this many of each."""
    pixels: Natural = 3
    """Pixels whose attention is shown."""
    setting: Annotated[str | None, Metavar("NAME")] = None
    """A paper's way to see images (`evaluate --help` lists them), instead of the options from --mode on."""
    file: Annotated[str | None, Metavar("FILE")] = None
    """A file that `export` wrote of the run's model: what it scores, predicts and takes is told instead."""
    workers: Natural | None = None
    """Processes that read images; by default up to four."""


@verb(Report, DataSource, View)
def report(own: Report, given: Given) -> None:
    """Write one HTML page about a run: scores with intervals, curves, images, boundaries, attention, speed, recipe.

    RUN is the folder that `nonlocalseg train` wrote. The page needs no other file and no network: mail it, print it,
    keep it. Where RUN/evaluation does not hold the figures yet, they are measured first, boundaries included, which
    takes as long as `nonlocalseg evaluate --boundary`; the evaluation is kept there. Data set, folder and split are
    those of the training's validation where they are not given, and images are seen as the model says.

    Examples:
        nonlocalseg report runs/demo/ann
        nonlocalseg report runs/camvid --split test --root CamVid --out camvid.html
        nonlocalseg report runs/mine --file model.onnx --out onnx.html
        nonlocalseg report runs/mine --images 5 --pixels 6 --device cpu
    """
    from nonlocalseg.report.page import report
    from nonlocalseg.runtime import pick_device

    pick_device(own.device)
    path = report(
        own.run,
        images=own.images,
        pixels=own.pixels,
        setting=own.setting,
        file=own.file,
        device=own.device,
        workers=own.workers,
        out=own.out,
        progress=sys.stderr.isatty(),
        **given,
    )
    output().print(f"report in {path}")
