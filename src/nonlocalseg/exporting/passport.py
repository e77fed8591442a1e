"""The passport in an exported file: what it answers, how well it was found to agree with its model, and by what."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nonlocalseg.exporting.form import Form
from nonlocalseg.labels import Colour
from nonlocalseg.values import from_plain, plain, value
from nonlocalseg.view import WHOLE, View

ENTRY = "nonlocalseg"
"""What the passport is called among a file's metadata."""


@dataclass(frozen=True)
class Opened:
    """A file in its runtime. run: images float32 [B, 3, H, W], contiguous on the CPU -> the answer. text: of its
    passport, None where it has none."""

    run: Callable[[Tensor], Tensor]
    text: str | None


@value
class Tried:
    """One size at which file and model were compared."""

    batch: int
    "Images at once."
    height: int
    "Of the images, in pixels."
    width: int
    "Of the images, in pixels."
    error: float
    "The largest difference, relative to the largest value of the model's own answer."


@value
class Latency:
    """How long one image took, on the machine of the export."""

    height: int
    "Of the image, in pixels."
    width: int
    "Of the image, in pixels."
    seconds: float
    "The median of a few runs."
    threads: int
    "Of the runtime."
    processor: str
    "By its name."


@value
class Figures:
    """The mIoU of the file itself on a data set."""

    mean_iou: float | None
    "In [0, 1]."
    interval: tuple[float | None, float | None]
    "95 % bootstrap interval over the images."
    images: int
    "How many there were."
    data: str
    "Data set, split and folder."
    seen: str
    "How the images were seen."


@value
class Part:
    """One part of a network that was quantised, and what it damaged."""

    name: str
    "Of its module."
    gain: float
    "By how much agreement rose where this part alone was in float."
    kept: bool
    "Whether it stays in float."


@value
class Quantised:
    """How a file came to INT8. Agreement is the share of pixels whose class is that of the model in float."""

    calibrated: int
    "Photographs from which the ranges of activations are."
    compared: int
    "Photographs on which agreement was measured: others, unless there was one alone."
    agreement: float
    "Of the file."
    least: float
    "What was to be reached."
    weights: str
    "How weights are rounded."
    ways: dict[str, float]
    "The agreement of each way of rounding that this CPU allows, with all parts in INT8."
    parts: tuple[Part, ...]
    "What was measured of each part; none where all of them in INT8 agree well enough."


@value
class Passport:
    """What stands in the file as JSON."""

    form: Form
    "What the graph takes and answers."
    classes: tuple[str, ...]
    "Names of the classes, by their number."
    palette: tuple[Colour, ...]
    "One RGB colour (0 to 255) for each."
    mean: tuple[float, float, float]
    "The colour, RGB in [0, 1], that images are padded with; the graph normalises by itself."
    align_corners: bool
    "Of bilinear resizing."
    view: View = WHOLE
    "How the file sees an image unless told otherwise."
    model: dict[str, Any] | None = None
    "The `config.json` of the model; None for one that was assembled by hand."
    smallest: int
    "Pixels that a side of an image must have."
    parity: tuple[Tried, ...] = ()
    "The sizes that were tried."
    tolerance: float
    "The largest error that was allowed there."
    quantised: Quantised | None = None
    "How it came to INT8, where it did."
    latency: Latency
    "How long one image took."
    figures: Figures | None = None
    "The mIoU of the file, where a data set was given."
    versions: dict[str, str]
    "Of the packages that wrote the file."
    created: str
    "When, as ISO 8601."

    def text(self) -> str:
        return json.dumps(plain(self))


def read_passport(text: str | None, path: Path) -> Passport:
    """The passport of the file `path`; ValueError in one line where it has none, or a damaged one."""
    if text is None:
        raise ValueError(f"{path} holds no passport of this library: give a file that `nonlocalseg export` wrote")
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: its passport is damaged ({error}): export the model again") from None
    if isinstance(content, Mapping):
        nested = {"form": Form, "view": View, "latency": Latency}
        content = {
            n: from_plain(nested[n], item, f"{path}: {n}") if n in nested else item for n, item in content.items()
        }
    return from_plain(Passport, content, f"{path}: its passport")
