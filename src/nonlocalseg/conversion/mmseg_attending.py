"""The rules of mmsegmentation's heads that attend or encode: EncNet, GCNet, DANet, DNLNet, CCNet, ISANet, EMANet, PSANet."""

from __future__ import annotations

import math

from nonlocalseg.conversion.key_maps import modules
from nonlocalseg.conversion.mmseg_heads import CONV_MODULE, CONVS, FCN_FIELDS
from nonlocalseg.conversion.rules import HeadRule, Shapes, Values, computed, same, tupled, usual

# --- EncHead ------------------------------------------------------------------------------------------------------


def _lateral_back(options: Values) -> object:
    if options["lateral"] not in ((), (3, 4)):
        raise ValueError(f"it joins stages 3 and 4 or none, not lateral={options['lateral']}")
    return options["lateral"] == (3, 4)


ENCNET = HeadRule(
    theirs="EncHead",
    model="encnet",
    evidence="enc_module.encoding.0.codewords",
    keys={
        **modules(
            {
                "bottleneck": "reduce",
                "lateral_convs.#": "laterals.#",
                "fusion": "fusion",
                "enc_module.encoding_project": "encoding.project",
            },
            *CONV_MODULE,
        ),
        "enc_module.encoding.0": "encoding.codes",
        "enc_module.encoding.1": "encoding.norm",
        "enc_module.fc.0": "encoding.gate",
        "se_layer": "presence",
    },
    fields=(
        *usual(),
        same("num_codes", "num_codes", default=32),
        computed("add_lateral", lambda given, _: {"lateral": (3, 4) if given else ()}, _lateral_back, False),
        computed(
            "use_se_loss",
            lambda given, _: {} if given else {"presence_weight": 0.0},
            lambda options: options["presence_weight"] != 0,
            True,
        ),
    ),
    without_effect=("loss_se_decode",),
    stages=(3, 4, 5),
    shapes=lambda s: {
        "num_codes": s.width("enc_module.encoding.0.codewords"),
        "add_lateral": "fusion.conv.weight" in s,
        "use_se_loss": "se_layer.weight" in s,
    },
)

# --- Blocks between an FCNHead's convolutions ---------------------------------------------------------------------


def _concatenates(shapes: Shapes) -> Values:
    return {"concat_input": "conv_cat.conv.weight" in shapes}


_FUSIONS = ("channel_add", "channel_mul")


def _global_context(shapes: Shapes) -> Values:
    fusions = tuple(name for name in _FUSIONS if f"gc_block.{name}_conv.0.weight" in shapes)
    first = f"gc_block.{fusions[0]}_conv.0.weight"
    return {
        **_concatenates(shapes),
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
        **_concatenates(s),
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
    shapes=_concatenates,
    assumed={"recurrence": 2, "dilation": 1},
)

# --- Heads of their own -------------------------------------------------------------------------------------------

DANET = HeadRule(
    theirs="DAHead",
    model="danet",
    evidence="pam.query_project.weight",
    keys={
        **modules(
            {
                "pam_in_conv": "position_in",
                "pam_out_conv": "position_out",
                "cam_in_conv": "channel_in",
                "cam_out_conv": "channel_out",
            },
            *CONV_MODULE,
        ),
        **{f"pam.{name}_project": f"position.{name}" for name in ("query", "key", "value")},
        "pam.gamma": "position.gamma",
        "cam.gamma": "channel.gamma",
        "pam_conv_seg": "position_classifier",
        "cam_conv_seg": "channel_classifier",
    },
    fields=(*usual(), same("pam_channels", "key_channels")),
    shapes=lambda s: {"pam_channels": s.width("pam.query_project.weight")},
)

ISANET = HeadRule(
    theirs="ISAHead",
    model="isa",
    evidence="global_relation.value_project.weight",
    keys={
        **modules(
            {
                "in_conv": "reduce",
                "out_conv": "combine",
                **{
                    f"{theirs}_relation.{name}_project{number}": f"attention.{ours}.{mine}{number}"
                    for theirs, ours in (("global", "far"), ("local", "near"))
                    for name, mine, number in (("query", "query", ".#"), ("key", "key", ".#"), ("output", "output", ""))
                },
            },
            *CONV_MODULE,
        ),
        "global_relation.value_project": "attention.far.value",
        "local_relation.value_project": "attention.near.value",
    },
    fields=(*usual(), same("isa_channels", "key_channels"), same("down_factor", "down_factor", default=(8, 8))),
    shapes=lambda s: {"isa_channels": s.width("global_relation.key_project.0.conv.weight")},
    assumed={"down_factor": (8, 8)},
)

EMANET = HeadRule(
    theirs="EMAHead",
    model="emanet",
    evidence="ema_module.bases",
    keys={
        **modules(
            {"ema_in_conv": "reduce", "ema_out_conv": "leave", "bottleneck": "refine", "conv_cat": "combine"},
            *CONV_MODULE,
        ),
        "ema_mid_conv.conv": "enter",
        "ema_module": "attention",
    },
    fields=(
        *usual(),
        same("ema_channels", "ema_channels"),
        same("num_bases", "num_bases"),
        same("num_stages", "num_stages"),
        same("concat_input", "combine", default=True),
        same("momentum", "momentum", default=0.1),
    ),
    shapes=lambda s: {
        **_concatenates(s),
        "ema_channels": s.width("ema_in_conv.conv.weight"),
        "num_bases": s.width("ema_module.bases", 2),
    },
    assumed={"num_stages": 3, "momentum": 0.1},
)


def _factor(given: object, fields: Values) -> Values:
    mask_size = tupled(fields["mask_size"])
    if given is None and isinstance(mask_size, tuple):
        return {"normalization_factor": float(math.prod(mask_size))}
    return {"normalization_factor": given}


def _type_back(options: Values) -> object:
    if not options["mmseg_details"]:
        raise ValueError("its details of sizes and borders are those of mmseg_details=True")
    return options["psa_type"]


def _masks(shapes: Shapes) -> Values:
    count = shapes.width("attention.1.weight")
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(
            f"decode_head.attention.1.weight: masks of {count} offsets are not square, and no config is here"
        )
    return {"mask_size": (side, side), "psa_type": "bi-direction" if "reduce_p.conv.weight" in shapes else "collect"}


PSANET = HeadRule(
    theirs="PSAHead",
    model="psanet",
    evidence="attention.1.weight",
    keys={
        **modules(
            {
                "reduce": "reduce.0",
                "reduce_p": "reduce.1",
                "attention.0": "attention.0.reduce",
                "attention_p.0": "attention.1.reduce",
                "proj": "project",
                "bottleneck": "combine",
            },
            *CONV_MODULE,
        ),
        "attention.1": "attention.0.mask",
        "attention_p.1": "attention.1.mask",
    },
    fields=(
        *usual(),
        same("mask_size", "mask_size"),
        computed("psa_type", lambda given, _: {"psa_type": given}, _type_back, "bi-direction"),
        same("compact", "compact", default=False),
        same("shrink_factor", "shrink_factor", default=2),
        computed("normalization_factor", _factor, lambda options: options["normalization_factor"], 1.0),
        same("psa_softmax", "psa_softmax", default=True),
    ),
    shapes=_masks,
    assumed={"compact": False, "shrink_factor": 2, "normalization_factor": 1.0, "psa_softmax": True},
)

RULES: tuple[HeadRule, ...] = (ENCNET, GCNET, DANET, DNLNET, CCNET, ISANET, EMANET, PSANET)
