"""The options of non-local blocks that heads share, and the blocks made from them (ANN, section 3; Table 7)."""

from __future__ import annotations

from typing import Literal

from nonlocalseg.blocks.attention import Normalisation
from nonlocalseg.blocks.non_local import AFNB, APNB, FusionNonLocal, NonLocal, Output
from nonlocalseg.blocks.sampling import AverageSampling, MaxSampling, RandomSampling, Sampling
from nonlocalseg.values import Count, NotNegative, value

SamplingName = Literal["pyramid_average", "pyramid_max", "pyramid_random", "average", "max", "random"]
SAMPLINGS: dict[SamplingName, type[Sampling]] = {
    "pyramid_average": AverageSampling,
    "pyramid_max": MaxSampling,
    "pyramid_random": RandomSampling,
    "average": AverageSampling,
    "max": MaxSampling,
    "random": RandomSampling,
}


@value
class AttentionOptions:
    """Options of every block that attends."""

    key_channels: Count = 256
    "Channels of queries and keys."
    value_channels: Count = 256
    "Channels of values."
    normalisation: Normalisation = "softmax"
    "f of ANN's Eq. 3: softmax, rescale (division by the number of attended positions) or none."
    embedding: Literal["conv", "conv_norm_act"] = "conv_norm_act"
    "Query and key as a bare 1x1 convolution (the paper), or with batch norm and ReLU (every implementation)."
    embedding_bias: bool = True
    "The convolutions of query and key have a bias."
    scaled: bool = True
    "Logits are multiplied by key_channels^-1/2."
    block_dropout: NotNegative = 0.05
    "Dropout behind a block's output convolution."


@value
class JoinOptions:
    """How a context is joined to its map."""

    output: Output = "cat_conv"
    "cat (ANN, Eq. 11), cat_conv with a 1x1 convolution behind it, or residual."
    fuse_bias: bool = True
    "The 1x1 convolution behind the concatenation has a bias."

    def idle_join(self) -> set[str]:
        return set() if self.output == "cat_conv" else {"fuse_bias"}


@value
class SharedKeyOptions:
    """Options of blocks in which a map attends to itself."""

    share_key_query: bool = True
    "NB and APNB embed key and query with one convolution."


@value
class SamplingOptions:
    """How anchors are sampled (ANN, Table 7)."""

    sampling: SamplingName = "pyramid_average"
    "How anchors are taken from a map."
    anchor_sizes: tuple[Count, ...] | None = None
    "n for n x n anchors, several for a pyramid; by default 1 3 6 8, or 15 without a pyramid."

    def __post_init__(self) -> None:
        if not self.sampling.startswith("pyramid_") and self.anchor_sizes and len(self.anchor_sizes) != 1:
            raise ValueError(
                f"anchor_sizes: {self.sampling} sampling takes one size, e.g. (15,), not {self.anchor_sizes}"
            )

    def make_sampling(self) -> Sampling:
        usual = (1, 3, 6, 8) if self.sampling.startswith("pyramid_") else (15,)
        return SAMPLINGS[self.sampling](self.anchor_sizes or usual)


def non_local(
    options: AttentionOptions,
    channels: int,
    output: Output,
    fuse_bias: bool = True,
    share: bool = True,
    sampling: SamplingOptions | None = None,
    context_norm: bool = False,
) -> NonLocal:
    """NB, or APNB where anchors are sampled, on a map of `channels`."""
    details = {**_details(options), "output": output, "fuse_bias": fuse_bias, "share": share}
    if sampling is not None:
        return APNB(channels, sampling.make_sampling(), **details)
    return NonLocal(channels, **details, context_norm=context_norm)


def fusion_non_local(
    options: AttentionOptions,
    high: int,
    lows: tuple[int, ...],
    join: JoinOptions,
    share_value: bool,
    sampling: SamplingOptions | None = None,
) -> FusionNonLocal:
    """FNB, or AFNB where anchors are sampled, of a map of `high` channels over maps of `lows`."""
    details = {**_details(options), "output": join.output, "fuse_bias": join.fuse_bias, "share_value": share_value}
    if sampling is not None:
        return AFNB(high, lows, sampling.make_sampling(), **details)
    return FusionNonLocal(high, lows, **details)


def _details(options: AttentionOptions) -> dict:
    return {
        "key_channels": options.key_channels,
        "value_channels": options.value_channels,
        "normalisation": options.normalisation,
        "embedding": options.embedding,
        "bias": options.embedding_bias,
        "scaled": options.scaled,
        "dropout": options.block_dropout,
    }
