"""Operators that mmcv has compiled, and mmcv-lite lacks, in their literal form."""

from __future__ import annotations

from torch import Tensor, nn


class LiteralMask(nn.Module):
    """mmcv's operator PSAMask, which is compiled, position by position: masks `[B, M, H, W] -> [B, H W, H, W]`."""

    def __init__(self, psa_type: str, mask_size: tuple[int, int]) -> None:
        super().__init__()
        self.psa_type, self.mask_size = psa_type, mask_size

    def forward(self, masks: Tensor) -> Tensor:
        batch, _, height, width = masks.shape
        high, wide = self.mask_size
        masks = masks.unflatten(1, (high, wide))
        weights = masks.new_zeros(batch, height, width, height, width)
        for y in range(height):
            for x in range(width):
                rows = range(max(0, y - (high - 1) // 2), min(height, y + high - (high - 1) // 2))
                columns = range(max(0, x - (wide - 1) // 2), min(width, x + wide - (wide - 1) // 2))
                down, across = rows.start - y + (high - 1) // 2, columns.start - x + (wide - 1) // 2
                seen = masks[:, down : down + len(rows), across : across + len(columns), y, x]
                if self.psa_type == "collect":
                    weights[:, rows.start : rows.stop, columns.start : columns.stop, y, x] = seen
                else:
                    weights[:, y, x, rows.start : rows.stop, columns.start : columns.stop] = seen
        return weights.flatten(1, 2)


def without_operators(network: nn.Module) -> None:
    """The compiled operator of a PSAHead replaced by its literal form."""
    for module in list(network.modules()):
        for key, part in list(module.named_children()):
            if key.startswith("psamask") and not isinstance(part, LiteralMask):
                setattr(module, key, LiteralMask(part.psa_type, part.mask_size))
