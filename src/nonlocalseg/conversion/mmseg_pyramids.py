"""The rules of mmsegmentation's heads of pyramids: DeepLabv3+, UPerNet, APCNet and DMNet."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nonlocalseg.conversion.key_maps import Table, modules
from nonlocalseg.conversion.mmseg_heads import CONV_MODULE, aspp_rates, aspp_rates_back
from nonlocalseg.conversion.rules import HeadRule, Values, computed, fixed, same, tupled, usual


def separable(source: str, ours: str) -> Table:
    """mmcv's DepthwiseSeparableConvModule as our `SeparableConv`."""
    return modules({f"{source}.{name}_conv": f"{ours}.{name}" for name in ("depthwise", "pointwise")}, *CONV_MODULE)


def _decoded(given: object, _: Values) -> Values:
    if given == 0:
        raise ValueError("DeepLabv3+ without its decoder is not known here")
    return {}


def _low_channels(options: Values) -> object:
    stages = options["stage_channels"]
    assert isinstance(stages, Mapping)
    if options["low_stage"] != 2:
        raise ValueError(f"its decoder has stage 2, not low_stage={options['low_stage']}")
    return stages[2]


DEEPLABV3PLUS = HeadRule(
    theirs="DepthwiseSeparableASPPHead",
    model="deeplabv3plus",
    evidence="c1_bottleneck.conv.weight",
    keys={
        **modules(
            {
                "image_pool.1": "aspp.image",
                "aspp_modules.0": "aspp.branches.0",
                "bottleneck": "aspp.bottleneck",
                "c1_bottleneck": "low",
            },
            *CONV_MODULE,
        ),
        **separable("aspp_modules.#", "aspp.branches.#"),
        **separable("sep_bottleneck.#", "decoder.#"),
    },
    fields=(
        *usual(),
        computed("dilations", aspp_rates, aspp_rates_back, (1, 6, 12, 18)),
        same("c1_channels", "low_channels"),
        computed("c1_in_channels", _decoded, _low_channels),
    ),
    shapes=lambda s: {
        "c1_channels": s.width("c1_bottleneck.conv.weight"),
        "c1_in_channels": s.width("c1_bottleneck.conv.weight", 1),
    },
    assumed={"dilations": (1, 12, 24, 36)},
)


def _levels(given: object, _: Values) -> Values:
    places = tupled(given)
    if not isinstance(places, tuple) or len(places) < 2 or places[-1] != 3:
        raise ValueError("expected lower features and the last")
    return {"lateral_stages": tuple(place + 2 for place in places[:-1])}


def _levels_back(options: Values) -> object:
    stages = options["lateral_stages"]
    assert isinstance(stages, tuple)
    return (*(stage - 2 for stage in stages), 3)


UPERNET = HeadRule(
    theirs="UPerHead",
    model="upernet",
    evidence="fpn_bottleneck.conv.weight",
    keys=modules(
        {
            "psp_modules.#.1": "psp.stages.#",
            "bottleneck": "psp.bottleneck",
            "lateral_convs.#": "laterals.#",
            "fpn_convs.#": "outputs.#",
            "fpn_bottleneck": "fuse",
        },
        *CONV_MODULE,
    ),
    fields=(
        *usual(),
        same("pool_scales", "psp_bins", default=(1, 2, 3, 6)),
        computed("in_index", _levels, _levels_back),
    ),
    stages=(2, 3, 4, 5),
    assumed={"pool_scales": (1, 2, 3, 6)},
    output_stride=32,
)

APC = HeadRule(
    theirs="APCHead",
    model="apc",
    evidence="acm_modules.0.gla.weight",
    keys={
        **modules(
            {
                f"acm_modules.#.{theirs}": f"contexts.#.{ours}"
                for theirs, ours in {
                    "pooled_redu_conv": "reduce_cells",
                    "input_redu_conv": "reduce",
                    "global_info": "info",
                    "residual_conv": "residual",
                    "fusion_conv": "fusion",
                }.items()
            },
            *CONV_MODULE,
        ),
        "acm_modules.#.gla": "contexts.#.affinity",
        **modules({"bottleneck": "bottleneck"}, *CONV_MODULE),
    },
    fields=(
        *usual(),
        same("pool_scales", "pool_scales", default=(1, 2, 3, 6)),
        same("fusion", "fusion", default=True),
    ),
    shapes=lambda s: {
        "fusion": "acm_modules.0.fusion_conv.conv.weight" in s,
        "pool_scales": tuple(
            math.isqrt(s.width(f"acm_modules.{n}.gla.weight")) for n in range(s.count("acm_modules."))
        ),
    },
)
DM = HeadRule(
    theirs="DMHead",
    model="dm",
    evidence="dcm_modules.0.filter_gen_conv.weight",
    keys={
        **modules(
            {
                "dcm_modules.#.input_redu_conv": "filters.#.reduce",
                "dcm_modules.#.fusion_conv": "filters.#.fusion",
                "bottleneck": "bottleneck",
            },
            *CONV_MODULE,
        ),
        "dcm_modules.#.filter_gen_conv": "filters.#.filters",
        "dcm_modules.#.norm": "filters.#.norm",
    },
    fields=(
        *usual(),
        same("filter_sizes", "filter_sizes", default=(1, 3, 5, 7)),
        same("fusion", "fusion", default=False),
    ),
    shapes=lambda s: {"fusion": "dcm_modules.0.fusion_conv.conv.weight" in s},
    assumed={"filter_sizes": (1, 3, 5, 7)},
)
OCR = HeadRule(
    theirs="OCRHead",
    model="ocr",
    evidence="1.object_context_block.bottleneck.conv.weight",
    keys={
        **modules(
            {
                "0.convs.0": "coarse.convs.0",
                "1.bottleneck": "reduce",
                **{f"1.object_context_block.{part}_project.#": f"attention.{part}.#" for part in ("query", "key")},
                "1.object_context_block.value_project": "attention.value",
                "1.object_context_block.out_project": "attention.out",
                "1.object_context_block.bottleneck": "join",
            },
            *CONV_MODULE,
        ),
        "0.conv_seg": "coarse.classifier",
        "1.conv_seg": "classifier",
    },
    fields=(
        *usual(),
        same("ocr_channels", "key_channels"),
        fixed("scale", 1, why="it cannot run there either"),
    ),
    stages=(5,),
    shapes=lambda s: {"ocr_channels": s.width("1.object_context_block.value_project.conv.weight")},
    coarse=(
        same("channels", "coarse_channels"),
        fixed("num_convs", 1, default=2, why="only one convolution can be converted"),
        fixed("concat_input", False, default=True, why="its input cannot be joined to the result"),
        fixed("kernel_size", 3, why="only 3x3 convolutions can be converted"),
        fixed("dilation", 1, why="its convolution is not dilated"),
        same("dropout_ratio", "coarse_dropout", default=0.1),
    ),
)

RULES: tuple[HeadRule, ...] = (DEEPLABV3PLUS, UPERNET, APC, DM, OCR)
