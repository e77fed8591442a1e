"""The rules of mmsegmentation's ANN, FCN, NL, PSP and ASPP heads."""

from __future__ import annotations

from nonlocalseg.conversion.key_maps import Table, modules
from nonlocalseg.conversion.rules import HeadRule, Shapes, Values, computed, fixed, same, tupled, usual

CONV_MODULE = (".conv", ".bn")
"""How mmcv's ConvModule names its convolution and its norm, for `modules`."""


def mmseg_attention(source: str, ours: str, shared: bool) -> Table:
    """mmsegmentation's SelfAttentionBlock as our branch of an attending block."""
    projections = {
        f"{source}.key_project": f"{ours}.{'query' if shared else 'key'}",
        f"{source}.query_project": f"{ours}.query",
    }
    return {
        **modules(projections, *CONV_MODULE),
        f"{source}.value_project": f"{ours}.value.conv",
        f"{source}.out_project": f"{ours}.out",
    }


# --- ANNHead ------------------------------------------------------------------------------------------------------


def _fused(given: object, _: Values) -> Values:
    stages = tupled(given)
    if not isinstance(stages, tuple) or len(stages) != 2 or stages[1] not in (3, -1) or stages[0] not in (0, 1, 2):
        raise ValueError("only a lower feature and the last can be fused")
    return {"fuse": (stages[0] + 2,)}


def _fused_back(options: Values) -> object:
    fuse = options["fuse"]
    if not isinstance(fuse, tuple) or len(fuse) != 1:
        raise ValueError(f"it fuses one stage, not fuse={fuse}")
    return (fuse[0] - 2, 3)


def _pyramid_back(options: Values) -> object:
    if options["sampling"] != "pyramid_average":
        raise ValueError(f"it has no sampling={options['sampling']}")
    return options["anchor_sizes"] or (1, 3, 6, 8)


ANN = HeadRule(
    theirs="ANNHead",
    model="ann",
    evidence="fusion.stages.0.key_project.conv.weight",
    keys={
        **mmseg_attention("fusion.stages.0", "fusion.branches.0", shared=False),
        **mmseg_attention("context.stages.0", "context.branches.0", shared=True),
        **modules(
            {"fusion.bottleneck": "fusion.fuse", "bottleneck": "between", "context.bottleneck": "context.fuse"},
            *CONV_MODULE,
        ),
    },
    fields=(
        same("channels", "channels"),
        same("dropout_ratio", "fusion_dropout", "classifier_dropout", default=0.1),
        same("project_channels", "key_channels", "value_channels"),
        fixed("query_scales", (1,), why="queries at a lower resolution are not known here"),
        computed("key_pool_scales", lambda given, _: {"anchor_sizes": tupled(given)}, _pyramid_back, (1, 3, 6, 8)),
        computed("in_index", _fused, _fused_back),
    ),
    stages=(4, 5),
    shapes=lambda s: {"project_channels": s.width("context.stages.0.key_project.conv.weight"), "in_index": (2, 3)},
    assumed={"key_pool_scales": (1, 3, 6, 8)},
    means={"anchor_sizes": (1, 3, 6, 8)},
)

# --- FCNHead and NLHead, which is an FCNHead with a block ---------------------------------------------------------

CONVS: Table = modules({"convs.#": "convs.#", "conv_cat": "combine"}, *CONV_MODULE)


def _convs(shapes: Shapes) -> Values:
    return {"num_convs": shapes.count("convs."), "concat_input": "conv_cat.conv.weight" in shapes}


FCN_FIELDS = (
    *usual(),
    fixed("kernel_size", 3, why="only 3x3 convolutions can be converted"),
    same("concat_input", "combine", default=True),
    same("dilation", "dilation", default=1),
)
FCN = HeadRule(
    theirs="FCNHead",
    model="fcn",
    evidence="convs.0.conv.weight",
    keys=CONVS,
    fields=(*FCN_FIELDS, same("num_convs", "convs", default=2)),
    shapes=_convs,
    assumed={"dilation": 1},
)


