"""The best class of every pixel without an array of all scores at the image's size.

Bilinear resizing treats each class alone, so that the classes can take turns; and a class that is nowhere near the best
on the network's grid is the best of no pixel between its cells, because a pixel's scores are averages of theirs with
weights from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP_ROWS = 256  # rows of a full-size array treated at once where a copy of all of it would be too much
AT_ONCE = 4  # classes that are resized together
FEW = 2**24  # scores at the image's size, up to which no array is saved
ROUNDING = 1e-4  # of the largest score: far more than float32 loses in a resize


class Place(Protocol):
    """How scores on a grid come to the image's size, or a window of it (`Placement`, `TilePlacement`)."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def reach(self) -> int | None: ...

    def __call__(self, scores: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Layer:
    """Scores [B, K, h, w] on some grid, how they come to the image's size, and their share in the average. softmax:
    what is averaged is their softmax at the image's size. fresh: they are no tensor that the model has given."""

    scores: Tensor
    place: Place
    share: float = 1.0
    softmax: bool = False
    fresh: bool = False

    def classes(self, numbers: Sequence[int]) -> Tensor:
        """Some classes at the image's size, [B, n, H, W], times the share unless a softmax is to come.

        Bit by bit what all classes together become: torch resizes three at a time with other rounding, and any few to
        a small size (see `in_turn`).
        """
        odd = len(numbers) == 3 < self.scores.shape[1]
        placed = self.place(self.scores[:, [*numbers, *numbers[:1]] if odd else list(numbers)])[:, : len(numbers)]
        return placed if self.share == 1 or self.softmax else placed * self.share


def in_turn(numbers: Sequence[int], pixels: int) -> Iterator[Sequence[int]]:
    """The classes, four at a time; all together where their scores are few."""
    at_once = len(numbers) if len(numbers) * pixels <= FEW else AT_ONCE
    return (numbers[first : first + at_once] for first in range(0, len(numbers), at_once))


def best_class(scores: Tensor) -> Tensor:
    """[..., K, H, W] -> int64 [..., H, W], the index of the highest score, in strips of rows."""
    return torch.cat([strip.argmax(-3) for strip in scores.split(STRIP_ROWS, dim=-2)], dim=-2)


def best_of_layers(layers: Sequence[Layer]) -> Tensor:
    """The class whose scores, summed over the layers, are the highest, the first of equal ones: int64 [B, H, W].

    Equal bit by bit to the argmax of the sum. Memory: about seven arrays [B, H, W] of float32, not K.
    """
    batch, classes = layers[0].scores.shape[:2]
    pixels = batch * layers[0].place.size[0] * layers[0].place.size[1]
    contenders = _contenders(layers[0]) if len(layers) == 1 and classes * pixels > FEW else range(classes)
    best: Tensor | None = None
    index = torch.zeros(0)
    for numbers in in_turn(contenders, pixels):
        scores = layers[0].classes(numbers)
        for layer in layers[1:]:
            scores = scores + layer.classes(numbers)
        for number, score in zip(numbers, scores.unbind(1), strict=True):
            if best is None:
                best, index = score.clone(), torch.full_like(score, number, dtype=torch.int16)
            else:
                index.masked_fill_(score > best, number)
                torch.maximum(best, score, out=best)
    return index.long()


def probability_of_best(layers: Sequence[Layer], logits: bool) -> Tensor:
    """The probability of the best class of each pixel, float32 [B, H, W], of layers as `best_of_layers` takes them.

    logits: the layers sum to logits, of which the softmax is taken, one class after the other; else to probabilities.
    """
    batch, classes = layers[0].scores.shape[:2]
    highest = torch.full((batch, *layers[0].place.size), -math.inf, device=layers[0].scores.device)
    total = torch.zeros_like(highest)
    for number in range(classes):
        scores = layers[0].classes([number])[:, 0]
        for layer in layers[1:]:
            scores = scores + layer.classes([number])[:, 0]
        higher = torch.maximum(highest, scores)
        if logits:
            total = total * (highest - higher).exp() + (scores - higher).exp()
        highest = higher
    return 1 / total if logits else highest


def _contenders(layer: Layer) -> Sequence[int]:
    """The classes that can be the best of some pixel: those whose highest score in some square of cells reaches what
    another class has in all of that square."""
    scores, reach = layer.scores, layer.place.reach
    if reach is None or scores.shape[-2:] == layer.place.size:
        return range(scores.shape[1])
    scores, square = scores.float(), (min(reach, scores.shape[2]), min(reach, scores.shape[3]))
    lowest = -F.max_pool2d(-scores, square, stride=1)
    slack = ROUNDING * float(scores.abs().max())
    surpassed = F.max_pool2d(scores, square, stride=1) < lowest.amax(1, keepdim=True) - slack
    return (~surpassed.all(dim=3).all(dim=2).all(dim=0)).nonzero()[:, 0].tolist()


def sum_of_layers(layers: Iterable[Layer], size: tuple[int, int], own: bool = True) -> Tensor:
    """The sum of layers at the image's size, a few classes at a time, so that no second array of all scores is made.

    own: nobody else needs the layers, so that the first becomes the sum where it is fresh and has the image's size.
    """
    total: Tensor | None = None
    for layer in layers:
        if total is None and own and _is_placed(layer, size):
            total = layer.scores
            continue
        batch, classes = layer.scores.shape[:2]
        total = torch.zeros(batch, classes, *size, device=layer.scores.device) if total is None else total
        if layer.softmax:
            total += layer.classes(range(classes)).softmax(1).mul_(layer.share)
            continue
        for numbers in in_turn(range(classes), batch * size[0] * size[1]):
            total[:, numbers[0] : numbers[-1] + 1] += layer.classes(numbers)
    assert total is not None  # a view has at least one scale
    return total


def _is_placed(layer: Layer, size: tuple[int, int]) -> bool:
    """Whether the scores are what the layer adds to a sum in float32, and may be written to."""
    if (
        not layer.fresh
        or layer.softmax
        or layer.share != 1
        or layer.scores.dtype != torch.float32
        or layer.scores.shape[-2:] != size
    ):
        return False
    return layer.place(layer.scores[:, :1]).data_ptr() == layer.scores.data_ptr()


def probability_in(scores: Tensor, logits: bool) -> Tensor:
    """The highest probability [B, H, W] of scores [B, K, H, W], in strips of rows."""
    strips = scores.split(STRIP_ROWS, dim=-2)
    return torch.cat([(strip.softmax(1) if logits else strip).amax(1) for strip in strips], dim=-2)
