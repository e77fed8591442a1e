"""EMANet's attention: a map rebuilt from a few bases that expectation maximisation finds in it (Li et al., ICCV 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.tiles import Sums, Tile, total
from nonlocalseg.runtime import mean_over_processes


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
        bases = self.bases.to(x.dtype).expand(x.shape[0], -1, -1)
        assignment = bases[:, :0]
        for _ in range(self.iterations):
            del assignment  # while the next one is found
            assignment = _assigned(x, bases)
            sums, weights = total(tile, lambda now=(assignment, bases): self.gather(x, now, tile)).parts
            bases = F.normalize(sums / weights.clamp(min=1e-12), dim=1)
        if self.training:
            mean = mean_over_processes(bases.mean(0, keepdim=True).to(self.bases))
            self.bases.lerp_(F.normalize(mean, dim=1), self.momentum)
        return (bases @ assignment.transpose(1, 2)).unflatten(2, x.shape[-2:])

    def gather(self, x: Tensor, now: tuple[Tensor, Tensor], tile: Tile | None = None) -> Sums:
        """sum_n z_nk x_n `[B, C, K]` and sum_n z_nk `[B, 1, K]` of the assignment and the bases as they are `now`; of the
        tile's core."""
        assignment, bases = now
        if tile is not None:
            x = tile.own(x)
            assignment = _assigned(x, bases)
        return Sums(x.flatten(2) @ assignment, assignment.sum(1, keepdim=True))

    def _found(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bases `[B, C, K]`, the assignment of positions to them `[B, N, K]`, and that divided by its sum over N."""
        points = x.flatten(2)
        bases = self.bases.to(x.dtype).expand(x.shape[0], -1, -1)
        assignment = share = bases[:, :0]
        for _ in range(self.iterations):
            assignment = _assigned(x, bases)
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


def _assigned(x: Tensor, bases: Tensor) -> Tensor:
    """z `[B, N, K]`: how much of each position belongs to each base."""
    logits = x.flatten(2).transpose(1, 2) @ bases
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return logits.softmax(2)
    return torch.softmax(logits, 2, out=logits)
