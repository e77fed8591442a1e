"""Local distribution of a global feature: LDv1's masks and LDv2's local attention (GALD, Eq. 1-3 and 6-8)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import ConvNormAct, resize
from nonlocalseg.blocks.neighbours import local_attention, local_attention_weights
from nonlocalseg.blocks.tiles import Tile, averaged

Downsample = Literal["depthwise", "bilinear", "average"]


class LDv1(nn.Module):
    """M . X_g + X_g with M = sigmoid(upsample(W_d X_g)), one mask per channel (Eq. 1-2). `[B, C, H, W]` to the same.

    `downsample` is the W_d of Table II(a): a stack of depthwise stride-2 convolutions, bilinear or average pooling, to
    1/`ratio` of the size. Ours pads the convolutions, keeps their batch norm and has no ReLU after the last one, so
    that the mask covers (0, 1) and any size works. `official=True` is the public code: no padding (sides of at least
    15 at ratio 8, the mask shifted by 7 pixels towards the border), a ReLU after the last one too (mask in [0.5, 1)).
    `residuals=2` gives the public GALD block, which adds X_g twice: 2 X_g + M . X_g.
    """

    def __init__(
        self,
        channels: int,
        downsample: Downsample = "depthwise",
        ratio: int = 8,
        official: bool = False,
        residuals: int = 1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if downsample not in ("depthwise", "bilinear", "average"):
            raise ValueError(f"mask_downsample must be depthwise, bilinear or average, not {downsample!r}")
        if ratio < 2 or ratio & (ratio - 1):
            raise ValueError(f"the mask's downsampling ratio must be a power of two from 2 up, not {ratio}")
        steps = ratio.bit_length() - 1 if downsample == "depthwise" else 0
        self.down = nn.Sequential(
            *(
                ConvNormAct(
                    channels,
                    channels,
                    3,
                    stride=2,
                    groups=channels,
                    padding=0 if official else 1,
                    bias=official,
                    act=official or step < steps - 1,
                )
                for step in range(steps)
            )
        )
        self.downsample: Downsample = downsample
        self.ratio = ratio
        self.smallest = 2 * ratio - 1 if official and steps else 1
        self.residuals = residuals
        self.align_corners = align_corners
        self.out_channels = channels

    @property
    def reach(self) -> int:
        """How many positions beyond what its convolutions say the mask depends on: cells of a smaller map."""
        return 0 if self.downsample == "depthwise" else 2 * self.ratio

    def mask(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        """M `[B, C, H, W]`, between 0 and 1 (Eq. 1)."""
        height, width = x.shape[-2:]
        smaller = None if tile is None else self._smaller(tile)
        if self.downsample == "depthwise":
            if min(height, width) < self.smallest:
                raise ValueError(
                    f"the official LDv1 needs maps of at least {self.smallest}x{self.smallest}, not {height}x{width}: "
                    "use larger images or the default form"
                )
            small = self.down(x)
        else:
            size = ((height + self.ratio - 1) // self.ratio, (width + self.ratio - 1) // self.ratio)
            if self.downsample == "bilinear":
                small = resize(x, size, False, tile, smaller)
            elif tile is not None and smaller is not None:
                small = averaged(x, tile, smaller)
            else:
                small = F.adaptive_avg_pool2d(x, size)
        return resize(small, (height, width), self.align_corners, smaller, tile).sigmoid()

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        return x * (self.mask(x, tile) + self.residuals)

    def _smaller(self, tile: Tile) -> Tile:
        if self.downsample != "depthwise":
            return tile.shrunk(self.ratio)
        for step in self.down:
            assert isinstance(step, ConvNormAct)
            tile = tile.through(step.conv)
        return tile


class LDv2(nn.Module):
    """Each position gathers its k x k dilated neighbours, weighted by query and key (Eq. 6-8), then a 1x1 convolution.

    `forward(x_g [B, C_g, H, W], x_l [B, C_l, H, W]) -> [B, out_channels, H, W]` with x = concat(x_l, x_g);
    `local_channels=0` leaves x_l out (local distribution alone). `query_input` and `key_input` choose x ("both") or x_g
    alone ("global") (Table II c). Neighbours outside the map have zero key and value and take part in the softmax.
    Eq. 8 has no scale: `scale` is 1.
    """

    def __init__(
        self,
        global_channels: int = 512,
        local_channels: int = 512,
        out_channels: int = 512,
        key_channels: int = 256,
        value_channels: int = 512,
        kernel_size: int = 5,
        dilation: int = 6,
        query_input: Literal["both", "global"] = "both",
        key_input: Literal["both", "global"] = "both",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"distribute_kernel_size must be odd, e.g. 5, not {kernel_size}")
        if dilation < 1:
            raise ValueError(f"distribute_dilation must be at least 1, not {dilation}")
        for name, choice in (("query_input", query_input), ("key_input", key_input)):
            if choice not in ("both", "global"):
                raise ValueError(f"{name} must be both or global, not {choice!r}")
        both = global_channels + local_channels
        self.query = nn.Conv2d(both if query_input == "both" else global_channels, key_channels, 1)
        self.key = nn.Conv2d(both if key_input == "both" else global_channels, key_channels, 1, bias=False)
        self.value = nn.Conv2d(both, value_channels, 1, bias=False)
        self.out = ConvNormAct(value_channels, out_channels)
        self.kernel_size, self.dilation, self.scale = kernel_size, dilation, scale
        self.query_input, self.key_input = query_input, key_input
        self.out_channels = out_channels

    @property
    def reach(self) -> int:
        """How many positions its neighbours lie away at most."""
        return self.kernel_size // 2 * self.dilation

    def attention(self, x_g: Tensor, x_l: Tensor | None = None) -> Tensor:
        """Weights `[B, k * k, H, W]` over the neighbours, row by row, including those outside the map."""
        query, key, _ = self._embed(x_g, x_l)
        return local_attention_weights(query, key, self.kernel_size, self.dilation, self.scale)

    def attended(self, x_g: Tensor, x_l: Tensor | None = None) -> Attended:
        """The weights over the neighbours, with their geometry."""

        def weights(positions: Tensor | None) -> Tensor:
            every = self.attention(x_g, x_l).flatten(2).transpose(1, 2)  # [B, N, k k]
            return every if positions is None else every[:, positions]

        return Attended.of_neighbours(weights, (x_g.shape[-2], x_g.shape[-1]), self.kernel_size, self.dilation)

    def forward(self, x_g: Tensor, x_l: Tensor | None = None) -> Tensor:
        query, key, x = self._embed(x_g, x_l)
        gathered = local_attention(query, key, self.value(x), self.kernel_size, self.dilation, self.scale)
        return self.out(gathered)

    def _embed(self, x_g: Tensor, x_l: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x = x_g if x_l is None else torch.cat([x_l, x_g], dim=1)
        query = self.query(x if self.query_input == "both" else x_g)
        key = self.key(x if self.key_input == "both" else x_g)
        return query, key, x
