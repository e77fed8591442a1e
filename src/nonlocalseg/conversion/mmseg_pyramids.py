"""Which key of mmsegmentation is which of ours, for heads of pyramids: DeepLabv3+ and UPerNet."""

from __future__ import annotations

from nonlocalseg.conversion.key_maps import MMSEG_SHARED, Table, modules


def separable(source: str, ours: str) -> Table:
    return modules(
        {f"{source}.{name}_conv": f"{ours}.{name}" for name in ("depthwise", "pointwise")},
        ".conv",
        ".bn",
    )


MMSEG_DEEPLABV3PLUS: Table = {
    **MMSEG_SHARED,
    **modules(
        {
            "decode_head.image_pool.1": "head.aspp.image",
            "decode_head.aspp_modules.0": "head.aspp.branches.0",
            "decode_head.bottleneck": "head.aspp.bottleneck",
            "decode_head.c1_bottleneck": "head.low",
        },
        ".conv",
        ".bn",
    ),
    **{
        source: ours
        for n in (1, 2, 3)
        for source, ours in separable(f"decode_head.aspp_modules.{n}", f"head.aspp.branches.{n}").items()
    },
    **separable("decode_head.sep_bottleneck.0", "head.decoder.0"),
    **separable("decode_head.sep_bottleneck.1", "head.decoder.1"),
}
MMSEG_UPERNET: Table = {
    **MMSEG_SHARED,
    **modules(
        {
            **{f"decode_head.psp_modules.{n}.1": f"head.psp.stages.{n}" for n in range(4)},
            "decode_head.bottleneck": "head.psp.bottleneck",
            **{f"decode_head.lateral_convs.{n}": f"head.laterals.{n}" for n in range(3)},
            **{f"decode_head.fpn_convs.{n}": f"head.outputs.{n}" for n in range(3)},
            "decode_head.fpn_bottleneck": "head.fuse",
        },
        ".conv",
        ".bn",
    ),
}
MMSEG_APCNET: Table = {
    **MMSEG_SHARED,
    **modules(
        {
            f"decode_head.acm_modules.{n}.{source}": f"head.contexts.{n}.{ours}"
            for n in range(4)
            for source, ours in {
                "pooled_redu_conv": "reduce_cells",
                "input_redu_conv": "reduce",
                "global_info": "info",
                "residual_conv": "residual",
                "fusion_conv": "fusion",
            }.items()
        },
        ".conv",
        ".bn",
    ),
    **{f"decode_head.acm_modules.{n}.gla": f"head.contexts.{n}.affinity" for n in range(4)},
    **modules({"decode_head.bottleneck": "head.bottleneck"}, ".conv", ".bn"),
}
MMSEG_DMNET: Table = {
    **MMSEG_SHARED,
    **modules(
        {
            f"decode_head.dcm_modules.{n}.{source}": f"head.filters.{n}.{ours}"
            for n in range(4)
            for source, ours in {"input_redu_conv": "reduce", "fusion_conv": "fusion"}.items()
        },
        ".conv",
        ".bn",
    ),
    **{f"decode_head.dcm_modules.{n}.filter_gen_conv": f"head.filters.{n}.filters" for n in range(4)},
    **{f"decode_head.dcm_modules.{n}.norm": f"head.filters.{n}.norm" for n in range(4)},
    **modules({"decode_head.bottleneck": "head.bottleneck"}, ".conv", ".bn"),
}
