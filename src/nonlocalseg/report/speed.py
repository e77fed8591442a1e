"""How fast and how large the model is: one plain forward pass on an image of the evaluated size."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nonlocalseg.models.cost import parameter_count
from nonlocalseg.report.gather import Findings
from nonlocalseg.timing.measuring import Case, compare
from nonlocalseg.timing.tables import Row, spell

ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """row: of `timing.measuring.compare`. size: of the image, width x height. auxiliary: parameters for training only.

    what: whether a whole image or a window of it was seen.
    """

    row: Row
    size: str
    what: str
    parameters: int
    auxiliary: int

    def rows(self, images: int, seconds: float) -> list[tuple[str, str]]:
        """What is told and its figure; an evaluation of `images` took `seconds`."""
        row = self.row
        rows = [
            (f"one {self.what}, median of {ROUNDS}", spell("seconds", row["seconds"])),
            (f"{self.what}s per second", f"{1 / row['seconds']:.3g}"),
            ("processor time of one", spell("seconds", row["cpu_seconds"])),
            ("parameters", spell("parameters", self.parameters)),
        ]
        if row["multiply_adds"] is not None:
            rows.insert(3, ("multiply-adds", spell("multiply_adds", row["multiply_adds"])))
        if self.auxiliary:
            rows.append(("parameters used in training only", spell("parameters", self.auxiliary)))
        if row["memory"] is not None:
            rows.append(("peak memory, beyond weights and image", spell("memory", row["memory"])))
        return [*rows, ("the evaluation took per image", spell("seconds", seconds / max(1, images)))]


def measure_speed(findings: Findings) -> Speed:
    """The median of a few forward passes on an image of the size of the first one, or on one of the windows."""
    image, _ = findings.measured.read(0)
    crop = findings.view.crop
    height, width = image.shape[:2] if crop is None else map(min, zip(image.shape[:2], crop, strict=True))
    model, network = findings.model, findings.network
    drawn = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(findings.device)
    case = Case("forward", lambda: model(drawn)["out"], counted=model is network)
    (row,) = compare([case], findings.device, ROUNDS)
    auxiliary = 0 if network.auxiliary is None else parameter_count(network.auxiliary)
    what = "image" if crop is None else "window"
    return Speed(row, f"{width} × {height}", what, parameter_count(network) - auxiliary, auxiliary)
