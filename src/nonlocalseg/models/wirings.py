"""Every option of a model, and the four wirings: the details in which the paper and its implementations differ."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Details:
    """Every option of a model, at the default wiring. `wiring=` presets the first group; keywords override any of them."""

    # Where the paper, the official codes and mmsegmentation differ.
    align_corners: bool = False
    embedding: Literal["conv", "conv_norm_act"] = "conv_norm_act"  # of query and key
    embedding_bias: bool = True
    share_key_query: bool = True  # NB, APNB
    share_key_value: bool = False  # FNB, AFNB
    scaled: bool = True  # logits times key_channels^-1/2
    output: Literal["cat_conv", "cat", "residual"] = "cat_conv"
    fuse_bias: bool = True
    block_dropout: float = 0.05
    fusion_dropout: float = 0.0
    classifier_dropout: float = 0.0  # before ANN's classifier
    dropout: float = 0.1  # before the classifier of the FCN and GALD heads
    between: bool = True  # the 3x3 convolution between fusion and context
    conv_bias: bool = True  # of the 3x3 convolutions of the FCN and ANN heads
    convs: int = 1  # 3x3 convolutions of the FCN head
    combine: bool = False  # and one over cat(stage 5, result)
    context_norm: bool = False
    auxiliary_channels: int = 512
    auxiliary_bias: bool = True
    auxiliary_dropout: float = 0.05
    max_pool_ceil: bool = False
    psp_act: bool = True
    psp_map_first: bool = True
    aggregate_channels: int = 256  # of ASPP's branches
    official_gald: bool = False  # the public code's CGNL, LDv1 and downsampling
    mask_residuals: int = 1
    dilate_first: bool = False  # stages 4 and 5 dilate their first block too
    dilate_second: bool = (
        True  # both convolutions of ResNet-18's and -34's blocks; mmsegmentation dilates the first only
    )
    # What the papers vary.
    output_stride: int | None = None
    multi_grid: tuple[int, ...] | None = None
    backbone_options: dict[str, Any] | None = None  # further keywords of timm.create_model
    auxiliary: bool = True
    channels: int = 512
    key_channels: int = 256
    value_channels: int = 256
    normalisation: Literal["softmax", "rescale", "none"] = "softmax"
    sampling: str = "pyramid_average"
    anchor_sizes: tuple[int, ...] | None = None
    fuse: tuple[int, ...] = (4,)
    aggregate: Literal["none", "psp", "aspp", "nonlocal", "cgnl", "apnb"] = "cgnl"
    distribute: Literal["none", "ldv1", "ldv2"] = "ldv1"
    arrangement: Literal["gald", "ldga", "parallel"] = "gald"
    aggregate_stride: Literal[1, 2] = 2
    psp_bins: tuple[int, ...] = (1, 2, 3, 6)
    aspp_rates: tuple[int, ...] = (12, 24, 36)  # at the full resolution of stage 5; halved with aggregate_stride 2
    cgnl_groups: int = 8
    mask_downsample: Literal["depthwise", "bilinear", "average"] = "depthwise"
    distribute_kernel_size: int = 5
    distribute_dilation: int = 6
    distribute_query: Literal["both", "global"] = "both"
    distribute_key: Literal["both", "global"] = "both"
    stage_heads: bool = False  # classifiers after every step of a GALD head, to look at (GALD, Fig. 8)


WIRINGS: dict[str, dict[str, Any]] = {
    # ANN's official column of details with align_corners=False, and GALD as the paper states it.
    "default": {},
    # MendelXu/ANN and lxtGH/GALD-DGCNet.
    "official": {
        "align_corners": True,
        "max_pool_ceil": True,
        "psp_act": False,
        "psp_map_first": False,
        "official_gald": True,
        "mask_residuals": 2,
    },
    # mmsegmentation 1.2.
    "mmseg": {
        "embedding_bias": False,
        "fuse_bias": False,
        "block_dropout": 0.0,
        "fusion_dropout": 0.1,
        "classifier_dropout": 0.1,
        "conv_bias": False,
        "convs": 2,
        "combine": True,
        "auxiliary_channels": 256,
        "auxiliary_bias": False,
        "auxiliary_dropout": 0.1,
        "aggregate_channels": 512,
    },
    # The equations alone: bare 1x1 embeddings, no scale, no convolution behind the concatenation.
    "paper": {
        "embedding": "conv",
        "share_key_query": False,
        "share_key_value": True,
        "scaled": False,
        "output": "cat",
        "block_dropout": 0.0,
        "between": False,
        "dropout": 0.0,
    },
}

# What a wiring means for one model beyond that.
MODEL_WIRINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("mmseg", "nonlocal"): {
        "output": "residual",
        "context_norm": True,
        "embedding": "conv",
        "embedding_bias": True,
        "share_key_query": False,
    },
}


class Reader:
    """`Details` that remember which fields were read: only those are saved, and an option nobody reads is refused."""

    def __init__(self, details: Details) -> None:
        self._details = details
        self.used: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._details, name)
        self.used[name] = value
        return value


def known(what: str, name: str, names: Any) -> str:
    """`name`, if it is among `names`; else a `ValueError` that names the nearest."""
    if name in names:
        return name
    close = difflib.get_close_matches(str(name), list(names), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
    raise ValueError(f"unknown {what} {name!r}: {hint}")
