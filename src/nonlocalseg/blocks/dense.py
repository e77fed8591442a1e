"""DenseASPP: dilated convolutions that each see the results of all before (Yang et al., CVPR 2018, Eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import BatchNorm2d, ConvNormAct


class DilatedLayer(nn.Module):
    """ReLU and 1x1 convolution, batch norm, ReLU and dilated 3x3 convolution; batch norm first where `norm` asks for it."""

    def __init__(
        self, in_channels: int, width: int, channels: int, dilation: int, norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = BatchNorm2d(in_channels) if norm else nn.Identity()
        self.reduce = ConvNormAct(in_channels, width)
        self.conv = nn.Conv2d(width, channels, 3, padding=dilation, dilation=dilation)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.conv(self.reduce(self.norm(x).relu())))


class DenseASPP(nn.Module):
    """y_l = H_{K, d_l}([y_{l-1}, ..., y_0]) with rising dilations d_l; all maps side by side are the result.

    `[B, C, H, W] -> [B, C + len(rates) channels, H, W]`, the latest map first, as in the authors' code. `width` is that
    of the 1x1 convolutions. y_0 is rectified, as there, where the first layer does it in place and has no norm.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 128,
        width: int = 512,
        rates: tuple[int, ...] = (3, 6, 12, 18, 24),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DilatedLayer(in_channels + place * channels, width, channels, rate, place > 0, dropout)
            for place, rate in enumerate(rates)
        )
        self.out_channels = in_channels + len(rates) * channels

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        for layer in self.layers:
            x = torch.cat([layer(x), x], dim=1)
        return x
