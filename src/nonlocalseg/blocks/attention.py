"""One context W_o O of a map over another, its products in the cheapest exact order (ANN, Eq. 1-4, 8-10, 14-16)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.sampling import Sampling
from nonlocalseg.blocks.tiles import Maxima, Sums, Tile, total

Normalisation = Literal["softmax", "rescale", "none"]


class Attention(nn.Module):
    """The context W_o O of a high map `[B, C_h, H, W]` over a low map `[B, C_l, H', W']` (Eq. 1-4, 8-10, 14-16).

    `key=None` embeds the low map with the query's own convolution (official code, mmsegmentation); `value=None` takes
    the key for the value (Eq. 16). `sampling=None` attends to all positions. `normalisation` is f of Eq. 3: softmax,
    "rescale" (divide by the number of attended positions) or none. `scale` multiplies the logits first.

    `gather` takes from the low map what attention needs of all its positions: a statistic that adds up over tiles.
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

    def weights_and_matrix(self, high: Tensor, low: Tensor, tile: Tile | None = None) -> tuple[Tensor, Tensor]:
        """Weights `[B, N, S]` over the anchors and the matrix M `[B, C_out, S]`, so that the context is M weights^T.

        W_o's bias is in M where the weights of a position sum to one, and left to the caller otherwise (`late_bias`).
        """
        weights, values = self.weights_and_values(high, low, tile)
        matrix = torch.einsum("oe,bes->bos", self.out.weight.flatten(1), values)
        if self.normalisation == "softmax" and self.out.bias is not None:
            matrix = matrix + self.out.bias[:, None]
        return weights, matrix

    def weights_and_values(self, high: Tensor, low: Tensor, tile: Tile | None = None) -> tuple[Tensor, Tensor]:
        """Weights `[B, N, S]` and values `[B, E, S]` of the anchors; `tile` is that of the low map."""
        keys, values, query = self._keys_values(high, low, tile=tile)
        return self._weights(high, query, keys), values

    def weights(self, high: Tensor, low: Tensor, positions: Tensor | None = None) -> Tensor:
        """Normalised weights `[B, N, S]`, or `[B, P, S]` for the flat `positions` `[P]` of the high map."""
        keys, _, query = self._keys_values(high, low, values=False)
        return self._weights(high, query, keys, positions)

    def attended(self, high: Tensor, low: Tensor) -> Attended:
        """`weights` with the cells that they belong to."""
        return Attended.of_regions(lambda positions: self.weights(high, low, positions), high, low, self.sampling)

    @property
    def late_bias(self) -> Tensor | None:
        """W_o's bias where it must be added after the weights: rows of "rescale" and "none" do not sum to one."""
        return None if self.normalisation == "softmax" else self.out.bias

    def all_positions(self, high: Tensor, low: Tensor, tile: Tile | None = None) -> Tensor:
        """O^T `[B, E, H, W]` of Eq. 4 over all positions, without the N x N matrix. `tile` is that of the low map;
        ValueError for a softmax in tiles."""
        if self.normalisation != "softmax":
            count = low.shape[2] * low.shape[3] if tile is None else tile.count
            products = total(tile, lambda: self._products(low, tile)).parts[0]  # [B, E, E]
            out = (products * (self.scale * self._rescaling(count))) @ self.query(high).flatten(2)
        elif tile is not None:
            raise ValueError("NB and FNB relate every position with every other by a softmax")
        else:
            keys, values, query = self._keys_values(high, low)
            query = self.query(high).flatten(2) if query is None else query
            out = full_attention(query, keys, values, self.scale)
        return out.unflatten(2, high.shape[-2:])

    def gather(
        self, low: Tensor, embedded: Tensor | None = None, values: bool = True, tile: Tile | None = None
    ) -> Sums | Maxima:
        """Of the low map, or the core of its tile, what `sampling` takes: the key's map unless its embedding commutes with
        sampling, and the low map for what commutes. `embedded` is the key's map where it is known already."""
        key_map = embedded if embedded is not None or self._sampled_first_for_keys else self._embed_key(low)
        own_values = values and self.value is not None
        sample_first = self.sampling is not None and self.sampling.linear
        value_map = low if self.value is None or not values or sample_first else self.value(low)
        maps = [x for x in (key_map, value_map if own_values or key_map is None else None) if x is not None]
        if self.sampling is None:
            return Sums(*(x.flatten(2) for x in maps))
        return self.sampling.gather(*maps, tile=tile)

    def _products(self, low: Tensor, tile: Tile | None) -> Sums:
        """values keys^T `[B, E', E]`: all that is needed of the positions where there is no softmax."""
        low = low if tile is None else tile.own(low)
        keys = self._embed_key(low).flatten(2)
        values = keys if self.value is None else self.value(low).flatten(2)
        return Sums(values @ keys.transpose(1, 2))

    @property
    def _embed_key(self) -> ConvNormAct:
        return self.query if self.key is None else self.key

    @property
    def _sampled_first_for_keys(self) -> bool:
        return self.sampling is not None and self.sampling.linear and self._embed_key.linear

    def _keys_values(
        self, high: Tensor, low: Tensor, values: bool = True, tile: Tile | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys `[B, E, S]`, values `[B, E', S]`, and the query map `[B, E, N]` where embedding the keys gives it too."""
        both = self.key is None and high is low and not self._sampled_first_for_keys
        embedded = self.query(low) if both else None
        sampled = total(tile, lambda: self.gather(low, embedded, values, tile)).parts
        query = None if embedded is None else embedded.flatten(2)
        keys = _pointwise(self._embed_key, sampled[-1]) if self._sampled_first_for_keys else sampled[0]
        if self.value is None or not values:
            return keys, keys, query
        sample_first = self.sampling is not None and self.sampling.linear
        return keys, _pointwise(self.value, sampled[-1]) if sample_first else sampled[-1], query

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


def full_attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """softmax(scale query^T keys) values^T, `[B, E, N], [B, E, S], [B, D, S] -> [B, D, N]`, without the N x S matrix.

    The framework's fused attention, which wants one width on a CPU: where they differ it is given padded maps in
    training, and in inference the queries are taken in strips, which costs no more than the literal form.
    """
    if keys.shape[1] != values.shape[1] and not query.is_cuda and not torch.is_grad_enabled():
        return _in_strips(query, keys, values, scale)
    width = max(keys.shape[1], values.shape[1])
    query, keys, padded = (
        F.pad(x, (0, 0, 0, width - x.shape[1])).transpose(1, 2).contiguous()[:, None] for x in (query, keys, values)
    )
    out = F.scaled_dot_product_attention(query, keys, padded, scale=scale)
    return out[:, 0, :, : values.shape[1]].transpose(1, 2)


STRIPS = 16  # a number that the size does not change, so that it exports


def _in_strips(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    count = query.shape[2]
    length = count // STRIPS + 2  # never 1, which export would take for a constant
    strips = F.pad(query * scale, (0, length * STRIPS - count)).unflatten(2, (STRIPS, length))
    values = values.transpose(1, 2)
    found = [(strips[:, :, i].transpose(1, 2) @ keys).softmax(2) @ values for i in range(STRIPS)]
    return torch.cat(found, dim=1)[:, :count].transpose(1, 2)


def mix(weights: Tensor, matrix: Tensor) -> Tensor:
    """M weights^T: `[B, N, S], [B, C, S] -> [B, C, N]`, in the layout (channels first or last) of the weights."""
    if weights.stride(2) == 1:
        return (weights @ matrix.transpose(1, 2)).transpose(1, 2)
    return matrix @ weights.transpose(1, 2)
