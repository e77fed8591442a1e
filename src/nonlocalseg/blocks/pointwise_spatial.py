"""PSANet's point-wise spatial attention: each position predicts its own mask over the others (Zhao et al., ECCV 2018)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import ConvNormAct

Direction = Literal["collect", "distribute"]
STRIPS = 8  # a number that the size does not change, so that it exports


class PointwiseSpatial(nn.Module):
    """z_i = sum_j a_ij x_j / factor over all positions j (Eq. 5-8): `[B, C, H, W]` to the same.

    "collect" takes a_ij from the mask that i itself predicts, at the offset j - i; "distribute" from the mask of j, at
    i - j. A mask covers `mask_size` offsets around its position; offsets outside it count 0, also in the softmax over
    j that `softmax` puts on a. With `compact` the channels of a mask are the positions of the map themselves, so that
    the map must have as many. Computed in strips of the positions that own masks: neither all masks nor the N x N
    weights exist at once, and offsets that the map does not reach are never predicted.
    """

    def __init__(
        self,
        channels: int,
        mask_size: tuple[int, int],
        direction: Direction,
        compact: bool = False,
        softmax: bool = True,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, channels)
        self.mask = nn.Conv2d(channels, mask_size[0] * mask_size[1], 1, bias=False)
        self.mask_size, self.direction, self.compact = mask_size, direction, compact
        self.softmax, self.factor = softmax, factor

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2], x.shape[3])
        self._check(size)
        owners, points = self.reduce(x).flatten(2), x.flatten(2)
        count = size[0] * size[1]
        length = count // STRIPS + 2  # never 1, which export would take for a constant
        padding = (0, length * STRIPS - count)
        owners = F.pad(owners, padding).unflatten(2, (STRIPS, length))
        everywhere = torch.arange(count, device=x.device)
        own = torch.arange(length, device=x.device)
        if self.direction == "collect":
            parts = []
            for index in range(STRIPS):
                logits = self._logits(owners[:, :, index], own + index * length, everywhere, size)
                weights = logits.softmax(1) if self.softmax else logits
                parts.append(weights.transpose(1, 2) @ points.transpose(1, 2))
            out = torch.cat(parts, dim=1)[:, :count].transpose(1, 2)
        else:
            sources = F.pad(points, padding).unflatten(2, (STRIPS, length)).transpose(1, 3)  # [B, length, STRIPS, C]
            total = points.new_zeros(points.shape[0], count, points.shape[1])
            divisor = points.new_zeros(points.shape[0], count, 1)
            highest = divisor - torch.inf
            for index in range(STRIPS):
                logits = self._logits(owners[:, :, index], own + index * length, everywhere, size)
                if self.softmax:  # over the sources of all strips: highest and sum so far, as in fused attention
                    logits = logits.masked_fill(own + index * length >= count, -torch.inf)
                    now = torch.maximum(highest, logits.amax(2, keepdim=True)).detach()
                    logits, before, highest = (logits - now).exp(), (highest - now).exp(), now
                    total, divisor = total * before, divisor * before + logits.sum(2, keepdim=True)
                total = total + logits @ sources[:, :, index]
            out = (total / divisor if self.softmax else total).transpose(1, 2)
        return (out / self.factor).unflatten(2, size)

    def _check(self, size: tuple[int, int]) -> None:
        if self.compact and size[0] * size[1] != self.mask.out_channels:
            high, wide = self.mask_size
            raise ValueError(
                f"compact: masks of {high}x{wide} need a map of as many positions, not {size[0]}x{size[1]}: "
                "give images of the size that mask_size was made for, or compact=False"
            )

    def _logits(self, owners: Tensor, own: Tensor, others: Tensor, size: tuple[int, int]) -> Tensor:
        """What the masks of the flat positions `own` `[L]`, whose features are `owners` `[B, C, L]`, say of the flat
        positions `others` `[P]`: `[B, P, L]`."""
        weight = self.mask.weight.flatten(1)
        if self.compact:
            return (weight @ owners).index_select(1, others)
        (high, wide), (height, width) = self.mask_size, size
        middle, centre = (high - 1) // 2, (wide - 1) // 2
        if not torch.compiler.is_compiling():  # only the offsets that this map reaches
            top, left = max(0, middle - height + 1), max(0, centre - width + 1)
            bottom, right = min(high, middle + height), min(wide, centre + width)
            weight = weight.unflatten(0, (high, wide))[top:bottom, left:right].flatten(0, 1)
            high, wide, middle, centre = bottom - top, right - left, middle - top, centre - left
        rows, own_rows = others // width, own // width  # the remainder by a free width has no form in ONNX
        down = rows[:, None] - own_rows + middle
        across = (others - rows * width)[:, None] - (own - own_rows * width) + centre
        inside = (down >= 0) & (down < high) & (across >= 0) & (across < wide)
        index = down.clamp(0, high - 1) * wide + across.clamp(0, wide - 1)
        masks = weight @ owners  # [B, offsets, L]
        return masks.gather(1, index.expand(masks.shape[0], -1, -1)).masked_fill(~inside, 0.0)

    def attended(self, x: Tensor) -> Attended:
        """The weights a_ij of all positions j."""
        size = (x.shape[2], x.shape[3])
        everywhere = torch.arange(size[0] * size[1], device=x.device)

        def weights(positions: Tensor | None) -> Tensor:
            asked = everywhere if positions is None else positions
            owners = self.reduce(x).flatten(2)
            if self.direction == "collect":
                logits = self._logits(owners.index_select(2, asked), asked, everywhere, size).transpose(1, 2)
            else:
                logits = self._logits(owners, everywhere, asked, size)
            return logits.softmax(2) if self.softmax else logits / self.factor

        return Attended.of_regions(weights, x, x, None)
