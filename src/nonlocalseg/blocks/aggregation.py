"""Global aggregation: PSP, ASPP and CGNL, and running any of them at half resolution (GALD, section III-A; NL is `NonLocal`)."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import ConvNormAct, SeparableConv, resize
from nonlocalseg.blocks.joining import join
from nonlocalseg.blocks.non_local import NonLocal
from nonlocalseg.blocks.sampling import AverageSampling
from nonlocalseg.blocks.tiles import Sums, Tile, group_normalised, mean_of, total


class PSP(nn.Module):
    """Pyramid pooling: the map beside its averages over 1, 4, 9 and 36 cells, joined by a 3x3 convolution.

    `[B, C, H, W] -> [B, out_channels, H, W]`. `act` is the ReLU after each pooled convolution and `map_first` the order
    of the concatenation: both true in mmsegmentation, both false in GALD's official code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 512,
        channels: int = 512,
        bins: tuple[int, ...] = (1, 2, 3, 6),
        act: bool = True,
        map_first: bool = True,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.pool = AverageSampling(bins)
        self.stages = nn.ModuleList(ConvNormAct(in_channels, channels, act=act) for _ in bins)
        self.bottleneck = ConvNormAct(in_channels + len(bins) * channels, out_channels, 3)
        self.map_first = map_first
        self.align_corners = align_corners
        self.out_channels = out_channels

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        bins = self.pool.sizes
        cells = self.pool(x, tile=tile)[0].split([size * size for size in bins], dim=2)
        pooled = [
            stage(cell.unflatten(2, (size, size))) for stage, cell, size in zip(self.stages, cells, bins, strict=True)
        ]
        regions: list[Tile | None] = [None] * len(pooled)
        maps, sources = ([x, *pooled], [tile, *regions]) if self.map_first else ([*pooled, x], [*regions, tile])
        return self.bottleneck.over(*maps, like=x, align_corners=self.align_corners, tile=tile, sources=sources)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: image average, 1x1 and three dilated 3x3 convolutions, joined by a last one.

    `[B, C, H, W] -> [B, out_channels, H, W]`; `rates` are the dilations at the map's own resolution. `separable` makes
    the dilated convolutions depthwise and pointwise (DeepLabv3+); `kernel_size` is that of the last convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 512,
        channels: int = 256,
        rates: tuple[int, ...] = (12, 24, 36),
        separable: bool = False,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        dilated = SeparableConv if separable else ConvNormAct
        self.image = ConvNormAct(in_channels, channels)
        self.branches = nn.ModuleList(
            [ConvNormAct(in_channels, channels)] + [dilated(in_channels, channels, 3, dilation=rate) for rate in rates]
        )
        self.bottleneck = ConvNormAct((len(rates) + 2) * channels, out_channels, kernel_size)
        self.out_channels = out_channels

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        maps = chain([self.image(mean_of(x, tile))], (branch(x) for branch in self.branches))
        widths = [self.image.conv.out_channels] * (1 + len(self.branches))
        sources = [None, *(tile for _ in self.branches)]
        size = (x.shape[2], x.shape[3])
        return self.bottleneck.finish(join(self.bottleneck.conv, maps, widths, size, False, tile, sources))


class CGNL(nn.Module):
    """Compact generalised non-local block with a dot-product kernel (GALD's reference [13]). `[B, C, H, W]` to the same.

    Within each of `groups` groups of c = channels / groups, one scalar a = sum(p . g) relates all positions and channels.
    Ours follows the published formula: y = a / (c H W) t, then the grouped 1x1 convolution z, plus x; the aggregate's
    magnitude acts on the output. `official=True` is GALD's and ANN's code: y = a t without the mean, then a GroupNorm
    over the very groups of z, which divides the magnitude of a out again, so that only its sign is left;
    `official_scale` is its `use_scale` (a / sqrt(c H W)), without effect but for rounding.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int | None = None,
        groups: int = 8,
        official: bool = False,
        official_scale: bool = False,
    ) -> None:
        super().__init__()
        channels = in_channels // 2 if channels is None else channels
        if channels % groups or in_channels % groups:
            raise ValueError(f"groups={groups} must divide the channels {in_channels} and {channels} of CGNL")
        self.t = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.p = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.g = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.z = nn.Conv2d(channels, in_channels, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, in_channels) if official else nn.Identity()
        self.groups = groups
        self.official = official
        self.official_scale = official_scale
        self.out_channels = in_channels

    def gather(self, x: Tensor, tile: Tile | None = None) -> Sums:
        """The sum of p . g over a group `[B, groups]` in float32 (float64 for float64), of the tile's core."""
        x = x if tile is None else tile.own(x)
        p, g = self.p(x), self.g(x)
        exact = torch.promote_types(p.dtype, torch.float32)
        return Sums((p.to(exact) * g.to(exact)).flatten(1).unflatten(1, (self.groups, -1)).sum(2))

    def aggregate(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        """The scalar of every group `[B, groups]`, already divided as the form asks."""
        found = total(tile, lambda: self.gather(x, tile)).parts[0]
        positions = x.shape[2] * x.shape[3] if tile is None else tile.count
        count = positions * (self.p.out_channels // self.groups)
        if not self.official:
            return found / count
        return found / count**0.5 if self.official_scale else found

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        scalar = self.aggregate(x, tile)
        t = self.t(x)
        exact = torch.promote_types(t.dtype, torch.float32)
        per_channel = scalar.repeat_interleave(t.shape[1] // self.groups, dim=1)[:, :, None, None]
        y = (t.to(exact) * per_channel).to(t.dtype)
        z = self.z(y)
        return (group_normalised(self.norm, z, tile) if isinstance(self.norm, nn.GroupNorm) else z) + x


class HalfResolution(nn.Module):
    """Aggregation on the map downsampled by 2 with a depthwise 3x3 convolution, resized back (GALD, section III-A).

    `padding=0` with `bias=True` is the official code's convolution, which needs sides of at least 3; ours pads.
    """

    def __init__(
        self,
        block: PSP | ASPP | CGNL | NonLocal,
        channels: int,
        padding: int = 1,
        bias: bool = False,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.down = ConvNormAct(channels, channels, 3, stride=2, groups=channels, padding=padding, bias=bias)
        self.block = block
        self.align_corners = align_corners
        self.out_channels = block.out_channels

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        half = None if tile is None else tile.through(self.down.conv)
        return resize(self.block(self.down(x), half), x.shape[-2:], self.align_corners, half, tile)

    def attended(self, x: Tensor) -> Attended:
        """What an attending block attends to: positions and cells of the halved map. ValueError for other blocks."""
        if not isinstance(self.block, NonLocal):
            raise ValueError(f"{type(self.block).__name__} does not attend: only NB and APNB have weights to show")
        return self.block.attended(self.down(x))
