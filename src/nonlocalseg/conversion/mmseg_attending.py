"""The rules of mmsegmentation's heads that attend or encode: EncNet, DANet, ISANet, EMANet and PSANet."""

from __future__ import annotations

import math

from nonlocalseg.conversion.key_maps import modules
from nonlocalseg.conversion.mmseg_framed import concatenates
from nonlocalseg.conversion.mmseg_heads import CONV_MODULE
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
        **concatenates(s),
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

RULES: tuple[HeadRule, ...] = (ENCNET, DANET, ISANET, EMANET, PSANET)
