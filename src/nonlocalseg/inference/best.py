"""The best class of every pixel without an array of all scores at the image's size.

Bilinear resizing treats each class alone, so that the classes can take turns; and a class that is nowhere near the best
on the network's grid is the best of no pixel between its cells, because a pixel's scores are averages of theirs with
weights from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocalseg.inference.resizing import Placement

STRIP_ROWS = 256  # rows of a full-size array treated at once where a copy of all of it would be too much
ROUNDING = 1e-4  # of the largest score: far more than float32 loses in a resize


@dataclass(frozen=True)
class Layer:
    """Scores [B, K, h, w] on some grid, how they come to the image's size, and their share in the average. softmax:
    what is averaged is their softmax at the image's size."""

    scores: Tensor
    place: Placement
    share: float = 1.0
    softmax: bool = False

    def classes(self, first: int, last: int) -> Tensor:
        """Some classes at the image's size, [B, last - first, H, W], times the share unless a softmax is to come."""
        placed = self.place(self.scores[:, first:last].contiguous())
        return placed if self.share == 1 or self.softmax else placed * self.share


def best_class(scores: Tensor) -> Tensor:
    """[..., K, H, W] -> int64 [..., H, W], the index of the highest score, in strips of rows."""
    return torch.cat([strip.argmax(-3) for strip in scores.split(STRIP_ROWS, dim=-2)], dim=-2)


def best_of_layers(layers: Sequence[Layer]) -> Tensor:
    """The class whose scores, summed over the layers, are the highest, the first of equal ones: int64 [B, H, W].

    Equal bit by bit to the argmax of the sum. Memory: three arrays [B, H, W] of float32, not K.
    """
    first = layers[0].scores
    contenders = _contenders(layers[0]) if len(layers) == 1 else list(range(first.shape[1]))
    best: Tensor | None = None
    index = torch.zeros(0)
    for number in contenders:
        score = layers[0].classes(number, number + 1)[:, 0]
        for layer in layers[1:]:
            score = score + layer.classes(number, number + 1)[:, 0]
        if best is None:
            best, index = score.clone(), torch.full_like(score, number, dtype=torch.int16)
        else:
            index.masked_fill_(score > best, number)
            torch.maximum(best, score, out=best)
    return index.long()


def _contenders(layer: Layer) -> list[int]:
    """The classes that can be the best of some pixel: those whose highest score in some square of cells reaches what
    another class has in all of that square."""
    scores, reach = layer.scores.float(), layer.place.reach
    if reach is None:
        return list(range(scores.shape[1]))
    square = (min(reach, scores.shape[2]), min(reach, scores.shape[3]))
    lowest = -F.max_pool2d(-scores, square, stride=1)
    slack = ROUNDING * float(scores.abs().max())
    surpassed = F.max_pool2d(scores, square, stride=1) < lowest.amax(1, keepdim=True) - slack
    return (~surpassed.all(dim=3).all(dim=2).all(dim=0)).nonzero()[:, 0].tolist()
