"""How fast and how large the model is: one plain forward pass on an image of the evaluated size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nonlocalseg.report.elements import Html, paragraph, section, table
from nonlocalseg.report.findings import Findings
from nonlocalseg.timing.measuring import Case, compare, surroundings
from nonlocalseg.timing.tables import spell

ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """row: of `timing.measuring.compare`. size: of the image, width x height. auxiliary: parameters for training only."""

    row: dict[str, Any]
    size: str
    parameters: int
    auxiliary: int


def measure_speed(findings: Findings) -> Speed:
    """The median of a few forward passes on an image of the size of the first one, or on one of the windows."""
    image, _ = findings.measured.read(0)
    height, width = image.shape[:2]
    settings = findings.evaluation.settings
    if settings["mode"] == "slide":
        crop = settings["crop"]
        sides = (crop, crop) if isinstance(crop, int) else tuple(crop)
        height, width = min(height, sides[0]), min(width, sides[1])
    model, device = findings.model, findings.device
    drawn = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    (row,) = compare([Case("forward", lambda: model(drawn)["out"])], device, ROUNDS)
    auxiliary = 0 if model.auxiliary is None else sum(p.numel() for p in model.auxiliary.parameters())
    parameters = sum(parameter.numel() for parameter in model.parameters()) - auxiliary
    return Speed(row, f"{width} × {height}", parameters, auxiliary)


def speed_section(findings: Findings, speed: Speed) -> Html:
    row, about = speed.row, surroundings(findings.device)
    evaluation = findings.evaluation
    what = "window" if evaluation.settings["mode"] == "slide" else "image"
    rows: list[tuple[str, str]] = [
        (f"one {what}, median of {ROUNDS}", spell("seconds", row["seconds"])),
        (f"{what}s per second", f"{1 / row['seconds']:.3g}"),
        ("processor time of one", spell("seconds", row["cpu_seconds"])),
        ("multiply-adds", spell("multiply_adds", row["multiply_adds"])),
        ("parameters", spell("parameters", speed.parameters)),
    ]
    if speed.auxiliary:
        rows.append(("parameters used in training only", spell("parameters", speed.auxiliary)))
    if row["memory"] is not None:
        rows.append(("peak memory, beyond weights and image", spell("memory", row["memory"])))
    mean = evaluation.seconds / max(1, len(evaluation.images))
    rows.append(("the evaluation took per image", spell("seconds", mean)))
    caption = f"One plain forward pass, float32, batch of 1, {speed.size} pixels, on {about['device']}"
    return section(
        "speed",
        "Speed",
        table(caption, ("", ""), rows),
        paragraph(
            "Nothing is folded, compiled or of half precision here;",
            Html("<code>nonlocalseg benchmark network</code>"),
            "compares those forms. The evaluation's time holds every scale, window and mirror image, and the counting.",
            kind="soft",
        ),
    )
