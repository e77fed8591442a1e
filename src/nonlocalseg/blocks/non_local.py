"""Non-local blocks: NB and FNB over all positions, APNB and AFNB over sampled anchors, and common fusion (ANN, section 3, Eq. 1-17).

Every block computes W_o O of a high map attending to a low one and joins it to the high map. The order of the products
is chosen so that neither the value map, nor the context map before the output convolution, nor the concatenation
exists; the results equal the literal equations (`reference.py`) to rounding, in training and in evaluation.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.basic import BatchNorm2d, ConvNormAct, resize
from nonlocalseg.blocks.sampling import Sampling

Normalisation = Literal["softmax", "rescale", "none"]
Output = Literal["cat_conv", "cat", "residual"]


class Attention(nn.Module):
    """The context W_o O of a high map `[B, C_h, H, W]` over a low map `[B, C_l, H', W']` (Eq. 1-4, 8-10, 14-16).

    `key=None` embeds the low map with the query's own convolution (official code, mmsegmentation); `value=None` takes
    the key for the value (Eq. 16). `sampling=None` attends to all positions. `normalisation` is f of Eq. 3: softmax,
    "rescale" (divide by the number of attended positions) or none. `scale` multiplies the logits first.
    """

    def __init__(
        self,
        query: ConvNormAct,
        key: ConvNormAct | None,
        value: ConvNormAct | None,
        out: nn.Conv2d,
        sampling: Sampling | None = None,
        normalisation: Normalisation = "softmax",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if normalisation not in ("softmax", "rescale", "none"):
            raise ValueError(f"normalisation must be softmax, rescale or none, not {normalisation!r}")
        self.query, self.key, self.value, self.out, self.sampling = query, key, value, out, sampling
        self.normalisation, self.scale = normalisation, scale

    def weights_and_matrix(self, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `[B, N, S]` over the anchors and the matrix M `[B, C_out, S]`, so that the context is M weights^T.

        W_o's bias is in M where the weights of a position sum to one, and left to the caller otherwise (`late_bias`).
        """
        keys, values, query = self._keys_values(high, low)
        matrix = torch.einsum("oe,bes->bos", self.out.weight.flatten(1), values)
        if self.normalisation == "softmax" and self.out.bias is not None:
            matrix = matrix + self.out.bias[:, None]
        return self._weights(high, query, keys), matrix

    def weights(self, high: Tensor, low: Tensor, positions: Tensor | None = None) -> Tensor:
        """Normalised weights `[B, N, S]`, or `[B, P, S]` for the flat `positions` `[P]` of the high map."""
        keys, _, query = self._keys_values(high, low, values=False)
        return self._weights(high, query, keys, positions)

    @property
    def late_bias(self) -> Tensor | None:
        """W_o's bias where it must be added after the weights: rows of "rescale" and "none" do not sum to one."""
        return None if self.normalisation == "softmax" else self.out.bias

    def all_positions(self, high: Tensor, low: Tensor) -> Tensor:
        """O^T `[B, E, H, W]` of Eq. 4 over all positions, without the N x N matrix."""
        keys, values, query = self._keys_values(high, low)
        query = self.query(high).flatten(2) if query is None else query
        if self.normalisation == "softmax":
            out = _full_softmax_attention(query, keys, values, self.scale)
        else:
            products = (values @ keys.transpose(1, 2)) * (self.scale * self._rescaling(keys.shape[2]))  # [B, E, E]
            out = products @ query
        return out.unflatten(2, high.shape[-2:])

    def _keys_values(self, high: Tensor, low: Tensor, values: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys `[B, E, S]`, values `[B, E', S]`, and the query map `[B, E, N]` where embedding the keys gave it too."""
        embed_key = self.key if self.key is not None else self.query
        sample_first = self.sampling is not None and self.sampling.linear
        # What is sampled: the key's map unless its embedding commutes with sampling, and the low map for what commutes.
        key_map = None if sample_first and embed_key.linear else embed_key(low)
        query = key_map.flatten(2) if key_map is not None and self.key is None and high is low else None
        own_values = values and self.value is not None
        value_map = self.value(low) if own_values and not sample_first else low  # type: ignore[misc]
        sampled = self._sample(key_map, value_map if own_values or key_map is None else None)
        keys = _pointwise(embed_key, sampled[-1]) if key_map is None else sampled[0]
        if self.value is None or not values:
            return keys, keys, query
        return keys, _pointwise(self.value, sampled[-1]) if sample_first else sampled[-1], query

    def _sample(self, *maps: Tensor | None) -> list[Tensor]:
        present = [x for x in maps if x is not None]
        return [x.flatten(2) for x in present] if self.sampling is None else self.sampling(*present)

    def _weights(self, high: Tensor, query: Tensor | None, keys: Tensor, positions: Tensor | None = None) -> Tensor:
        """f(scale * query^T keys) `[B, N, S]`, laid out like the high map so that no product copies it."""
        source = query
        if source is None:
            channels, width, anchors = high.shape[1], keys.shape[1], keys.shape[2]
            if self.query.linear and channels * anchors < width * (channels + anchors):
                source, keys, offset = high.flatten(2), *self._keys_for_input(keys)
            else:
                source, offset = self.query(high).flatten(2), None
        else:
            offset = None
        if positions is not None:
            source = source.index_select(2, positions)
        if self.scale != 1.0:
            keys = keys * self.scale
            offset = None if offset is None else offset * self.scale
        if source.stride(1) == 1 and source.shape[1] > 1:  # channels last: positions are rows
            logits = source.transpose(1, 2) @ keys
            return self._normalise(logits if offset is None else logits + offset.transpose(1, 2), dim=2)
        logits = keys.transpose(1, 2) @ source
        return self._normalise(logits if offset is None else logits + offset, dim=1).transpose(1, 2)

    def _keys_for_input(self, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """W_q^T keys `[B, C, S]` and b_q^T keys `[B, S, 1]`: the logits from the input itself (paper's form only)."""
        weight, bias = self.query.conv.weight.flatten(1), self.query.conv.bias
        offset = None if bias is None else torch.einsum("e,bes->bs", bias, keys)[:, :, None]
        return torch.einsum("ec,bes->bcs", weight, keys), offset

    def _normalise(self, logits: Tensor, dim: int) -> Tensor:
        if self.normalisation == "softmax":
            return logits.softmax(dim)
        return logits * self._rescaling(logits.shape[dim]) if self.normalisation == "rescale" else logits

    def _rescaling(self, attended: int) -> float:
        return 1.0 / attended if self.normalisation == "rescale" else 1.0


def _pointwise(embed: ConvNormAct, points: Tensor) -> Tensor:
    """A 1x1 convolution on sampled points `[B, C, S] -> [B, E, S]`."""
    out = torch.einsum("ec,bcs->bes", embed.conv.weight.flatten(1), points)
    return out if embed.conv.bias is None else out + embed.conv.bias[:, None]


def _full_softmax_attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """`[B, E, N], [B, E, S], [B, E', S] -> [B, E', N]` by the framework's fused attention, which wants one width."""
    width = max(keys.shape[1], values.shape[1])
    query, keys, padded = (
        F.pad(x, (0, 0, 0, width - x.shape[1])).transpose(1, 2).contiguous()[:, None] for x in (query, keys, values)
    )
    out = F.scaled_dot_product_attention(query, keys, padded, scale=scale)
    return out[:, 0, :, : values.shape[1]].transpose(1, 2)


def mix(weights: Tensor, matrix: Tensor) -> Tensor:
    """M weights^T: `[B, N, S], [B, C, S] -> [B, C, N]`, in the layout (channels first or last) of the weights."""
    if weights.stride(2) == 1:
        return (weights @ matrix.transpose(1, 2)).transpose(1, 2)
    return matrix @ weights.transpose(1, 2)


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

    def _join(self, high: Tensor, lows: tuple[Tensor, ...]) -> Tensor:
        if self.fuse is None:
            context = self.context_norm(self.context(high, *lows))
            return context + high if self.output == "residual" else torch.cat([context, high], dim=1)
        weight = self.fuse.conv.weight
        split = weight.shape[1] - high.shape[1]
        joined = F.conv2d(high, weight[:, split:], self.fuse.conv.bias)
        joined = joined + self._contexts(high, lows, weight[:, :split])
        return self.dropout(self.fuse.finish(joined))

    def context(self, high: Tensor, *lows: Tensor) -> Tensor:
        """The summed contexts W_o O `[B, C_out, H, W]`, before they are joined to the high map (the measure of Table 1)."""
        return self._contexts(high, lows, None)

    def _contexts(self, high: Tensor, lows: tuple[Tensor, ...], project: Tensor | None) -> Tensor:
        """The sum over branches of W_o O, or of `project` W_o O without ever forming W_o O."""
        total: Tensor | None = None
        for branch, low in zip(self._attentions(), lows, strict=True):
            if branch.sampling is None:
                weight, late = branch.out.weight, branch.out.bias
                weight = weight if project is None else (project.flatten(1) @ weight.flatten(1))[:, :, None, None]
                part = F.conv2d(branch.all_positions(high, low), weight)
            else:
                weights, matrix = branch.weights_and_matrix(high, low)
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

    def forward(self, x: Tensor) -> Tensor:
        return self._join(x, (x,))

    def attention(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Weights `[B, N, S]` over the anchors (all positions in NB), or `[B, P, S]` for flat `positions` `[P]`."""
        return self._attentions()[0].weights(x, x, positions)


class APNB(NonLocal):
    """Asymmetric pyramid non-local block (section 3.2, Eq. 8-11): a `NonLocal` whose keys and values are sampled."""

    def __init__(self, in_channels: int, sampling: Sampling, out_channels: int | None = None, **details) -> None:
        super().__init__(in_channels, out_channels, sampling=sampling, **details)


class FusionNonLocal(AttendingBlock):
    """FNB (Eq. 14-17): a high map attends to one or more low maps; with `sampling` AFNB. The contexts are summed.

    `forward(high [B, C_h, H, W], *lows [B, C_l, H', W']) -> [B, C', H, W]`; sizes may differ. `share_value` takes the
    key for the value (Eq. 16); the other options are `NonLocal`'s. No implementation has an activation here.
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

    def forward(self, high: Tensor, *lows: Tensor) -> Tensor:
        return self._join(high, lows)

    def attention(self, high: Tensor, *lows: Tensor, positions: Tensor | None = None) -> tuple[Tensor, ...]:
        """For each low map the weights `[B, N_h, S]` over its anchors, or `[B, P, S]` for flat `positions` `[P]`."""
        pairs = zip(self._attentions(), lows, strict=True)
        return tuple(branch.weights(high, low, positions) for branch, low in pairs)


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

    def forward(self, high: Tensor, *lows: Tensor) -> Tensor:
        for project, low in zip(self.projections, lows, strict=True):
            high = high + resize(project(low), high.shape[-2:], self.align_corners)
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
