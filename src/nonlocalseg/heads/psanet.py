"""PSANet: every position collects from and distributes to the others by masks it predicts (Zhao et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import ConvNormAct, resize
from nonlocalseg.blocks.joining import interpolation
from nonlocalseg.blocks.pointwise_spatial import Direction, PointwiseSpatial
from nonlocalseg.blocks.tiles import WHOLE, Tiles
from nonlocalseg.heads.base import SILENT, Features, Head, HeadOptions, Watch, whole_only
from nonlocalseg.values import Count, NotNegative, Positive, Size, value

TITLES: dict[Direction, str] = {"collect": "what is collected", "distribute": "what is distributed to the pixel"}


@value
class PSAOptions(HeadOptions):
    """Point-wise spatial attention."""

    channels: Count = 512
    "Channels of the branches and of the last 3x3 convolution."
    psa_type: Literal["bi-direction", "collect", "distribute"] = "bi-direction"
    "Information is collected, distributed, or both."
    mask_size: Size = (97, 97)
    "Offsets that a mask covers, 2 h - 1 and 2 w - 1 for all of a smaller map of h x w; with compact h and w."
    compact: bool = False
    "A mask's channels are the positions of the smaller map, whose size is then fixed, instead of offsets."
    shrink_factor: Count = 2
    "How much smaller the map is that attends."
    normalization_factor: Positive = 1.0
    "The attended sum is divided by it."
    psa_softmax: bool = True
    "Softmax over the positions that are summed."
    mmseg_details: bool = False
    """mmsegmentation's deviations: sizes that only one side is odd of are rounded down, corners aligned only where both
    are odd; a border of one position around the projection; collect and distribute exchanged where one alone is
    compact."""
    dropout: NotNegative = 0.1
    "Dropout before the classifier."


class PSAHead(Head[PSAOptions]):
    """Stage 5 beside what its smaller reductions collect and distribute, a 3x3 convolution, classifier (Fig. 2)."""

    def __init__(self, options: PSAOptions, in_channels: int, num_classes: int) -> None:
        super().__init__()
        o, width = options, options.channels
        self.directions: tuple[Direction, ...] = (
            ("collect", "distribute") if o.psa_type == "bi-direction" else (o.psa_type,)
        )
        exchanged = o.mmseg_details and o.compact and len(self.directions) == 1
        of_blocks: tuple[Direction, ...] = tuple(_OTHER[name] if exchanged else name for name in self.directions)
        self.reduce = nn.ModuleList(ConvNormAct(in_channels, width) for _ in self.directions)
        self.attention = nn.ModuleList(
            PointwiseSpatial(width, o.mask_size, name, o.compact, o.psa_softmax, o.normalization_factor)
            for name in of_blocks
        )
        self.project = ConvNormAct(width * len(self.directions), in_channels, padding=int(o.mmseg_details))
        self.combine = ConvNormAct(2 * in_channels, width, 3)
        self.shrink_factor, self.by_parity, self.align_corners = o.shrink_factor, o.mmseg_details, o.align_corners
        self.dropout = nn.Dropout2d(o.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    @classmethod
    def build(cls, options: PSAOptions, channels: Mapping[int, int], num_classes: int) -> Self:
        return cls(options, channels[5], num_classes)

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        whole_only(tiles, "every position has a mask of its own over all the others")
        x = features[5]
        size, align_corners = self._smaller(x)
        found = []
        for name, reduce, block in zip(self.directions, self.reduce, self.attention, strict=True):
            assert isinstance(block, PointwiseSpatial)
            small = _resize(reduce(x), size, align_corners)
            watch.attention(name, TITLES[name], lambda block=block, small=small: block.attended(small))
            found.append(block(small))
        out = _resize(self.project(torch.cat(found, dim=1)), (x.shape[2], x.shape[3]), align_corners)
        return self.classifier(self.dropout(self.combine.over(x, out)))

    def _smaller(self, x: Tensor) -> tuple[tuple[int, int], bool | int]:
        """The size of the map that attends, and whether corners are aligned on the way there and back."""
        (height, width), factor = (x.shape[2], x.shape[3]), self.shrink_factor
        if factor == 1:
            return (height, width), self.align_corners
        if not self.by_parity:
            return ((height - 1) // factor + 1, (width - 1) // factor + 1), self.align_corners
        if torch.compiler.is_exporting():  # both ways in one graph: odd is 1 where neither side can be divided, else 0
            rests = [side - side // factor * factor for side in (height, width)]
            odd = (rests[0] + factor - 1) // factor * ((rests[1] + factor - 1) // factor)
            return (height // factor + odd, width // factor + odd), odd
        if height % factor and width % factor:
            return ((height - 1) // factor + 1, (width - 1) // factor + 1), True
        return (height // factor, width // factor), False


def _resize(x: Tensor, size: tuple[int, int], aligned: bool | int) -> Tensor:
    """Bilinear resize; where `aligned` is a number (0: no, 1: yes), a graph decides whether corners are aligned."""
    if isinstance(aligned, bool):
        return resize(x, size, aligned)
    rows, columns = (
        aligned * interpolation(length, target, True, x) + (1 - aligned) * interpolation(length, target, False, x)
        for length, target in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.T


_OTHER: dict[Direction, Direction] = {"collect": "distribute", "distribute": "collect"}
