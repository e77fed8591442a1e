"""The verb that writes a page about a run: report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nonlocalseg.cli.terminal import check_device, output


def report(run: str, **options: Any) -> None:
    """Write one HTML page about a run: scores with intervals, curves, images, boundaries, attention, speed, recipe.

    RUN is the folder that `nonlocalseg train` wrote. The page needs no other file and no network: mail it, print it,
    keep it. Where RUN/evaluation does not hold the figures yet, they are measured first, boundaries included, which
    takes as long as `nonlocalseg evaluate --boundary`; the evaluation is kept there.

    Args:
        run: folder of the run.

    Examples:
        nonlocalseg report runs/demo/ann
        nonlocalseg report runs/camvid --split test --root CamVid --out camvid.html
        nonlocalseg report runs/mine --images 5 --pixels 6 --device cpu
    """
    check_device(options.get("device"))
    path = report_function()(run, progress=sys.stderr.isatty(), **options)
    output().print(f"report in {path}")


def report_function() -> Callable[..., Any]:
    from nonlocalseg.report import report

    return report
