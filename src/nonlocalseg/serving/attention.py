"""What a model attends to at one pixel of a photograph, as pictures and lines for the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from nonlocalseg import drawing
from nonlocalseg.explanation.collect import explain
from nonlocalseg.explanation.pictures import PICTURES, Drawn
from nonlocalseg.explanation.subject import Subject
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.serving.answer import Served, picture_png


@dataclass(frozen=True)
class Shown:
    """One picture: what it shows, its caption, the strongest weights in words, and a PNG as a data: address."""

    alt: str
    caption: str
    lines: tuple[str, ...]
    image: str


def attention_of(served: Served, image: np.ndarray, pixel: tuple[int, int]) -> tuple[list[Shown], str]:
    """The pictures of one model at `pixel` (x, y), or none and the reason. Raises ValueError for a pixel outside."""
    if not isinstance(served.model, Segmenter):
        return [], f"{served.name} is an exported file: its network's attention cannot be seen"
    found = explain(served.model, image, pixel)
    subject = Subject({served.name: found}, "the photograph")
    shown = [
        Shown(drawn.alt, drawn.caption, tuple(drawn.lines), _address(drawn))
        for picture in PICTURES.values()
        if picture.attends
        for drawn in picture.draw(subject)
    ]
    return shown, "" if shown else f"{served.name} has no block whose attention could be shown"


def _address(drawn: Drawn) -> str:
    picture = drawn.figure if isinstance(drawn.figure, np.ndarray) else drawing.rastered(drawn.figure)
    return "data:image/png;base64," + base64.b64encode(picture_png(np.ascontiguousarray(picture))).decode()
