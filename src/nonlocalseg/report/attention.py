"""Where the model looks at a few pixels: wrong ones in the worst images, right ones in the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from nonlocalseg import drawing
from nonlocalseg.explanations import Explanation, explain
from nonlocalseg.report.elements import Html, escaped, figure, joined, jpeg, paragraph, section
from nonlocalseg.report.examples import Example, open_example, ranked
from nonlocalseg.report.findings import Findings

BLOCKS = {"context": "the context block", "aggregate": "global aggregation"}
NOTE = "Attention says where a block looks. It does not say why the model decides as it does."


def attention_section(findings: Findings, count: int) -> Html:
    """`count` pixels, by turns a wrong one in the worst image and a right one in the best, then in the next of each."""
    plan = findings.plan
    parts: list[object] = [paragraph(NOTE)]
    chosen = _rows(findings, count)
    for wrong, row in chosen:
        example = open_example(findings, row)
        x, y = choose_pixel(example, wrong)
        explanation = explain(findings.model, example.image, (x, y))
        if not explanation.attention and explanation.local is None and explanation.mask is None:
            text = (
                f"The model, {plan.model} on {plan.backbone}, has no block that attends, so there is nothing to show."
            )
            return section("attention", "Attention", paragraph(text))
        parts += [_heading(example, explanation), *_pictures(example.name, explanation)]
    if not chosen:
        parts.append(paragraph("No pixels were asked for."))
    return section("attention", "Attention of single pixels", *parts)


def choose_pixel(example: Example, wrong: bool) -> tuple[int, int]:
    """x and y of the pixel deepest inside a region that is wrong (or right, and labelled); in case of none, the reverse.

    Deepest is farthest from every other pixel and from the image's edge; of equals the first in reading order.
    """
    right = (example.truth != drawing.IGNORE) & ~example.wrong
    regions = (example.wrong, right) if wrong else (right, example.wrong)
    region = regions[0] if regions[0].any() else regions[1]
    depth = np.asarray(distance_transform_edt(np.pad(region, 1)))
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) - 1, int(y) - 1


def _rows(findings: Findings, count: int) -> list[tuple[bool, int]]:
    """Whether a wrong pixel is looked for, and the row of the image; no image twice."""
    rows = ranked(findings)
    turns = [(i % 2 == 0, rows[i // 2] if i % 2 == 0 else rows[-1 - i // 2]) for i in range(min(count, len(rows)))]
    return turns


def _heading(example: Example, explanation: Explanation) -> Html:
    x, y = explanation.pixel
    classes = explanation.classes
    truth, said = classes[int(example.truth[y, x])], classes[int(explanation.prediction[y, x])]
    told = f"a right pixel, {truth}" if truth == said else f"a wrong pixel, {said} where {truth} is true"
    return Html(f"<h3>{escaped(f'{example.name}, x = {x}, y = {y}: {told}')}</h3>")


def _pictures(name: str, explanation: Explanation) -> Sequence[Html]:
    image, (x, y) = explanation.image, explanation.pixel
    place = f"pixel x = {x}, y = {y} of {name}"
    parts = []
    for block, seen in explanation.attention.items():
        where = BLOCKS.get(block, f"the fusion of stage {block.removeprefix('fusion')}")
        listed = seen.listed(explanation.classes)
        title = f"Attention of one pixel in {where}"
        plot = drawing.anchors_picture(image, (x, y), seen.weights, seen.boxes, seen.levels, listed, title)
        alt = f"{title}, {place}; the largest weight: {listed[0][1]}"
        items = "".join(f"<li>{escaped(text)}</li>" for _, text in listed)
        caption = joined([f"The weights of {where} over its regions; they sum to 1. The largest:"])
        parts += [figure(jpeg(plot), alt, caption, kind="wide"), Html(f'<ol class="anchors">{items}</ol>')]
    if (local := explanation.local) is not None:
        plot = drawing.local_picture(image, (x, y), local.weights, local.boxes, local.inside)
        largest = 100 * float(local.weights.max())
        alt = f"Local affinity of {place}, LDv2, {len(local.weights)} × {len(local.weights)} neighbours"
        caption = f"The weights over the neighbours (LDv2); they sum to 1, the largest is {largest:.1f} %."
        parts.append(figure(jpeg(plot), alt, caption, kind="wide"))
    if explanation.mask is not None:
        mean = explanation.mask.mean(0).numpy()
        plot = drawing.masks_picture(image, {"mean of M": mean}, "Mask of LDv1")
        alt = f"The mask of LDv1 over {name}, mean over channels from {mean.min():.3f} to {mean.max():.3f}"
        caption = "The mask of LDv1 over the whole image, mean over channels: where details are let through."
        parts.append(figure(jpeg(plot), alt, caption, kind="wide"))
    return parts
