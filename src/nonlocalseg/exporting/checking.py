"""Whether a file answers as its model does, at sizes that are known to go wrong, and how long it takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.graph import Graph, answered
from nonlocalseg.exporting.passport import Latency, Tried
from nonlocalseg.runtime import processor

Run = Callable[[Tensor], Tensor]
# Batch, height and width: odd sides, equal ones, a batch; the last has fewer cells to a side than the pyramid has bins.
SIZES = ((1, 65, 129), (2, 48, 96), (1, 97, 193), (1, 512, 512), (1, 40, 56))
TOLERANCE = {"float32": 1e-4, "half": 5e-2, "int8": 0.5}
"""The largest error of a file by its precision. What is drawn is no photograph, and ranges in INT8 are of those: here only
what is broken is found; that it agrees on photographs has been measured before."""
TIMED = (512, 512)
ROUNDS = 3


def tried_sizes(form: Form) -> tuple[tuple[int, int, int], ...]:
    """Batch, height and width of what a file of that form is run on."""
    return SIZES if form.static is None else ((1, *form.static),)


def compare(run: Run, graph: Graph, batch: int, height: int, width: int) -> Tried | None:
    """Run file and model on drawn images of one size; None where the model itself refuses that size.

    The error is the largest difference, relative to the model's largest value; infinite where the file fails, answers
    another shape, or numbers that are none. Of classes it is what the class that the file names scores below the best,
    relative to the largest logit: 0 where all are equal, next to it where rounding decides between two.
    """
    images = drawn(batch, height, width)
    try:
        with torch.no_grad():
            logits = graph.logits(images)
    except ValueError:  # the official LDv1, of small images
        return None
    wanted = answered(logits, graph.form.answer)
    try:
        found = run(images)
    except Exception:  # whatever a runtime raises, the file does not take this size
        return Tried(batch=batch, height=height, width=width, error=math.inf)
    return Tried(batch=batch, height=height, width=width, error=_error(found, wanted, logits, graph.form))


def smallest_taken(run: Run, graph: Graph, form: Form, least: int) -> int:
    """The first side from `least` up of a square that the file answers as the model does: runtimes do not take each small
    map that torch takes. At most the least side of those that every file is tried at."""
    most = min(min(size[1:]) for size in SIZES)
    for side in range(least, most if form.static is None else least):
        tried = compare(run, graph, 1, side, side)
        if tried is None or tried.error <= TOLERANCE[form.precision]:
            return side
    return max(least, most) if form.static is None else least


def _error(found: Tensor, wanted: Tensor, logits: Tensor, form: Form) -> float:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return math.inf
    if form.answer == "classes":
        if int(found.max()) >= logits.shape[1]:
            return math.inf
        lost = logits.amax(1) - logits.gather(1, found.long()[:, None])[:, 0]
        error = lost.max() / logits.abs().max()
    else:
        error = (found - wanted).abs().max() / wanted.abs().max()
    return float(error) if math.isfinite(float(error)) else math.inf


def drawn(batch: int, height: int, width: int) -> Tensor:
    """Images of soft colours with noise on them, always the same of a size."""
    generator = torch.Generator().manual_seed(height * 10_000 + width)
    coarse = torch.rand(batch, 3, 5, 7, generator=generator)
    soft = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return (soft + 0.2 * torch.rand(batch, 3, height, width, generator=generator)) / 1.2


def timed(run: Run, form: Form) -> Latency:
    """The median of a few runs on one image, after one that is not counted."""
    height, width = form.static or TIMED
    images = drawn(1, height, width)
    run(images)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run(images)
        seconds.append(time.perf_counter() - start)
    return Latency(
        height=height,
        width=width,
        seconds=statistics.median(seconds),
        threads=torch.get_num_threads(),
        processor=processor(),
    )
