"""INT8: which parts of a network stay in float, by the damage that was measured of each on photographs without labels.

What counts is agreement, the share of pixels whose class is that of the model in float. Where a network that is all in
INT8 does not reach it, each part is given back to float alone, and those that bring most stay there until it is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from nonlocalseg.exporting.graph import Graph
from nonlocalseg.exporting.passport import Opened, Part, Quantised
from nonlocalseg.progress import track

LEAST = 0.975
"""The agreement to be reached. Of an ANN on CamVid, 97.0 % meant 0.2 points of mIoU, 92.8 % meant 0.7."""
COMPARED = 16
"""The most photographs on which agreement is measured."""


class Quantiser(Protocol):
    """Writes one network in INT8 again and again. parts: the nodes of each part, by its name."""

    parts: dict[str, list[str]]

    @property
    def ways(self) -> tuple[str, ...]:
        """How weights can be rounded for this CPU, in words."""
        ...

    def write(self, path: Path, way: str, kept: Collection[str]) -> None:
        """kept: nodes that stay in float."""
        ...


def split(images: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Those whose ranges are taken, and those on which agreement is measured: others, unless there is one alone."""
    if len(images) == 1:
        return images, images
    return images[::2], images[1::2][:: -(-len(images) // (2 * COMPARED))]


class Search:
    """For the best file of `quantiser`, written at `path`. open: runs a file. graph: the model in float, which answers as
    the file does."""

    def __init__(
        self,
        quantiser: Quantiser,
        open: Callable[[Path], Opened],
        graph: Graph,
        compared: Sequence[Tensor],
        path: Path,
    ) -> None:
        self.quantiser, self.open, self.graph, self.compared, self.path = quantiser, open, graph, compared, path
        self._wanted: list[Tensor] = []
        self._written: tuple[str, list[str]] | None = None

    def run(self, calibrated: int) -> Quantised:
        """Leaves the file there. calibrated: photographs whose ranges were taken.

        Raises ValueError where the classes agree only when no part is in INT8.
        """
        whole = {way: self._agreement(way, []) for way in self.quantiser.ways}
        way = max(whole, key=lambda name: whole[name])
        agreement, parts, kept = whole[way], self.quantiser.parts, []
        gains: dict[str, float] = {}
        if agreement < LEAST:
            for name in track(parts, "measuring what stays in float"):
                gains[name] = self._agreement(way, parts[name]) - whole[way]
        ranked = sorted(gains, key=lambda name: -gains[name])
        if agreement < LEAST:
            kept, agreement = self._fewest(way, ranked, whole[way])
        self._write(way, _nodes(parts, kept))
        return Quantised(
            calibrated=calibrated,
            compared=len(self.compared),
            agreement=agreement,
            least=LEAST,
            weights=way,
            ways=whole,
            parts=tuple(Part(name=name, gain=gains[name], kept=name in kept) for name in ranked),
        )

    def _fewest(self, way: str, ranked: Sequence[str], whole: float) -> tuple[Sequence[str], float]:
        """The first of the parts that must be in float, and the agreement then; how many by bisection."""
        too_few, enough, found = 0, len(ranked), 0.0
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            agreement = self._agreement(way, _nodes(self.quantiser.parts, ranked[:middle]))
            if agreement >= LEAST:
                enough, found = middle, agreement
            else:
                too_few = middle
        if enough == len(ranked):
            raise ValueError(
                f"int8: on these photographs {100 * whole:.1f} % of the pixels keep the class of the model, not "
                f"{100 * LEAST:g} %, nor do they with any part but one in float: give photographs like those of the "
                "training, or leave out int8"
            )
        return ranked[:enough], found

    def _write(self, way: str, kept: list[str]) -> None:
        if self._written != (way, kept):
            self.quantiser.write(self.path, way, kept)
            self._written = (way, kept)

    def _agreement(self, way: str, kept: list[str]) -> float:
        self._write(way, kept)
        run, same, count = self.open(self.path).run, 0, 0
        for number, images in enumerate(self.compared):
            if number == len(self._wanted):
                with torch.no_grad():
                    self._wanted.append(_classes(self.graph(images)))
            agreeing = _classes(run(images)) == self._wanted[number]
            same, count = same + int(agreeing.sum()), count + agreeing.numel()
        return same / count


def _classes(answer: Tensor) -> Tensor:
    return answer.argmax(1).to(torch.int16) if answer.ndim == 4 else answer


def _nodes(parts: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    return [node for name in names for node in parts[name]]
