"""DNL, the disentangled non-local block: whitened pairs, and one context for all positions (Yin et al., ECCV 2020)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.attention import full_attention
from nonlocalseg.blocks.basic import ConvNormAct


class DisentangledNonLocal(nn.Module):
    """x + BN(W_o(pairwise + unary)): `[B, C, H, W]` to the same (Eq. 12).

    pairwise is NB with query and key whitened, (q_i - mean q) . (k_j - mean k) divided by `temperature`, and by E^1/2 if
    `scaled`; unary is sum_j softmax_j(m(x_j)) g(x_j), the same for every position. `normalisation="rescale"` divides
    the products by the number of positions instead of taking a softmax, without scale and temperature. E is
    `key_channels`. No N x N matrix: fused attention, or an E x E one.
    """

    def __init__(
        self,
        channels: int,
        key_channels: int,
        normalisation: Literal["softmax", "rescale"] = "softmax",
        scaled: bool = True,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.value = nn.Conv2d(channels, key_channels, 1)
        self.mask = nn.Conv2d(channels, 1, 1)
        self.out = ConvNormAct(key_channels, channels, act=False)
        assert isinstance(self.out.norm, nn.BatchNorm2d)
        nn.init.zeros_(self.out.norm.weight)
        self.normalisation: Literal["softmax", "rescale"] = normalisation
        self.scale = (key_channels**-0.5 if scaled else 1.0) / temperature

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = *self._pairs(x), self.value(x).flatten(2)
        if self.normalisation == "softmax":
            pairwise = full_attention(query, key, value, self.scale)
        else:
            pairwise = (value @ key.transpose(1, 2) / key.shape[2]) @ query
        unary = value @ self.mask(x).flatten(2).softmax(2).transpose(1, 2)  # [B, E, 1]
        return x + self.out((pairwise + unary).unflatten(2, x.shape[-2:]))

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self.query(x).flatten(2), self.key(x).flatten(2)
        return query - query.mean(2, keepdim=True), key - key.mean(2, keepdim=True)

    def attended(self, x: Tensor) -> Attended:
        """The pairwise weights of all positions."""

        def weights(positions: Tensor | None) -> Tensor:
            query, key = self._pairs(x)
            query = query if positions is None else query.index_select(2, positions)
            products = query.transpose(1, 2) @ key
            if self.normalisation == "rescale":
                return products / key.shape[2]
            return (products * self.scale).softmax(2)

        return Attended.of_regions(weights, x, x, None)
