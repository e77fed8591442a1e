"""What the tiles of a pass gather, summed, and the totals of earlier passes; kept on disk where they are to outlive the
process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nonlocalseg.blocks.tiles import Maxima, SoftSums, Statistics, Sums
from nonlocalseg.files import writing

S = TypeVar("S", bound=Statistics)
EXACT = torch.float64  # of sums over tiles
KINDS: Mapping[str, type[Statistics]] = {kind.__name__: kind for kind in (Sums, Maxima, SoftSums)}
"""Statistics that can be kept on disk, by what they are called there."""


class Gathered(Exception):
    """A tile has said all that it can before the totals are known."""


class Ledger:
    """What the tiles of a pass gather, summed; the totals of earlier passes, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._totals: list[Statistics] = []
        self._asked = 0
        self._sum: Statistics | None = None
        self._dtype = EXACT

    def begin(self) -> None:
        """Another tile."""
        self._asked = 0

    def close(self) -> None:
        """The pass is over: its sum is a total."""
        assert self._sum is not None
        self._totals.append(self._sum.to(self._dtype))
        self._sum = None

    def total(self, gather: Callable[[], S], empty: bool = False) -> S:
        if self._asked < len(self._totals):
            self._asked += 1
            return cast(S, self._totals[self._asked - 1])  # of the kind that this very call gathered in its pass
        if empty:
            raise Gathered
        found = gather()
        self._dtype, exact = found.parts[0].dtype, found.to(EXACT)
        self._sum = exact if self._sum is None else self._sum.merged(exact)
        raise Gathered

    def keep(self, path: Path) -> None:
        """Write the sum of the pass so far, as it is."""
        assert self._sum is not None
        parts = {str(number): part.contiguous().cpu() for number, part in enumerate(self._sum.parts)}
        about = {"kind": type(self._sum).__name__, "dtype": str(self._dtype).removeprefix("torch.")}
        with writing(path) as temporary:
            save_file(parts, temporary, about)

    def restore(self, path: Path, device: torch.device) -> None:
        """Go on with the sum that `keep` wrote. ValueError for a file that is not whole."""
        try:
            with safe_open(path, "pt", str(device)) as file:
                about = file.metadata()
                parts = [file.get_tensor(str(number)) for number in range(len(file.keys()))]
                self._sum, self._dtype = KINDS[about["kind"]](*parts), getattr(torch, about["dtype"])
        except (SafetensorError, KeyError, FileNotFoundError) as error:
            raise ValueError(f"{path}: {error}") from None