def _inner(given: object, fields: Values) -> Values:
    channels = fields["channels"]
    if not isinstance(given, int) or not isinstance(channels, int) or given < 1:
        raise ValueError("expected a whole number")
    return {"key_channels": channels // given, "value_channels": channels // given}


def _inner_back(options: Values) -> object:
    channels, keys, values = options["channels"], options["key_channels"], options["value_channels"]
    if not isinstance(channels, int) or not isinstance(keys, int) or keys != values or channels % keys:
        raise ValueError(f"its keys and values have a whole part of the {channels} channels, not {keys} and {values}")
    return channels // keys


_MODES: dict[object, object] = {"embedded_gaussian": "softmax", "dot_product": "rescale"}


def _mode(given: object, fields: Values) -> Values:
    if given not in _MODES:
        raise ValueError(f"only {' and '.join(map(str, _MODES))} can be converted")
    return {"normalisation": _MODES[given], "scaled": given == "embedded_gaussian" and bool(fields["use_scale"])}


def _mode_back(options: Values) -> object:
    modes = {ours: theirs for theirs, ours in _MODES.items()}
    if options["normalisation"] not in modes:
        raise ValueError(f"it has no normalisation={options['normalisation']}")
    return modes[options["normalisation"]]


NON_LOCAL = HeadRule(
    theirs="NLHead",
    model="nonlocal",
    evidence="nl_block.theta.conv.weight",
    keys={
        **CONVS,
        "nl_block.theta.conv": "context.branches.0.query.conv",
        "nl_block.phi.conv": "context.branches.0.key.conv",
        "nl_block.g.conv": "context.branches.0.value.conv",
        "nl_block.conv_out.conv": "context.branches.0.out",
        "nl_block.conv_out.bn": "context.context_norm",
    },
    fields=(
        *FCN_FIELDS,
        computed("reduction", _inner, _inner_back, 2),
        computed("mode", _mode, _mode_back, "embedded_gaussian"),
        computed("use_scale", lambda given, _: {}, lambda options: options["scaled"], True),
    ),
    shapes=lambda s: {
        "concat_input": "conv_cat.conv.weight" in s,
        "reduction": s.width("nl_block.g.conv.weight", 1) // max(1, s.width("nl_block.g.conv.weight")),
    },
    assumed={"mode": "embedded_gaussian", "use_scale": True, "dilation": 1},
)

# --- PSPHead and ASPPHead -----------------------------------------------------------------------------------------

PSP = HeadRule(
    theirs="PSPHead",
    model="psp",
    evidence="psp_modules.0.1.conv.weight",
    keys=modules(
        {"psp_modules.#.1": "aggregate.stages.#", "bottleneck": "aggregate.bottleneck"},
        *CONV_MODULE,
    ),
    fields=(*usual(), same("pool_scales", "psp_bins", default=(1, 2, 3, 6))),
    assumed={"pool_scales": (1, 2, 3, 6)},
)


def aspp_rates(given: object, _: Values) -> Values:
    rates = tupled(given)
    if not isinstance(rates, tuple) or rates[:1] != (1,) or any(not isinstance(n, int) or n < 2 for n in rates[1:]):
        raise ValueError("only a 1 and larger dilations behind it can be converted")
    return {"aspp_rates": rates[1:]}


def aspp_rates_back(options: Values) -> object:
    rates = options["aspp_rates"]
    assert isinstance(rates, tuple)
    return (1, *rates)


ASPP = HeadRule(
    theirs="ASPPHead",
    model="aspp",
    evidence="image_pool.1.conv.weight",
    keys=modules(
        {
            "image_pool.1": "aggregate.image",
            "aspp_modules.#": "aggregate.branches.#",
            "bottleneck": "aggregate.bottleneck",
        },
        *CONV_MODULE,
    ),
    fields=(
        same("channels", "channels", "aggregate_channels"),
        same("dropout_ratio", "dropout", default=0.1),
        computed("dilations", aspp_rates, aspp_rates_back, (1, 6, 12, 18)),
    ),
    assumed={"dilations": (1, 12, 24, 36)},
)

RULES: tuple[HeadRule, ...] = (ANN, NON_LOCAL, PSP, ASPP, FCN)
