"""The rules of mmsegmentation's heads that are an FCNHead with a block in it: GCNet, DNLNet and CCNet."""

from __future__ import annotations

from nonlocalseg.conversion.key_maps import modules
from nonlocalseg.conversion.mmseg_heads import CONV_MODULE, CONVS, FCN_FIELDS
from nonlocalseg.conversion.rules import HeadRule, Shapes, Values, computed, same


def concatenates(shapes: Shapes) -> Values:
    return {"concat_input": "conv_cat.conv.weight" in shapes}


_FUSIONS = ("channel_add", "channel_mul")


def _global_context(shapes: Shapes) -> Values:
    fusions = tuple(name for name in _FUSIONS if f"gc_block.{name}_conv.0.weight" in shapes)
    first = f"gc_block.{fusions[0]}_conv.0.weight"
    return {
        **concatenates(shapes),
        "ratio": shapes.width(first) / shapes.width(first, 1),
        "pooling_type": "att" if "gc_block.conv_mask.weight" in shapes else "avg",
        "fusion_types": fusions,
    }


GCNET = HeadRule(
    theirs="GCHead",
    model="gcnet",
    evidence="gc_block.channel_add_conv.0.weight",
    keys={
        **CONVS,
        "gc_block.conv_mask": "context.mask",
        "gc_block.channel_add_conv": "context.add",
        "gc_block.channel_mul_conv": "context.multiply",
    },
    fields=(
        *FCN_FIELDS,
        same("ratio", "ratio", default=0.25),
        same("pooling_type", "pooling_type", default="att"),
        same("fusion_types", "fusion_types", default=("channel_add",)),
    ),
    shapes=_global_context,
    assumed={"dilation": 1},
)


def _inner(given: object, fields: Values) -> Values:
    channels = fields["channels"]
    if not isinstance(given, int) or not isinstance(channels, int) or given < 1:
        raise ValueError("expected a whole number")
    return {"key_channels": max(1, channels // given)}


def _inner_back(options: Values) -> object:
    channels, keys = options["channels"], options["key_channels"]
    if not isinstance(channels, int) or not isinstance(keys, int) or channels % keys:
        raise ValueError(f"it has a whole part of the {channels} channels for keys, not key_channels={keys}")
    return channels // keys


_MODES: dict[object, str] = {"embedded_gaussian": "softmax", "dot_product": "rescale"}


def _mode(given: object, fields: Values) -> Values:
    if given not in _MODES:
        raise ValueError(f"only {' and '.join(map(str, _MODES))} can be converted")
    soft = {"scaled": bool(fields["use_scale"]), "temperature": fields["temperature"]}
    return {"normalisation": _MODES[given], **(soft if given == "embedded_gaussian" else {})}


DNLNET = HeadRule(
    theirs="DNLHead",
    model="dnl",
    evidence="dnl_block.conv_mask.weight",
    keys={
        **CONVS,
        **modules({"dnl_block.conv_out": "context.out"}, *CONV_MODULE),
        "dnl_block.theta.conv": "context.query",
        "dnl_block.phi.conv": "context.key",
        "dnl_block.g.conv": "context.value",
        "dnl_block.conv_mask": "context.mask",
    },
    fields=(
        *FCN_FIELDS,
        computed("reduction", _inner, _inner_back, 2),
        computed(
            "mode",
            _mode,
            lambda options: next(theirs for theirs, ours in _MODES.items() if ours == options["normalisation"]),
            "embedded_gaussian",
        ),
        computed("use_scale", lambda given, _: {}, lambda options: options["scaled"], True),
        computed("temperature", lambda given, _: {}, lambda options: options["temperature"], 0.05),
    ),
    shapes=lambda s: {
        **concatenates(s),
        "reduction": s.width("dnl_block.g.conv.weight", 1) // max(1, s.width("dnl_block.g.conv.weight")),
    },
    assumed={"mode": "embedded_gaussian", "use_scale": True, "temperature": 0.05, "dilation": 1},
)


def _recurrence_back(options: Values) -> object:
    if options["key_reduction"] != 8:
        raise ValueError(
            f"its queries and keys have an eighth of the channels, not key_reduction={options['key_reduction']}"
        )
    return options["recurrence"]


CCNET = HeadRule(
    theirs="CCHead",
    model="ccnet",
    evidence="cca.query_conv.weight",
    keys={
        **CONVS,
        **{f"cca.{name}_conv": f"context.{name}" for name in ("query", "key", "value")},
        "cca.gamma": "context.gamma",
    },
    fields=(*FCN_FIELDS, computed("recurrence", lambda given, _: {"recurrence": given}, _recurrence_back, 2)),
    shapes=concatenates,
    assumed={"recurrence": 2, "dilation": 1},
)

RULES: tuple[HeadRule, ...] = (GCNET, DNLNET, CCNET)
