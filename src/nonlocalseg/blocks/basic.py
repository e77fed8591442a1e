"""The small parts of every block: convolution with norm and activation, batch norm of a single value, resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.joining import join, same_size
from nonlocalseg.blocks.tiles import Tile, resampled

M = TypeVar("M", bound=nn.Module)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a training batch holds one value per channel.

    A pooled 1x1 map at batch 1 has no variance; torch raises there. Everywhere else this is `nn.BatchNorm2d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


class ConvNormAct(nn.Module):
    """Convolution, then batch norm, then ReLU; norm and ReLU can be left out. `[B, C, H, W] -> [B, C', H', W']`.

    `padding=None` keeps the size at stride 1. `bias=None` gives the convolution a bias only where no norm follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: int | None = None,
        bias: bool | None = None,
        norm: bool = True,
        act: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2) if padding is None else padding
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias=not norm if bias is None else bias,
        )
        self.norm = BatchNorm2d(out_channels) if norm else nn.Identity()
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()  # of a result that is nobody else's

    @property
    def linear(self) -> bool:
        """Whether this is the convolution alone, so that averaging over positions commutes with it."""
        return isinstance(self.norm, nn.Identity) and isinstance(self.act, nn.Identity)

    def finish(self, x: Tensor) -> Tensor:
        """Norm and activation of a result of the convolution that was computed in another order, and is overwritten."""
        return self.act(self.norm(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.conv(x))

    def over(
        self,
        *maps: Tensor,
        like: Tensor | None = None,
        align_corners: bool = False,
        tile: Tile | None = None,
        sources: Sequence[Tile | None] = (),
    ) -> Tensor:
        """The same of the maps' concatenation, each resized as the first or as `like`; none of that ever exists (`join`).
        `tile` is where the result lies, `sources` where the maps do."""
        size, widths = (maps[0] if like is None else like).shape[-2:], [x.shape[1] for x in maps]
        return self.finish(join(self.conv, maps, widths, (size[0], size[1]), align_corners, tile, sources))


class Scale(nn.Module):
    """One learnt factor, 0 at first, so that a new block begins as its input's own path."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class SeparableConv(nn.Module):
    """A depthwise convolution, then a pointwise one, each with batch norm and ReLU. `[B, C, H, W] -> [B, C', H, W]`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(in_channels, in_channels, kernel_size, dilation=dilation, groups=in_channels)
        self.pointwise = ConvNormAct(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class Affine(nn.Module):
    """One factor and one shift per channel of `[B, C, ...]`: batch norm in evaluation, where no convolution precedes it."""

    def __init__(self, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.factor, self.shift = nn.Parameter(factor), nn.Parameter(shift)

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Affine:
        """What the norm does with its running statistics, computed in float64."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
        shift = norm.bias.double() - norm.running_mean.double() * factor
        return cls(factor.to(norm.weight.dtype), shift.to(norm.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        ones = (1,) * (x.ndim - 2)
        return torch.addcmul(self.shift.view(-1, *ones), x, self.factor.view(-1, *ones))


def to_channels_last(module: M) -> M:
    """The module with its weights in the memory format channels_last."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def resize(
    x: Tensor,
    size: tuple[int, int] | torch.Size,
    align_corners: bool,
    source: Tile | None = None,
    target: Tile | None = None,
) -> Tensor:
    """Bilinear resize of `[B, C, H, W]` to `size` (height, width); the same tensor where it has that size. For a tile of
    the map `source` becomes the tile `target`."""
    if target is not None:
        return resampled(x, source, target, align_corners)
    if same_size(x, size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)
