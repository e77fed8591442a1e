"""The compared heads of pyramids and contexts: what `compared_heads.COMPARED` says of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LEVELS = {"in_index": (0, 1, 2, 3)}
_COARSE = {"num_convs": 1, "concat_input": False}

# Name -> fields of `Compared`.
PYRAMIDS: dict[str, Mapping[str, Any]] = {
    "deeplabv3plus": {
        "theirs": "DepthwiseSeparableASPPHead",
        "published": (
            {"channels": 512, "dilations": (1, 12, 24, 36), "c1_channels": 48, "c1_in_channels": 256},
            {},
        ),
        "small": (
            (
                {"channels": 8, "dilations": (1, 2, 3, 4), "c1_channels": 5, "c1_in_channels": 4},
                {"channels": 8, "aspp_rates": (2, 3, 4), "low_channels": 5},
            ),
        ),
        "stages": (2, 5),
        "larger": (2, 1),
    },
    "upernet": {
        "theirs": "UPerHead",
        "published": ({"channels": 512, **_LEVELS}, {}),
        "small": (
            ({"channels": 8, **_LEVELS}, {"channels": 8}),
            ({"channels": 8, "pool_scales": (1, 4), **_LEVELS}, {"channels": 8, "psp_bins": (1, 4)}),
        ),
        "stages": (2, 3, 4, 5),
        "larger": (8, 4, 2, 1),
        "smallest": (2, 3),
    },
    "apc": {
        "theirs": "APCHead",
        "published": ({"channels": 512}, {}),
        "small": (
            ({"channels": 8}, {"channels": 8}),
            2 * ({"channels": 8, "pool_scales": (2, 5), "fusion": False},),
        ),
    },
    "dm": {
        "theirs": "DMHead",
        "published": ({"channels": 512}, {}),
        "small": (
            ({"channels": 8}, {"channels": 8}),
            2 * ({"channels": 8, "filter_sizes": (2, 3, 4), "fusion": True},),
        ),
    },
    "ocr": {
        "theirs": "OCRHead",
        "published": ({"channels": 512, "ocr_channels": 256, "coarse": {"channels": 256, **_COARSE}}, {}),
        "small": (
            (
                {"channels": 8, "ocr_channels": 4, "coarse": {"channels": 6, **_COARSE}},
                {"channels": 8, "key_channels": 4, "coarse_channels": 6},
            ),
        ),
        "stages": (4, 5),
    },
}
