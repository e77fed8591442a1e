"""EMANet's attention: a map rebuilt from a few bases that expectation maximisation finds in it (Li et al., ICCV 2019)."""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.tiles import Sums, Tile, total
from nonlocalseg.runtime import mean_over_processes

_POSITIONS = 512


class ExpectationMaximisation(nn.Module):
    """`iterations` times z = softmax_k(x mu), mu = the mean of x weighted by z, of length 1; then mu z (Eq. 8-13).

    `[B, C, H, W]` to the same, all from `bases` `[1, C, K]`, which training moves by `momentum` towards the mean of
    the mu of all images, on all processes; evaluation leaves them. As in the public codes no gradient passes: what
    stands before the block learns through the path around it.
    """

    bases: Tensor

    def __init__(self, channels: int, num_bases: int, iterations: int = 3, momentum: float = 0.1) -> None:
        super().__init__()
        self.iterations, self.momentum = iterations, momentum
        self.register_buffer("bases", F.normalize(torch.randn(1, channels, num_bases), dim=1))

    def extra_repr(self) -> str:
        return f"{self.bases.shape[1]}, {self.bases.shape[2]} bases"

    @torch.no_grad()
    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        bases = before = self.bases.to(x.dtype).expand(x.shape[0], -1, -1)
        found: list[Tensor] = []
        for _ in range(self.iterations):
            found.clear()
            sums, weights = total(tile, lambda now=bases: self.gather(x, now, found, tile)).parts
            before, bases = bases, F.normalize(sums / weights.clamp(min=1e-12), dim=1)
        if self.training:
            mean = mean_over_processes(bases.mean(0, keepdim=True).to(self.bases))
            self.bases.lerp_(F.normalize(mean, dim=1), self.momentum)
        assignment = torch.cat(found, 1) if tile is None else _assigned(x.flatten(2), before)
        found.clear()
        return (bases @ assignment.transpose(1, 2)).unflatten(2, x.shape[-2:])

    def gather(self, x: Tensor, bases: Tensor, found: list[Tensor], tile: Tile | None = None) -> Sums:
        """sum_n z_nk x_n `[B, C, K]` and sum_n z_nk `[B, 1, K]` for these bases, of the tile's core; the z are added to
        what is `found`, in pieces of which each is still in a processor's cache when it is used again."""
        points = (x if tile is None else tile.own(x)).flatten(2)
        pieces = [points] if torch.compiler.is_compiling() else points.split(_POSITIONS, 2)
        return reduce(Sums.merged, (_gathered(piece, bases, found) for piece in pieces))

    def _found(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bases `[B, C, K]`, the assignment of positions to them `[B, N, K]`, and that divided by its sum over N."""
        points = x.flatten(2)
        bases = self.bases.to(x.dtype).expand(x.shape[0], -1, -1)
        assignment = share = bases[:, :0]
        for _ in range(self.iterations):
            assignment = _assigned(points, bases)
            share = F.normalize(assignment, p=1.0, dim=1)
            bases = F.normalize(points @ share, dim=1)
        return bases, assignment, share

    def attended(self, x: Tensor) -> Attended:
        """How much of each position a position is rebuilt from, through the bases (before they have length 1)."""

        def weights(positions: Tensor | None) -> Tensor:
            _, assignment, share = self._found(x)
            asked = assignment if positions is None else assignment.index_select(1, positions)
            return asked @ share.transpose(1, 2)

        return Attended.of_regions(weights, x, x, None)


def _gathered(piece: Tensor, bases: Tensor, found: list[Tensor]) -> Sums:
    found.append(_assigned(piece, bases))
    return Sums(piece @ found[-1], found[-1].sum(1, keepdim=True))


def _assigned(points: Tensor, bases: Tensor) -> Tensor:
    """z `[B, N, K]` of `[B, C, N]`: how much of each position belongs to each base."""
    return (points.transpose(1, 2) @ bases).softmax(2)
