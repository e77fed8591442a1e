"""Non-local blocks: NB and FNB over all positions, APNB and AFNB over anchors, common fusion (ANN, section 3).

Every block computes W_o O of a high map attending to a low one and joins it to the high map. The order of the products
is chosen so that neither the value map, nor the context map before the output convolution, nor the concatenation
exists; the results equal the literal equations (`reference.py`) to rounding, in training and in evaluation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.attention import Attention, Normalisation, mix
from nonlocalseg.blocks.basic import BatchNorm2d, ConvNormAct, resize
from nonlocalseg.blocks.sampling import Sampling
from nonlocalseg.blocks.tiles import Tile

Output = Literal["cat_conv", "cat", "residual"]


class AttendingBlock(nn.Module):
    """One or more contexts of a high map, summed, joined to the map: what the four blocks of the paper share.

    `output="cat"` is Eq. 5, 11 and 17: cat(W_o O, X). "cat_conv" adds the 1x1 convolution `fuse` behind the
    concatenation, as every implementation does; "residual" is W_o O + X.
    """

    def __init__(
        self,
        branches: list[Attention],
        fuse: ConvNormAct | None,
        output: Output,
        dropout: float,
        context_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if output not in ("cat_conv", "cat", "residual"):
            raise ValueError(f"output must be cat_conv, cat or residual, not {output!r}")
        self.branches = nn.ModuleList(branches)
        self.fuse = fuse
        self.output = output
        self.context_norm = nn.Identity() if context_norm is None else context_norm
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()

    def _join(self, high: Tensor, lows: tuple[Tensor, ...], tiles: Sequence[Tile | None]) -> Tensor:
        if self.fuse is None:
            context = self.context_norm(self._contexts(high, lows, None, tiles))
            return context + high if self.output == "residual" else torch.cat([context, high], dim=1)
        weight = self.fuse.conv.weight
        split = weight.shape[1] - high.shape[1]
        joined = F.conv2d(high, weight[:, split:], self.fuse.conv.bias)
        # A folded block has W_o composed with its half already.
        joined = joined + self._contexts(high, lows, weight[:, :split] if split else None, tiles)
        return self.dropout(self.fuse.finish(joined))

    def context(self, high: Tensor, *lows: Tensor) -> Tensor:
        """The summed contexts W_o O `[B, C_out, H, W]`, before they are joined to the high map (the measure of Table 1)."""
        return self._contexts(high, lows, None, [None] * len(lows))

    def _contexts(
        self, high: Tensor, lows: tuple[Tensor, ...], project: Tensor | None, tiles: Sequence[Tile | None]
    ) -> Tensor:
        """The sum over branches of W_o O, or of `project` W_o O without ever forming W_o O."""
        total: Tensor | None = None
        for branch, low, tile in zip(self._attentions(), lows, tiles, strict=True):
            if branch.sampling is None:
                weight, late = branch.out.weight, branch.out.bias
                weight = weight if project is None else (project.flatten(1) @ weight.flatten(1))[:, :, None, None]
                part = F.conv2d(branch.all_positions(high, low, tile), weight)
            else:
                weights, matrix = branch.weights_and_matrix(high, low, tile)
                matrix = matrix if project is None else torch.einsum("fo,bos->bfs", project.flatten(1), matrix)
                part, late = mix(weights, matrix).unflatten(2, high.shape[-2:]), branch.late_bias
            if late is not None:
                part = part + (late if project is None else project.flatten(1) @ late)[:, None, None]
            total = part if total is None else total + part
        assert total is not None
        return total

    def _attentions(self) -> list[Attention]:
        return [branch for branch in self.branches if isinstance(branch, Attention)]


class NonLocal(AttendingBlock):
    """NB, the generic non-local block (Eq. 1-5), and with `sampling` APNB (Eq. 8-11). `[B, C, H, W] -> [B, C', H, W]`.

    `embedding="conv"` is the paper's bare 1x1 convolution for query and key, "conv_norm_act" adds batch norm and ReLU;
    `bias` gives those convolutions a bias. `share` embeds key and query with one convolution. `scaled` multiplies the
    logits by key_channels^-1/2. `act` is the ReLU behind the output convolution. `context_norm` puts a batch norm
    behind W_o before a residual or a bare concatenation (mmsegmentation's NLHead).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        key_channels: int = 256,
        value_channels: int | None = None,
        sampling: Sampling | None = None,
        normalisation: Normalisation = "softmax",
        output: Output = "cat_conv",
        embedding: Literal["conv", "conv_norm_act"] = "conv_norm_act",
        bias: bool = True,
        fuse_bias: bool = True,
        share: bool = True,
        scaled: bool = True,
        act: bool = True,
        context_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        out_channels = in_channels if out_channels is None else out_channels
        query = _embedding(in_channels, key_channels, embedding, bias)
        attention = Attention(
            query,
            None if share else copy_initialised(query),
            _embedding(in_channels, value_channels or key_channels, "conv", True),
            zero_conv(
                value_channels or key_channels, in_channels if output == "residual" else out_channels, not context_norm
            ),
            sampling,
            normalisation,
            key_channels**-0.5 if scaled else 1.0,
        )
        fuse = _fuse(out_channels + in_channels, out_channels, output, fuse_bias, act)
        if context_norm and output == "cat_conv":
            raise ValueError("context_norm goes with output cat or residual: cat_conv has a norm of its own")
        norm = BatchNorm2d(attention.out.out_channels) if context_norm else None
        super().__init__([attention], fuse, output, dropout, norm)
        self.out_channels = {"cat": out_channels + in_channels, "residual": in_channels}.get(output, out_channels)

    def forward(self, x: Tensor, tile: Tile | None = None) -> Tensor:
        return self._join(x, (x,), (tile,))

    def attended(self, x: Tensor) -> Attended:
        """Weights over the anchors (over all positions in NB), with their geometry."""
        return self._attentions()[0].attended(x, x)


class APNB(NonLocal):
    """Asymmetric pyramid non-local block (section 3.2, Eq. 8-11): a `NonLocal` whose keys and values are sampled."""

    def __init__(self, in_channels: int, sampling: Sampling, out_channels: int | None = None, **details) -> None:
        super().__init__(in_channels, out_channels, sampling=sampling, **details)


class FusionNonLocal(AttendingBlock):
    """FNB (Eq. 14-17): a high map attends to one or more low maps; with `sampling` AFNB. The contexts are summed.

    `forward(high [B, C_h, H, W], *lows [B, C_l, H', W']) -> [B, C', H, W]`; sizes may differ; `tiles` are those of the
    low maps. `share_value` takes the key for the value (Eq. 16); the other options are `NonLocal`'s. No implementation
    has an activation here.
    """

    def __init__(
        self,
        high_channels: int,
        low_channels: tuple[int, ...],
        out_channels: int | None = None,
        key_channels: int = 256,
        value_channels: int | None = None,
        sampling: Sampling | None = None,
        normalisation: Normalisation = "softmax",
        output: Output = "cat_conv",
        embedding: Literal["conv", "conv_norm_act"] = "conv_norm_act",
        bias: bool = True,
        fuse_bias: bool = True,
        share_value: bool = False,
        scaled: bool = True,
        act: bool = False,
        dropout: float = 0.0,
    ) -> None:
        out_channels = high_channels if out_channels is None else out_channels
        value_channels = key_channels if share_value or value_channels is None else value_channels
        branches = [
            Attention(
                _embedding(high_channels, key_channels, embedding, bias),
                _embedding(channels, key_channels, embedding, bias),
                None if share_value else _embedding(channels, value_channels, "conv", True),
                zero_conv(value_channels, high_channels if output == "residual" else out_channels),
                sampling,
                normalisation,
                key_channels**-0.5 if scaled else 1.0,
            )
            for channels in low_channels
        ]
        super().__init__(
            branches, _fuse(out_channels + high_channels, out_channels, output, fuse_bias, act), output, dropout
        )
        self.out_channels = {"cat": out_channels + high_channels, "residual": high_channels}.get(output, out_channels)

    def forward(self, high: Tensor, *lows: Tensor, tiles: Sequence[Tile | None] = ()) -> Tensor:
        return self._join(high, lows, tiles or [None] * len(lows))

    def attended(self, high: Tensor, *lows: Tensor) -> list[Attended]:
        """For each low map the weights over its anchors, with their geometry."""
        return [branch.attended(high, low) for branch, low in zip(self._attentions(), lows, strict=True)]


class AFNB(FusionNonLocal):
    """Asymmetric fusion non-local block (section 3.3): a `FusionNonLocal` whose keys and values are sampled."""

    def __init__(
        self,
        high_channels: int,
        low_channels: tuple[int, ...],
        sampling: Sampling,
        out_channels: int | None = None,
        **details,
    ) -> None:
        super().__init__(high_channels, low_channels, out_channels, sampling=sampling, **details)


class CommonFusion(nn.Module):
    """Table 6's common fusion: high + ReLU(BN(Conv1x1(low))), summed over the low maps, each resized to the high one."""

    def __init__(self, high_channels: int, low_channels: tuple[int, ...], align_corners: bool = False) -> None:
        super().__init__()
        self.projections = nn.ModuleList(ConvNormAct(channels, high_channels) for channels in low_channels)
        self.align_corners = align_corners
        self.out_channels = high_channels

    def forward(
        self, high: Tensor, *lows: Tensor, tiles: Sequence[Tile | None] = (), tile: Tile | None = None
    ) -> Tensor:
        """`tiles` are those of the low maps, `tile` that of the high one."""
        for project, low, source in zip(self.projections, lows, tiles or [None] * len(lows), strict=True):
            high = high + resize(project(low), high.shape[-2:], self.align_corners, source, tile)
        return high


def _embedding(in_channels: int, out_channels: int, kind: str, bias: bool) -> ConvNormAct:
    if kind not in ("conv", "conv_norm_act"):
        raise ValueError(f"embedding must be conv or conv_norm_act, not {kind!r}")
    with_norm = kind == "conv_norm_act"
    return ConvNormAct(in_channels, out_channels, bias=bias, norm=with_norm, act=with_norm)


def _fuse(in_channels: int, out_channels: int, output: str, bias: bool, act: bool) -> ConvNormAct | None:
    return ConvNormAct(in_channels, out_channels, bias=bias, act=act) if output == "cat_conv" else None


def copy_initialised(embed: ConvNormAct) -> ConvNormAct:
    """A second module of the same form with weights of its own."""
    other = copy.deepcopy(embed)
    other.conv.reset_parameters()
    return other


def zero_conv(in_channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    """W_o: a 1x1 convolution that starts at zero, so that a new block begins as its input's own path."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
