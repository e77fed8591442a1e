"""Exact inference-time folding of blocks: norms into convolutions, W_o into what follows, AFNB with its 3x3 convolution."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.attention import Attention
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.non_local import AttendingBlock, FusionNonLocal
from nonlocalseg.blocks.tiles import Tile


def fold_fusion(fusion: nn.Module, between: nn.Module) -> FoldedFusion | None:
    """AFNB or FNB and the 3x3 convolution behind it as one; None where that is not possible or no less arithmetic.

    Both must be folded in themselves already (`fold_norm`, `fold_out`).
    """
    if not isinstance(fusion, FusionNonLocal) or not isinstance(between, ConvNormAct):
        return None
    if fusion.fuse is None or not isinstance(fusion.fuse.act, nn.Identity):
        return None
    conv, out = fusion.fuse.conv, between.conv.out_channels
    # Multiply-adds at each position: the output convolution and the context go, nine shifted products come.
    branches = [branch for branch in fusion.branches if isinstance(branch, Attention)]
    attended = sum(b.out.in_channels if b.sampling is None else b.sampling.anchors for b in branches)
    cheaper = (conv.in_channels + attended) * conv.out_channels > 9 * attended * out
    return FoldedFusion.of(fusion, between) if cheaper else None


class FoldedFusion(nn.Module):
    """AFNB or FNB, its output convolution and the 3x3 convolution behind them, as one. `[B, C_h, H, W] -> [B, C, H, W]`.

    conv3x3(W_x X + M V^T + b) is a 3x3 convolution of X plus, for each of the nine offsets o, (W_3[o] (M + b)) V_o^T
    with V_o the attention map shifted and padded with zeros. Rows of V sum to one inside the map and to zero outside,
    so b rides on M and the border is exact; where they do not sum to one, b gets an anchor of its own. `spread` holds
    W_3[o] W_c W_o for all offsets, and as its bias what rides.
    """

    def __init__(self, branches: nn.ModuleList, direct: nn.Conv2d, spread: list[nn.Conv2d], act: nn.Module) -> None:
        super().__init__()
        self.branches = branches
        self.direct = direct
        self.spread = nn.ModuleList(spread)
        self.act = act

    @classmethod
    def of(cls, fusion: FusionNonLocal, between: ConvNormAct) -> FoldedFusion:
        """From a block whose W_o and norms are folded already (`fuse` maps the high features alone)."""
        assert fusion.fuse is not None
        three, fuse = between.conv, fusion.fuse.conv
        kernel = three.weight.double()  # [C, F, 3, 3]
        direct = nn.Conv2d(fuse.in_channels, three.out_channels, 3, padding=1).to(three.weight)
        direct.weight.copy_(torch.einsum("ofhw,fc->ochw", kernel, fuse.weight.double().flatten(1)))
        assert three.bias is not None
        _bias(direct).copy_(three.bias)
        offsets = kernel.permute(2, 3, 0, 1).flatten(0, 2)  # [9 C, F]
        spread = []
        for index, branch in enumerate(fusion.branches):
            assert isinstance(branch, Attention)
            riding = torch.zeros(kernel.shape[1], dtype=torch.float64, device=kernel.device)
            riding += branch.out.bias.double() if branch.out.bias is not None else 0
            riding += fuse.bias.double() if index == 0 and fuse.bias is not None else 0
            conv = nn.Conv2d(branch.out.in_channels, offsets.shape[0], 1).to(three.weight)
            conv.weight.copy_((offsets @ branch.out.weight.double().flatten(1))[:, :, None, None])
            _bias(conv).copy_(offsets @ riding)
            spread.append(conv)
        return cls(fusion.branches, direct, spread, between.act)

    def forward(self, high: Tensor, *lows: Tensor, tiles: Sequence[Tile | None] = ()) -> Tensor:
        out = self.direct(high)
        places = tiles or [None] * len(lows)
        for branch, spread, low, tile in zip(self.branches, self.spread, lows, places, strict=True):
            assert isinstance(branch, Attention)
            assert isinstance(spread, nn.Conv2d)
            if branch.sampling is None:
                out = out + self._from_map(branch.all_positions(high, low, tile), spread)
            else:
                out = out + self._from_anchors(*branch.weights_and_values(high, low, tile), branch, spread, high)
        return self.act(out)

    def attended(self, high: Tensor, *lows: Tensor) -> list[Attended]:
        """As `FusionNonLocal.attended`: the weights that `forward` uses."""
        pairs = zip(self.branches, lows, strict=True)
        return [branch.attended(high, low) for branch, low in pairs if isinstance(branch, Attention)]

    def _from_map(self, context: Tensor, spread: nn.Conv2d) -> Tensor:
        """The part of FNB: a 3x3 convolution of O^T, with the riding bias as one of an all-ones map."""
        kernel = _kernel(spread.weight)
        assert spread.bias is not None
        ones = torch.ones_like(context[:1, :1])
        bias = F.conv2d(ones, _kernel(spread.bias[:, None, None, None]), padding=1)
        return F.conv2d(context, kernel, padding=1) + bias

    def _from_anchors(
        self, weights: Tensor, values: Tensor, branch: Attention, spread: nn.Conv2d, high: Tensor
    ) -> Tensor:
        """The part of AFNB: nine products of a C x S matrix with the shifted attention map, without copying the map.

        The map is padded and flattened, so that every shift is a window of it; the two columns of padding at the end
        of each row are computed along and cropped.
        """
        height, width = high.shape[-2:]
        matrix = torch.einsum("oe,bes->bos", spread.weight.flatten(1), values)
        assert spread.bias is not None
        bias = spread.bias[:, None].expand(matrix.shape[0], -1, 1)
        attention = weights.transpose(1, 2)  # [B, S, N]
        if branch.normalisation == "softmax":
            matrix = matrix + bias
        else:
            matrix = torch.cat([matrix, bias], dim=2)
            attention = torch.cat([attention, torch.ones_like(attention[:, :1])], dim=1)
        padded = F.pad(attention.reshape(*attention.shape[:2], height, width), (1, 1, 1, 2)).flatten(2)
        length = height * (width + 2)
        parts = matrix.unflatten(1, (9, -1))
        total: Tensor | None = None
        for offset in range(9):
            start = offset // 3 * (width + 2) + offset % 3
            window = padded[:, :, start : start + length]
            part = parts[:, offset]
            total = part @ window if total is None else torch.baddbmm(total, part, window)
        assert total is not None
        return total.unflatten(2, (height, width + 2))[..., :width]


def _kernel(spread: Tensor) -> Tensor:
    """`[9 C, E, 1, 1]` as a 3x3 convolution kernel `[C, E, 3, 3]`."""
    return spread.flatten(1).unflatten(0, (3, 3, -1)).permute(2, 3, 0, 1).contiguous()


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # it was made with one
    return conv.bias


def fold_norm(module: ConvNormAct) -> None:
    if isinstance(module.norm, nn.BatchNorm2d):
        module.conv = fused(module.conv, module.norm)
        module.norm = nn.Identity()


def fused(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution with the norm's scale and shift, computed in float64."""
    return fuse_conv_bn_eval(copy.deepcopy(conv).double(), copy.deepcopy(norm).double()).to(conv.weight.dtype)


def fold_out(block: AttendingBlock) -> None:
    """W_o composed with the norm behind it, or with its half of the output convolution, which keeps the other half."""
    branches = [branch for branch in block.branches if isinstance(branch, Attention)]
    if isinstance(block.context_norm, nn.BatchNorm2d) and len(branches) == 1:
        branches[0].out = fused(branches[0].out, block.context_norm)
        block.context_norm = nn.Identity()
    if block.fuse is None:
        return
    conv = block.fuse.conv
    context = branches[0].out.out_channels
    left, right = conv.weight[:, :context].double().flatten(1), conv.weight[:, context:]
    for branch in branches:
        out = nn.Conv2d(branch.out.in_channels, conv.out_channels, 1).to(conv.weight)
        out.weight.copy_((left @ branch.out.weight.double().flatten(1))[:, :, None, None])
        bias = branch.out.bias
        _bias(out).copy_(left @ bias.double() if bias is not None else torch.zeros_like(left[:, 0]))
        branch.out = out
    rest = nn.Conv2d(right.shape[1], conv.out_channels, 1, bias=conv.bias is not None).to(conv.weight)
    rest.weight.copy_(right)
    if conv.bias is not None:
        _bias(rest).copy_(conv.bias)
    block.fuse.conv = rest
