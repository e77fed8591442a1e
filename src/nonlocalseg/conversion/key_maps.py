"""Which key of mmsegmentation and of the official ANN and GALD is which of ours: what `checkpoints.py` reads.

Tables map module paths of the source to ours; the parameter names below a path (weight, bias, running_mean, ...) agree.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = dict[str, str]


def conv_norm(source: str, ours: str, conv: str, norm: str) -> Table:
    """A convolution and its norm: `source` + `conv` or `norm` in the other project, `.conv` and `.norm` in ours."""
    return {source + conv: f"{ours}.conv", source + norm: f"{ours}.norm"}


def modules(pairs: Mapping[str, str], conv: str, norm: str) -> Table:
    return {k: v for source, ours in pairs.items() for k, v in conv_norm(source, ours, conv, norm).items()}


LAYERS: Table = {f"layer{n}": f"backbone.body.layer{n}" for n in (1, 2, 3, 4)}
DEEP_STEM: Table = {f"conv1.{n}": f"backbone.body.conv1.{n}" for n in (0, 1, 3, 4, 6)} | {"bn1": "backbone.body.bn1"}
FLAT_STEM: Table = {
    "conv1": "backbone.body.conv1.0",
    "bn1": "backbone.body.conv1.1",
    "conv2": "backbone.body.conv1.3",
    "bn2": "backbone.body.conv1.4",
    "conv3": "backbone.body.conv1.6",
    "bn3": "backbone.body.bn1",
}


def below(prefix: str, table: Table) -> Table:
    return {f"{prefix}.{source}": ours for source, ours in table.items()}


# --- mmsegmentation: ConvModule keeps `conv` and `bn` -------------------------------------------------------------

MMSEG_SHARED: Table = {
    **below("backbone", LAYERS),
    **{f"backbone.stem.{n}": f"backbone.body.conv1.{n}" for n in (0, 1, 3, 4, 6)},
    "backbone.stem.7": "backbone.body.bn1",
    "backbone.conv1": "backbone.body.conv1",  # ResNetV1, 7x7 stem
    "backbone.bn1": "backbone.body.bn1",
    **conv_norm("auxiliary_head.convs.0", "auxiliary.convs.0", ".conv", ".bn"),
    "auxiliary_head.conv_seg": "auxiliary.classifier",
    "decode_head.conv_seg": "head.classifier",
}


def mmseg_attention(source: str, ours: str, shared: bool) -> Table:
    return {
        **modules(
            {
                f"{source}.key_project": f"{ours}.{'query' if shared else 'key'}",
                f"{source}.query_project": f"{ours}.query",
            },
            ".conv",
            ".bn",
        ),
        f"{source}.value_project": f"{ours}.value.conv",
        f"{source}.out_project": f"{ours}.out",
    }


MMSEG_ANN: Table = {
    **MMSEG_SHARED,
    **mmseg_attention("decode_head.fusion.stages.0", "head.fusion.branches.0", shared=False),
    **mmseg_attention("decode_head.context.stages.0", "head.context.branches.0", shared=True),
    **modules(
        {
            "decode_head.fusion.bottleneck": "head.fusion.fuse",
            "decode_head.bottleneck": "head.between",
            "decode_head.context.bottleneck": "head.context.fuse",
        },
        ".conv",
        ".bn",
    ),
}
MMSEG_FCN: Table = {
    **MMSEG_SHARED,
    **modules(
        {
            "decode_head.convs.0": "head.convs.0",
            "decode_head.convs.1": "head.convs.1",
            "decode_head.conv_cat": "head.combine",
        },
        ".conv",
        ".bn",
    ),
}
MMSEG_NONLOCAL: Table = {
    **MMSEG_FCN,
    "decode_head.nl_block.theta.conv": "head.context.branches.0.query.conv",
    "decode_head.nl_block.phi.conv": "head.context.branches.0.key.conv",
    "decode_head.nl_block.g.conv": "head.context.branches.0.value.conv",
    "decode_head.nl_block.conv_out.conv": "head.context.branches.0.out",
    "decode_head.nl_block.conv_out.bn": "head.context.context_norm",
}
MMSEG_PSP: Table = {
    **MMSEG_SHARED,
    **modules({f"decode_head.psp_modules.{n}.1": f"head.aggregate.stages.{n}" for n in range(4)}, ".conv", ".bn"),
    **conv_norm("decode_head.bottleneck", "head.aggregate.bottleneck", ".conv", ".bn"),
}
MMSEG_ASPP: Table = {
    **MMSEG_SHARED,
    **modules(
        {
            "decode_head.image_pool.1": "head.aggregate.image",
            **{f"decode_head.aspp_modules.{n}": f"head.aggregate.branches.{n}" for n in range(4)},
            "decode_head.bottleneck": "head.aggregate.bottleneck",
        },
        ".conv",
        ".bn",
    ),
}

# --- official ANN: Sequential(conv, Sequential(norm, relu)) ------------------------------------------------------


def ann_attention(source: str, ours: str, shared: bool) -> Table:
    pairs = {f"{source}.f_key": f"{ours}.{'query' if shared else 'key'}", f"{source}.f_query": f"{ours}.query"}
    return {**modules(pairs, ".0", ".1.0"), f"{source}.f_value": f"{ours}.value.conv", f"{source}.W": f"{ours}.out"}


ANN_OFFICIAL: Table = {
    **below("backbone", LAYERS),
    **below("backbone.prefix", FLAT_STEM),
    **ann_attention("fusion.stages.0", "head.fusion.branches.0", shared=False),
    **ann_attention("context.2.stages.0", "head.context.branches.0", shared=True),
    **conv_norm("fusion.conv_bn_dropout", "head.fusion.fuse", ".0", ".1"),
    **conv_norm("context", "head.between", ".0", ".1.0"),
    **conv_norm("context.2.conv_bn_dropout", "head.context.fuse", ".0", ".1.0"),
    **conv_norm("dsn", "auxiliary.convs.0", ".0", ".1.0"),
    "dsn.3": "auxiliary.classifier",
    "cls": "head.classifier",
}

# --- official GALD: Sequential(conv, norm, ...) -------------------------------------------------------------------

GALD_SHARED: Table = {
    **LAYERS,
    **conv_norm("dsn", "auxiliary.convs.0", ".0", ".1"),
    "dsn.4": "auxiliary.classifier",
}
GALD_OFFICIAL: Table = {
    **GALD_SHARED,
    **DEEP_STEM,
    **modules(
        {
            "head.conva": "head.reduce",
            "head.convb": "head.refine",
            "head.bottleneck": "head.combine",
            "head.a2block.down": "head.aggregate.down",
            **{f"head.a2block.local_attention.dconv{n + 1}": f"head.distribute.down.{n}" for n in range(3)},
        },
        ".0",
        ".1",
    ),
    **{f"head.a2block.long_relation.{name}": f"head.aggregate.block.{name}" for name in ("t", "p", "g", "z")},
    "head.a2block.long_relation.gn": "head.aggregate.block.norm",
    "head.bottleneck.3": "head.classifier",
}
GALD_PSP: Table = {
    **GALD_SHARED,
    **FLAT_STEM,
    **modules({f"head.0.stages.{n}": f"head.aggregate.stages.{n}" for n in range(4)}, ".1", ".2"),
    **conv_norm("head.0.bottleneck", "head.aggregate.bottleneck", ".0", ".1"),
    "head.1": "head.classifier",
}

# A key that tells the head, for every source: (key, model, table).
HEADS: dict[str, tuple[tuple[str, str, Table], ...]] = {
    "mmseg": (
        ("decode_head.fusion.stages.0.key_project.conv.weight", "ann", MMSEG_ANN),
        ("decode_head.nl_block.theta.conv.weight", "nonlocal", MMSEG_NONLOCAL),
        ("decode_head.psp_modules.0.1.conv.weight", "psp", MMSEG_PSP),
        ("decode_head.image_pool.1.conv.weight", "aspp", MMSEG_ASPP),
        ("decode_head.conv_cat.conv.weight", "fcn", MMSEG_FCN),
    ),
    "ann-official": (("fusion.stages.0.f_key.0.weight", "ann", ANN_OFFICIAL),),
    "gald-official": (
        ("head.a2block.long_relation.t.weight", "galdv1", GALD_OFFICIAL),
        ("head.0.bottleneck.0.weight", "psp", GALD_PSP),
    ),
}
