"""The official ANN (MendelXu/ANN), GALD and DGCNet (lxtGH/GALD-DGCNet): their keys, and their networks as ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nonlocalseg.conversion.described import Described
from nonlocalseg.conversion.key_maps import LAYERS, Table, below, conv_norm, modules, renamed
from nonlocalseg.conversion.rules import Shapes

DEEP_STEM: Table = {"conv1.#": "backbone.body.conv1.#", "bn1": "backbone.body.bn1"}
FLAT_STEM: Table = {
    "conv1": "backbone.body.conv1.0",
    "bn1": "backbone.body.conv1.1",
    "conv2": "backbone.body.conv1.3",
    "bn2": "backbone.body.conv1.4",
    "conv3": "backbone.body.conv1.6",
    "bn3": "backbone.body.bn1",
}

# --- official ANN: Sequential(conv, Sequential(norm, relu)) ------------------------------------------------------


def ann_attention(source: str, ours: str, shared: bool) -> Table:
    pairs = {f"{source}.f_key": f"{ours}.{'query' if shared else 'key'}", f"{source}.f_query": f"{ours}.query"}
    return {**modules(pairs, ".0", ".1.0"), f"{source}.f_value": f"{ours}.value.conv", f"{source}.W": f"{ours}.out"}


ANN_OFFICIAL: Table = {
    **below(LAYERS, "backbone"),
    **below(FLAT_STEM, "backbone.prefix"),
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
    **modules({"head.0.stages.#": "head.aggregate.stages.#"}, ".1", ".2"),
    **conv_norm("head.0.bottleneck", "head.aggregate.bottleneck", ".0", ".1"),
    "head.1": "head.classifier",
}

_GRAPHS = "head.dualgcn"
GALD_DGC: Table = {
    **GALD_SHARED,
    **DEEP_STEM,
    "dsn.3": "auxiliary.classifier",  # its auxiliary head has no ReLU; ours, in further training, does
    **modules(
        {
            "head.conva": "head.reduce",
            "head.convb": "head.refine",
            "head.bottleneck": "head.combine",
            f"{_GRAPHS}.final": "head.graphs.join",
            f"{_GRAPHS}.gcn_local_attention.out": "head.graphs.coordinates.out",
        },
        ".0",
        ".1",
    ),
    "head.bottleneck.3": "head.classifier",
    **{
        f"{_GRAPHS}.local.{2 * n + place}": f"head.graphs.down.{n}.{part}"
        for n in range(3)
        for place, part in enumerate(("conv", "norm"))
    },
    **{
        f"{_GRAPHS}.gcn_local_attention.node_{name[0]}": f"head.graphs.coordinates.{name}"
        for name in ("query", "key", "value")
    },
    **conv_norm(f"{_GRAPHS}.gcn_local_attention", "head.graphs.coordinates.update", ".conv_wg", ".bn_wg"),
    **conv_norm(_GRAPHS, "head.graphs.features.states", ".phi", ".bn_phi"),
    **conv_norm(_GRAPHS, "head.graphs.features.nodes", ".theta", ".bn_theta"),
    **conv_norm(_GRAPHS, "head.graphs.features.adjacency", ".conv_adj", ".bn_adj"),
    **conv_norm(_GRAPHS, "head.graphs.features.update", ".conv_wg", ".bn_wg"),
    **conv_norm(_GRAPHS, "head.graphs.features.out", ".conv3", ".bn3"),
}

# A key that tells the head, for every source: (key, model, table).
OFFICIAL: dict[str, tuple[tuple[str, str, Table], ...]] = {
    "ann-official": (("fusion.stages.0.f_key.0.weight", "ann", ANN_OFFICIAL),),
    "gald-official": (
        ("head.a2block.long_relation.t.weight", "galdv1", GALD_OFFICIAL),
        ("head.0.bottleneck.0.weight", "psp", GALD_PSP),
        (f"{_GRAPHS}.phi.weight", "dgc", GALD_DGC),
    ),
}

# Blue, green, red means on 0-255, no division: in RGB on 0-1 the deviation is 1/255 and the first convolution is turned.
_MEANS = {
    "ann-official": (122.7717, 115.9465, 102.9801),
    "gald-official": (122.67891434, 116.66876762, 104.00698793),
}


def two_dimensional(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, those of DualSeg's one-dimensional convolutions as our 1x1 ones have them."""
    return {key: value[..., None] if value.ndim == 3 else value for key, value in state.items()}


def described(state: Mapping[str, Tensor], source: str) -> Described:
    """The network that a checkpoint of `source` holds, from its keys and shapes; ValueError where it is none."""
    found = next(((model, table) for key, model, table in OFFICIAL[source] if key in state), None)
    if found is None:
        expected = " or ".join(key for key, _, _ in OFFICIAL[source])
        begins = ", ".join(list(state)[:3])
        raise ValueError(f"no known {source} head: expected the key {expected}; the checkpoint begins with {begins}")
    model, table = found
    mapped, _ = renamed(state, table)
    shapes = Shapes(mapped, "")
    red, green, blue = _MEANS[source]
    return Described(
        model,
        _backbone(shapes, source),
        {"auxiliary": "auxiliary.classifier.weight" in shapes, **_options(shapes, model, source)},
        shapes.width("head.classifier.weight") if "head.classifier.weight" in shapes else None,
        (red / 255, green / 255, blue / 255),
        (1 / 255, 1 / 255, 1 / 255),
        True,
        table,
    )


def _options(shapes: Shapes, model: str, source: str) -> dict[str, object]:
    options: dict[str, object] = {}
    if "auxiliary.classifier.weight" in shapes:
        options["auxiliary_channels"] = shapes.width("auxiliary.convs.0.conv.weight")
    if model == "ann":
        options["key_channels"] = shapes.width("head.context.branches.0.query.conv.weight")
        options["value_channels"] = shapes.width("head.context.branches.0.value.conv.weight")
    if model == "galdv1":
        options["key_channels"] = shapes.width("head.aggregate.block.t.weight")
    reduced = {"ann": "head.between", "psp": "head.aggregate.bottleneck"}.get(model, "head.reduce")
    options["channels"] = shapes.width(f"{reduced}.conv.weight")
    if model == "dgc":
        options["feature_ratio"] = options["channels"] // shapes.width("head.graphs.features.nodes.conv.weight")
    if source == "gald-official":
        # Every block of stages 4 and 5 is dilated; GALDNet and DualSeg add a multi-grid of (1, 2, 4), its PSPNet has none.
        options |= {"dilated_blocks": "all"} | ({} if model == "psp" else {"multi_grid": (1, 2, 4)})
    return options


def _backbone(shapes: Shapes, source: str) -> str:
    blocks = [shapes.count(f"backbone.body.layer{n}.") for n in (1, 2, 3, 4)]
    depth = {"3, 4, 6, 3": 50, "3, 4, 23, 3": 101, "3, 8, 36, 3": 152}.get(str(blocks)[1:-1])
    if depth is None:
        raise ValueError(
            f"the {source} backbone has {blocks} blocks in its layers: no known ResNet; is the file whole?"
        )
    return f"resnet{depth}s"
