"""mmsegmentation's configs as ours, what is unknown refused by name (`from_mmseg_config`), and back (`to_mmseg_config`)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nonlocalseg.conversion.described import Described
from nonlocalseg.conversion.key_maps import Table, below, conv_norm
from nonlocalseg.conversion.mmseg_backbones import give_backbone, guessed_backbone, take_backbone
from nonlocalseg.conversion.mmseg_heads import FCN
from nonlocalseg.conversion.mmseg_parts import (
    MEAN,
    STD,
    class_count,
    epsilon,
    mapping,
    normalisation,
    reduces,
    refuse_unknown,
    take_head,
    type_of,
)
from nonlocalseg.conversion.mmseg_rules import RULES
from nonlocalseg.conversion.rules import (
    Field,
    HeadRule,
    Shapes,
    Values,
    give_fields,
    tupled,
)
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.config import ModelConfig
from nonlocalseg.models.wirings import wired
from nonlocalseg.values import changed, names_of

AUXILIARY: Table = {
    **conv_norm("auxiliary_head.convs.0", "auxiliary.convs.0", ".conv", ".bn"),
    "auxiliary_head.conv_seg": "auxiliary.classifier",
}
_MODEL = {"type", "data_preprocessor", "backbone", "neck", "decode_head", "auxiliary_head", "num_stages"}
_MODEL |= {"train_cfg", "test_cfg", "pretrained", "init_cfg"}


def from_mmseg_config(config: Values) -> Described:
    """The network that a config describes: a whole one (as `config_text.parse` reads it), or its `model` alone.

    Raises ValueError in one line, which names the field, for whatever our networks lack.
    """
    model = mapping(config.get("model", config), "model")
    refuse_unknown(model, _MODEL, "model")
    if model.get("neck") is not None:
        raise ValueError("model.neck is not known here")
    backbone = take_backbone(mapping(model.get("backbone"), "model.backbone"))
    heads = model.get("decode_head")
    decode = mapping(heads[-1] if isinstance(heads, (list, tuple)) and heads else heads, "model.decode_head")
    rule = _rule(decode)
    if (rule.coarse is not None) != isinstance(heads, (list, tuple)):
        raise ValueError(f"model.decode_head: {rule.theirs} is {'' if rule.coarse else 'not '}the second of a cascade")
    options: dict[str, object] = {**backbone.options}
    if rule.coarse is not None and isinstance(heads, (list, tuple)):
        first = mapping(heads[0], "model.decode_head[0]")
        if len(heads) != 2 or type_of(first) != FCN.theirs:
            raise ValueError("model.decode_head: only an FCNHead and one more are known")
        options |= take_head(first, rule.coarse, frozenset(), backbone.stages, (4,), "decode_head[0]")
    without = frozenset(rule.without_effect)
    options |= take_head(decode, rule.fields, without, backbone.stages, rule.stages, "decode_head")
    auxiliary, note = _auxiliary(model.get("auxiliary_head"), backbone.stages)
    norms = [model.get("backbone"), *(heads if isinstance(heads, (list, tuple)) else [heads])]
    norms += [model.get("auxiliary_head")] if auxiliary["auxiliary"] else []
    options |= auxiliary | epsilon(norms)
    mean, std, reversed_input, assumed = normalisation(config, model)
    return Described(
        rule.model,
        backbone.name,
        _without_idle(rule.model, backbone.name, options),
        class_count(decode),
        mean,
        std,
        reversed_input,
        {**below(backbone.keys, "backbone"), **below(rule.table, "decode_head", "head"), **AUXILIARY},
        mapping(model.get("test_cfg") or {}, "model.test_cfg"),
        reduces(config),
        tuple(note + assumed),
    )


def guessed_config(state: Mapping[str, Tensor]) -> tuple[dict[str, object], list[str]]:
    """A config for weights that carry none, from their shapes; and what shapes cannot tell and was assumed."""
    shapes = Shapes(state, "decode_head.")
    rule = next((rule for rule in RULES if rule.evidence in shapes), None)
    if rule is None:
        expected = " or ".join(f"decode_head.{rule.evidence}" for rule in RULES)
        raise ValueError(
            f"no known mmseg head: expected the key {expected}; the checkpoint begins with {', '.join(list(state)[:3])}"
        )
    backbone = guessed_backbone(Shapes(state, "backbone."), rule.output_stride)
    head: dict[str, object] = {**_head_guess(rule, shapes), **rule.shapes(shapes), **(rule.assumed or {})}
    model: dict[str, object] = {"backbone": backbone, "decode_head": head}
    if rule.coarse is not None:
        model["decode_head"] = [_coarse_guess(Shapes(state, "decode_head.0.")), head]
    if "auxiliary_head.convs.0.conv.weight" in state:
        model["auxiliary_head"] = _coarse_guess(Shapes(state, "auxiliary_head."))
    assumed = [f"{name}={value}" for name, value in (rule.assumed or {}).items()]
    notes = [f"output stride {rule.output_stride}", "align_corners=False", *assumed, "ImageNet's mean and deviation"]
    preprocessor = {"mean": MEAN, "std": STD, "bgr_to_rgb": True}
    return {"model": {**model, "data_preprocessor": preprocessor}}, notes


def to_mmseg_config(config: ModelConfig, channels: Mapping[int, int]) -> tuple[dict[str, object], Table]:
    """The config by which mmsegmentation builds the same network, and the table of its keys.

    `channels` are the backbone's, by stage. Raises ValueError that names the option which mmsegmentation lacks.
    """
    rule = next((rule for rule in RULES if rule.model == config.model), None)
    if rule is None:
        known = ", ".join(rule.model for rule in RULES)
        raise ValueError(f"mmsegmentation has no {config.model}; these can be written for it: {known}")
    if config.folded:
        raise ValueError("a folded model cannot be written for mmsegmentation: give the model it was folded from")
    norm: dict[str, object] = {"type": "SyncBN", "requires_grad": True}
    norm |= {} if config.norm_eps is None else {"eps": config.norm_eps}
    backbone, keys = give_backbone(config)
    values: dict[str, object] = {name: getattr(config.options, name) for name in names_of(type(config.options))}
    values["stage_channels"] = channels
    shared: dict[str, object] = {"num_classes": len(config.classes), "norm_cfg": norm}
    shared["align_corners"] = config.options.align_corners

    def head(kind: str, fields: tuple[Field, ...], stages: tuple[int, ...]) -> dict[str, object]:
        own = give_fields(fields, values)
        places = tupled(own.get("in_index", tuple(stage - 2 for stage in stages)))
        assert isinstance(places, tuple)
        widths = tuple(channels[place + 2] for place in places)
        single = len(stages) == 1
        inputs: dict[str, object] = {"in_channels": widths[0] if single else widths}
        return {"type": kind, **inputs, "in_index": places[0] if single else places, **own, **shared}

    decode: object = head(rule.theirs, rule.fields, rule.stages)
    if rule.coarse is not None:
        decode = [head(FCN.theirs, rule.coarse, (4,)), decode]
    model: dict[str, object] = {"type": "EncoderDecoder" if rule.coarse is None else "CascadeEncoderDecoder"}
    model |= {} if rule.coarse is None else {"num_stages": 2}
    preprocessor: dict[str, object] = {"type": "SegDataPreProcessor", "bgr_to_rgb": True, "pad_val": 0}
    preprocessor |= {"mean": [255 * x for x in config.mean], "std": [255 * x for x in config.std], "seg_pad_val": 255}
    model |= {"data_preprocessor": preprocessor, "backbone": {**backbone, "norm_cfg": norm}, "decode_head": decode}
    if config.auxiliary:
        auxiliary = {"type": FCN.theirs, "in_channels": channels[4], "in_index": 2, "num_convs": 1}
        auxiliary |= {"concat_input": False, "channels": config.auxiliary_channels}
        model["auxiliary_head"] = {**auxiliary, "dropout_ratio": config.auxiliary_dropout, **shared}
    table = {**keys, **below(rule.table, "decode_head", "head"), **(AUXILIARY if config.auxiliary else {})}
    return {"model": {**model, "train_cfg": {}, "test_cfg": {"mode": "whole"}}}, table


def meanings(config: ModelConfig) -> Values:
    """What None stands for in options of a model, by name."""
    return next((rule.means or {} for rule in RULES if rule.model == config.model), {})


# --- Heads --------------------------------------------------------------------------------------------------------


def _auxiliary(given: object, stages: tuple[int, ...]) -> tuple[dict[str, object], list[str]]:
    """Ours is one convolution on stage 4; another is left out, because it takes no part in inference."""
    if given is None:
        return {"auxiliary": False}, []
    if isinstance(given, Mapping) and type_of(given) == FCN.theirs:
        try:
            taken = take_head(given, FCN.fields, frozenset(), stages, (4,), "auxiliary_head")
            form = {name: taken[name] for name in ("convs", "combine", "dilation")}
            if form == {"convs": 1, "combine": False, "dilation": 1}:
                width = {"auxiliary_channels": taken["channels"], "auxiliary_dropout": taken["dropout"]}
                return {"auxiliary": True, **width}, []
        except ValueError:
            pass
    return {"auxiliary": False}, ["the auxiliary head is left out: ours is one convolution on stage 4"]


def _rule(decode: Values) -> HeadRule:
    kind = type_of(decode)
    rule = next((rule for rule in RULES if rule.theirs == kind), None)
    if rule is None:
        known = ", ".join(rule.theirs for rule in RULES)
        raise ValueError(f"decode_head.type={kind!r} is not known here; these can be converted: {known}")
    return rule


def _head_guess(rule: HeadRule, shapes: Shapes) -> dict[str, object]:
    classifier = f"{'' if rule.coarse is None else '1.'}{rule.classifier}.weight"
    places = tuple(stage - 2 for stage in rule.stages)
    known: dict[str, object] = {"type": rule.theirs, "in_index": places[0] if len(places) == 1 else places}
    return known | {"num_classes": shapes.width(classifier), "channels": shapes.width(classifier, 1)}


def _coarse_guess(shapes: Shapes) -> dict[str, object]:
    """The FCNHead on stage 4."""
    found: dict[str, object] = {"type": FCN.theirs, "in_index": 2, **FCN.shapes(shapes)}
    found |= {"num_classes": shapes.width("conv_seg.weight"), "channels": shapes.width("conv_seg.weight", 1)}
    return found | {"kernel_size": shapes.width("convs.0.conv.weight", 2)}


def _without_idle(model: str, backbone: str, options: dict[str, object]) -> dict[str, object]:
    """Without options that the others make idle, which `create_model` would refuse."""
    start = MODELS[model].options
    chosen = {**wired("mmseg", model, backbone), **options}
    head = changed(start, {name: value for name, value in chosen.items() if name in names_of(type(start))})
    return {name: value for name, value in options.items() if name not in head.idle()}
