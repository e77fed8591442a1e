"""The four wirings: the details in which the paper, the official codes and mmsegmentation differ, by option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nonlocalseg.models.config import Wiring

WIRINGS: dict[Wiring, Mapping[str, Any]] = {
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
        "multi_grid_multiplies": False,
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
MODEL_WIRINGS: dict[tuple[Wiring, str], Mapping[str, Any]] = {
    ("mmseg", "nonlocal"): {
        "output": "residual",
        "context_norm": True,
        "embedding": "conv",
        "embedding_bias": True,
        "share_key_query": False,
    },
    ("mmseg", "psanet"): {"mmseg_details": True},
    ("mmseg", "deeplabv3plus"): {"channels": 512, "aspp_kernel_size": 3},
    # OCRNet's coarse scores take the place of the auxiliary head.
    **{(wiring, "ocr"): {"auxiliary": False} for wiring in WIRINGS},
    ("mmseg", "ocr"): {"auxiliary": False, "coarse_channels": 256, "coarse_dropout": 0.1, "dropout": 0.1},
}


# And for one family of backbones, by how their names begin.
BACKBONE_WIRINGS: dict[tuple[Wiring, str], Mapping[str, Any]] = {
    ("mmseg", "resnet18"): {"dilate_second": False},
    ("mmseg", "resnet34"): {"dilate_second": False},
    **{("mmseg", f"resnet{depth}d"): {"average_dilated": False} for depth in (18, 34, 50, 101, 152)},
    ("mmseg", "mobilenetv2"): {"dilated_blocks": "first"},
}


def wired(wiring: Wiring, model: str, backbone: str) -> Mapping[str, Any]:
    """Every option that `wiring` sets for `model` on `backbone`; a head takes those that it has."""
    found = [
        options for (name, start), options in BACKBONE_WIRINGS.items() if name == wiring and backbone.startswith(start)
    ]
    beside = {name: value for options in found for name, value in options.items()}
    return {**WIRINGS[wiring], **MODEL_WIRINGS.get((wiring, model), {}), **beside}
