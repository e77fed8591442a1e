"""Footage: what of a video is labelled, and what becomes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Lt

from nonlocalseg.values import Count, Metavar, value

Smoothing = Annotated[float, Ge(0), Lt(1), Metavar("X")]


@value
class Footage:
    """What of a video is labelled, and what becomes of it."""

    every: Annotated[Count, Metavar("N")] = 1
    """Label every N-th frame of a video; the frames between keep the last answer, over their own picture."""

    smooth: Smoothing = 0.0
    """The share of the past in the probabilities of a video's frame: 0 takes each for itself, 0.8 calms what flickers
    and trails behind what moves."""

    video: Literal["overlay", "colour", "index"] = "overlay"
    """What a video becomes: classes over its pictures, their colours alone, or class numbers (grey, without loss, .mkv)."""
