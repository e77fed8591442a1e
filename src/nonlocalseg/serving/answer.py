"""What a model says of one photograph, in the forms that page and endpoint give out; no web in it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from nonlocalseg import drawing
from nonlocalseg.data import run_lengths
from nonlocalseg.images import channels_first, mask_picture
from nonlocalseg.inference.borrowed import tileable
from nonlocalseg.inference.engine import Model, Seen, look
from nonlocalseg.inference.memory import LARGE, SIDE
from nonlocalseg.inference.resizing import Extent, sizes_of
from nonlocalseg.inference.tiled import TiledBatch
from nonlocalseg.labels import Colour
from nonlocalseg.models.receptive import receptive_field
from nonlocalseg.serving.limits import Refused
from nonlocalseg.serving.line import Progress
from nonlocalseg.view import View

CERTAIN = 255
"""What a probability of 1 is in `Answer.probability`."""
MOST_PROBABILITIES = 2**29
"""Bytes of the probabilities of all classes that are given out at most."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model that answers: under which name, in which view, where."""

    name: str
    model: Model
    view: View
    device: torch.device
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]

    def view_of(self, size: Extent) -> View:
        """How an image of that height and width is seen: in tiles where it is large, with the same result, so that memory
        stays bounded and the work can be counted and stopped between them; in windows where the model cannot."""
        largest = max(height * width for height, width in sizes_of(size, self.view))
        if self.view.mode != "whole" or largest <= LARGE:
            return self.view.economical
        return self._of_large

    @cached_property
    def _of_large(self) -> View:
        try:
            receptive_field(tileable(self.model))
            return replace(self.view, mode="stream", crop=(SIDE, SIDE)).economical
        except ValueError:
            return replace(self.view, mode="slide", crop=(SIDE, SIDE), score_resize="bilinear")

    def seen(self, image: np.ndarray, job: Progress) -> Seen | TiledBatch:
        return look(
            self.model,
            channels_first(image)[None],
            self.view_of((image.shape[0], image.shape[1])),
            align_corners=bool(getattr(self.model, "align_corners", False)),
            device=self.device,
            before_pass=job.before_pass,
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """mask: the best class of each pixel, uint8 or uint16 [H, W]. probability: of that class, uint8 [H, W], 255 is 1."""

    served: Served
    mask: np.ndarray
    probability: np.ndarray

    @property
    def size(self) -> Extent:
        return self.mask.shape[0], self.mask.shape[1]

    def shares(self) -> list[Share]:
        """The classes that occur, the largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.served.classes))
        sums = np.bincount(self.mask.ravel(), self.probability.ravel(), minlength=len(counts))
        order = sorted(np.flatnonzero(counts).tolist(), key=lambda number: -counts[number])
        return [
            Share(
                number,
                self.served.classes[number],
                hexadecimal(self.served.palette[number]),
                int(counts[number]),
                float(counts[number] / self.mask.size),
                float(sums[number] / counts[number] / CERTAIN),
            )
            for number in order
        ]


@dataclass(frozen=True)
class Share:
    """What one class covers: pixels, their share of the photograph and their mean probability, both in [0, 1]."""

    number: int
    name: str
    colour: str
    pixels: int
    share: float
    probability: float


def answers_of(models: Sequence[Served], image: np.ndarray, job: Progress) -> list[Answer]:
    """What each model says of an image, uint8 [H, W, 3]. Raises `Stopped` when the job is stopped."""
    looks = [served.seen(image, job) for served in models]
    job.total = sum(seen.passes for seen in looks)
    return [_answer(served, seen) for served, seen in zip(models, looks, strict=True)]


def _answer(served: Served, seen: Seen | TiledBatch) -> Answer:
    with torch.no_grad():
        classes, probability = seen.best_and_probability()
    kind = torch.uint8 if len(served.classes) <= 256 else torch.uint16
    share = (probability[0] * CERTAIN).round().clamp(0, CERTAIN).to(torch.uint8)
    return Answer(served, classes[0].to(kind).cpu().numpy(), share.cpu().numpy())


def probabilities_of(served: Served, image: np.ndarray, job: Progress) -> np.ndarray:
    """Of every class, float32 [K, H, W]: the model runs once more. Raises `Refused` where that would be too large."""
    needed = 4 * len(served.classes) * math.prod(image.shape[:2])
    if needed > MOST_PROBABILITIES:
        raise Refused(
            413,
            f"the probabilities of {len(served.classes)} classes would take {needed / 10**6:.0f} megabytes; make the "
            "photograph smaller, or use nonlocalseg predict --probabilities",
        )
    seen, view = served.seen(image, job), served.view_of((image.shape[0], image.shape[1]))
    job.total = seen.passes
    with torch.no_grad():
        scores = seen.scores()[0]
        return (scores.softmax(0) if view.average == "logits" else scores).cpu().numpy()


# --- Forms ------------------------------------------------------------------------------------------------------


def mask_png(answer: Answer) -> bytes:
    """Class numbers; in the classes' colours where a palette has room for them."""
    palette = answer.served.palette
    return _png(mask_picture(answer.mask, palette if len(palette) <= 256 else None))


def overlay_png(answer: Answer, image: np.ndarray, opacity: float = 0.5) -> bytes:
    return _png(Image.fromarray(drawing.overlay(image, answer.mask, answer.served.palette, opacity)))


def shares_csv(answer: Answer) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["class", "pixels", "share", "probability"])
    writer.writerows([s.name, s.pixels, f"{s.share:.6f}", f"{s.probability:.4f}"] for s in answer.shares())
    return text.getvalue().encode()


def probabilities_npz(probabilities: np.ndarray, classes: Sequence[str]) -> bytes:
    """As `nonlocalseg predict --probabilities` writes them: float32 [class, row, column], and the names."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, probabilities=probabilities, classes=np.array(classes))
    return buffer.getvalue()


def runs_json(answer: Answer) -> dict[str, object]:
    """Every class that occurs, its mask as COCO's compressed run lengths."""
    return {
        "model": answer.served.name,
        "height": answer.size[0],
        "width": answer.size[1],
        "seen": ", ".join(answer.served.view_of(answer.size).words()),
        "classes": [
            {
                "id": share.number,
                "name": share.name,
                "colour": share.colour,
                "pixels": share.pixels,
                "share": share.share,
                "probability": share.probability,
                "segmentation": run_lengths.encode(answer.mask == share.number),
            }
            for share in answer.shares()
        ],
    }


def picture_png(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG."""
    return _png(Image.fromarray(picture))


def picture_jpeg(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a JPEG whose colours are not thinned out."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=93, subsampling=0)
    return buffer.getvalue()


def shrunk(array: np.ndarray, most: int) -> np.ndarray:
    """[H, W, ...] with at most `most` rows and columns, each pixel one of its own, none mixed."""
    height, width = array.shape[:2]
    ratio = max(height, width, most) / most
    rows, columns = (
        ((np.arange(max(1, round(side / ratio))) + 0.5) * side / max(1, round(side / ratio))).astype(int)
        for side in (height, width)
    )
    return np.ascontiguousarray(array[rows][:, columns])


def hexadecimal(colour: Sequence[int]) -> str:
    return "#" + bytes(colour).hex()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
