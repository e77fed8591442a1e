"""mmsegmentation's ResNets (plain, V1c, V1d) and MobileNetV2 as timm's, with their dilations, read both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nonlocalseg.conversion.key_maps import LAYERS, Table, below
from nonlocalseg.conversion.rules import Field, Shapes, Values, computed, fixed, give_fields, named, take_fields, tupled
from nonlocalseg.models.config import BackboneOptions, ModelConfig, NetworkOptions
from nonlocalseg.values import names_of


@dataclass(frozen=True)
class TheirBackbone:
    """A backbone as one of ours: timm's name, options of `NetworkOptions`, keys below backbone., and which stage each
    of its outputs is."""

    name: str
    options: dict[str, object]
    keys: Table
    stages: tuple[int, ...]


DEEP_KEYS: Table = {**LAYERS, "stem.#": "backbone.body.conv1.#", "stem.7": "backbone.body.bn1"}
PLAIN_KEYS: Table = {**LAYERS, "conv1": "backbone.body.conv1", "bn1": "backbone.body.bn1"}
MOBILENET_KEYS: Table = below(
    {
        "conv1.conv": "conv_stem",
        "conv1.bn": "bn1",
        **{
            f"layer{n + 1}.#.conv.{place}.{part}": f"blocks.{n}.#.{name}{number if part == 'bn' else ''}"
            for n in range(7)
            for place, (conv, number) in enumerate(
                (("conv_pw", 1), ("conv_dw", 2), ("conv_pwl", 3)) if n else (("conv_dw", 1), ("conv_pw", 2))
            )
            for part, name in (("conv", conv), ("bn", "bn"))
        },
    },
    ours="backbone.body",
)
_DEPTHS = (18, 34, 50, 101, 152)
# (type there, depth there): timm's name; its letter is the stem's form.
_NAMES: dict[tuple[str, int], str] = {
    **{("ResNet", depth): f"resnet{depth}" for depth in _DEPTHS},
    **{("ResNetV1c", depth): f"resnet{depth}" + ("c" if depth >= 50 else "") for depth in _DEPTHS},
    **{("ResNetV1d", depth): f"resnet{depth}d" for depth in _DEPTHS},
}
_STRIDES = {  # output stride: (strides, dilations)
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
}
_MOBILE_STRIDES = {
    8: ((1, 2, 2, 1, 1, 1, 1), (1, 1, 1, 2, 2, 4, 4)),
    16: ((1, 2, 2, 2, 1, 1, 1), (1, 1, 1, 1, 1, 2, 2)),
    32: ((1, 2, 2, 2, 1, 2, 1), (1, 1, 1, 1, 1, 1, 1)),
}
_MOBILE_WIDTHS = {1.0: "100", 0.35: "035", 0.5: "050", 0.75: "075", 1.4: "140"}
_WITHOUT_EFFECT = frozenset(
    {"frozen_stages", "norm_eval", "with_cp", "zero_init_residual", "pretrained", "init_cfg", "norm_cfg"}
)
"""norm_cfg is looked at for the whole network together."""
_NONE = (fixed("conv_cfg", None), fixed("plugins", None), fixed("dcn", None))


def take_backbone(given: Values) -> TheirBackbone:
    """The backbone of a config; ValueError that names the field which has no place."""
    kind = str(given.get("type", "")).rpartition(".")[2]
    fields = {name: value for name, value in given.items() if name != "type"}
    if kind == "MobileNetV2":
        return _take_mobilenet(fields)
    if kind not in ("ResNet", "ResNetV1c", "ResNetV1d"):
        raise ValueError(f"backbone.type={kind!r}: only ResNet, ResNetV1c, ResNetV1d and MobileNetV2 can be converted")
    deep, average = kind != "ResNet" or bool(fields.pop("deep_stem", False)), kind == "ResNetV1d"
    if kind == "ResNet" and fields.pop("avg_down", False):
        average = True
    kind = "ResNetV1d" if deep and average else "ResNetV1c" if deep else "ResNet"
    if average and not deep:
        raise ValueError("backbone.avg_down=True without a deep stem is not known here")
    without = _WITHOUT_EFFECT | {"stage_with_dcn"}
    options = take_fields(_resnet_fields(kind), fields, "backbone", without)
    depth, small = options.pop("depth"), options.pop("backbone_options")
    stages = options.pop("stages")
    assert isinstance(depth, int)
    assert isinstance(small, dict)
    assert isinstance(stages, tuple)
    return TheirBackbone(
        _NAMES[kind, depth], options | ({"backbone_options": small} if small else {}), _keys(kind), stages
    )


def give_backbone(config: ModelConfig) -> tuple[dict[str, object], Table]:
    """The backbone of a config for mmsegmentation, and its keys; ValueError for what it lacks."""
    name = config.backbone.partition(".")[0]
    widths = {ours: theirs for theirs, ours in _MOBILE_WIDTHS.items()}
    values: dict[str, object] = {option: getattr(config, option) for option in names_of(NetworkOptions)}
    if name.removeprefix("mobilenetv2_") in widths:
        values["widen_factor"] = widths[name.removeprefix("mobilenetv2_")]
        return {"type": "MobileNetV2", **give_fields(_MOBILENET_FIELDS, values)}, below(MOBILENET_KEYS, "backbone")
    found = next(((kind, depth) for (kind, depth), ours in _NAMES.items() if ours == name), None)
    if found is None:
        raise ValueError(f"mmsegmentation has no backbone {config.backbone}")
    kind, depth = found
    if kind == "ResNet" and config.backbone_options.stem_type == "deep":
        kind = "ResNetV1c"
    given = give_fields(_resnet_fields(kind), {**values, "depth": depth})
    return {"type": kind, **{key: value for key, value in given.items() if value is not None}}, below(
        _keys(kind), "backbone"
    )


def guessed_backbone(shapes: Shapes, stride: int) -> dict[str, object]:
    """The backbone that the shapes below backbone. tell, at this output stride."""
    if "layer1.0.conv.0.conv.weight" in shapes:
        width = shapes.width("layer7.0.conv.2.conv.weight")
        factor = {320: 1.0, 112: 0.35, 160: 0.5, 240: 0.75, 448: 1.4}.get(width)
        if factor is None:
            raise ValueError(f"a MobileNetV2 whose last stage has {width} channels is not known here")
        return {"type": "MobileNetV2", **_mobile(stride), "widen_factor": factor}
    blocks = str([shapes.count(f"layer{n}.") for n in (1, 2, 3, 4)])
    basic = "layer1.0.conv3.weight" not in shapes
    depths = {"[2, 2, 2, 2]": 18, "[3, 4, 6, 3]": 34 if basic else 50, "[3, 4, 23, 3]": 101, "[3, 8, 36, 3]": 152}
    if blocks not in depths:
        raise ValueError(f"the mmseg backbone has {blocks} blocks in its layers: no known ResNet; is the file whole?")
    deep = "stem.0.weight" in shapes
    average = "layer1.0.downsample.2.weight" in shapes
    kind = "ResNetV1d" if average else "ResNetV1c" if deep else "ResNet"
    base = shapes.width("layer1.0.conv1.weight")
    stem = 2 * shapes.width("stem.0.weight") if deep else shapes.width("conv1.weight")
    widths = {"base_channels": base, "stem_channels": stem} if (base, stem) != (64, 64) else {}
    return {"type": kind, "depth": depths[blocks], **_strided(stride), "contract_dilation": True, **widths}


# --- ResNets ------------------------------------------------------------------------------------------------------


def _strided(stride: int) -> dict[str, object]:
    return dict(zip(("strides", "dilations"), _STRIDES[stride], strict=True))


def _mobile(stride: int) -> dict[str, object]:
    return {**dict(zip(("strides", "dilations"), _MOBILE_STRIDES[stride], strict=True)), "out_indices": (1, 2, 4, 6)}


def _keys(kind: str) -> Table:
    return PLAIN_KEYS if kind == "ResNet" else DEEP_KEYS


def _resnet_fields(kind: str) -> tuple[Field, ...]:
    return (
        computed("depth", _depth, lambda options: options["depth"]),
        computed("base_channels", lambda given, fields: _widths(kind, fields), _base, 64),
        computed("stem_channels", lambda given, _: {}, lambda options: _stem(kind, options), 64),
        named("strides", "output_stride", {both[0]: stride for stride, both in _STRIDES.items()}, (1, 2, 2, 2)),
        computed("dilations", _resnet_dilations, _given_dilations, (1, 1, 1, 1)),
        computed("out_indices", _outputs, lambda _: (0, 1, 2, 3), (0, 1, 2, 3)),
        computed("contract_dilation", _contracted, lambda o: o["dilated_blocks"] == "after_first", False),
        computed("multi_grid", _grid, lambda o: o["multi_grid"], None),
        computed("style", _style, lambda o: "caffe" if o["stride_first"] else "pytorch", "pytorch"),
        fixed("in_channels", 3),
        fixed("num_stages", 4),
        *_NONE,
    )


def _depth(given: object, _: Values) -> Values:
    if given not in _DEPTHS:
        raise ValueError(f"only depths {', '.join(map(str, _DEPTHS))} can be converted")
    return {"depth": given}


def _widths(kind: str, fields: Values) -> Values:
    base, stem = fields["base_channels"], fields["stem_channels"]
    if not isinstance(base, int) or not isinstance(stem, int):
        raise ValueError("expected whole numbers of channels")
    small: dict[str, object] = {} if base == 64 else {"channels": tuple(base * 2**n for n in range(4))}
    if kind == "ResNet" and stem != 64:
        raise ValueError("a 7x7 stem of other than 64 channels is not known here")
    depth = fields["depth"]
    if kind == "ResNetV1c" and (depth in (18, 34) or stem != 64):
        small |= {"stem_type": "deep", "stem_width": stem // 2}
    if kind == "ResNetV1d" and stem != 64:
        small |= {"stem_width": stem // 2}
    return {"backbone_options": small}


def _base(options: Values) -> object:
    small = options["backbone_options"]
    assert isinstance(small, BackboneOptions)
    if small.channels is None:
        return 64
    if small.channels != tuple(small.channels[0] * 2**n for n in range(4)):
        raise ValueError(f"its stages double their channels, unlike {small.channels}")
    return small.channels[0]


def _stem(kind: str, options: Values) -> object:
    small = options["backbone_options"]
    assert isinstance(small, BackboneOptions)
    return 64 if small.stem_width is None else 2 * small.stem_width


def _mobile_stride(fields: Values) -> Values:
    asked = tupled(fields["strides"]), tupled(fields["dilations"])
    found = next((stride for stride, both in _MOBILE_STRIDES.items() if both == asked), None)
    if found is None:
        raise ValueError(f"these strides with dilations={fields['dilations']!r} are no output stride of 8, 16 or 32")
    return {"output_stride": found}


def _resnet_dilations(given: object, fields: Values) -> Values:
    """Nothing where they make up for the strides."""
    rates = tupled(given)
    if (tupled(fields["strides"]), rates) in _STRIDES.values():
        return {}
    if not isinstance(rates, tuple) or len(rates) != 4 or rates[:2] != (1, 1):
        raise ValueError("only the last two of four stages can be dilated")
    return {"dilations": rates[2:]}


def _given_dilations(options: Values) -> object:
    asked = options["dilations"]
    assert asked is None or isinstance(asked, tuple)
    return _STRIDES[_asked(options)][1] if asked is None else (1, 1, *asked)


def _asked(options: Values) -> int:
    stride = options["output_stride"]
    if stride not in (8, 16, 32):
        raise ValueError(f"it has output strides 8, 16 and 32, not {stride}")
    assert isinstance(stride, int)
    return stride


def _outputs(given: object, _: Values) -> Values:
    places = tupled(given)
    if not isinstance(places, tuple) or any(place not in (0, 1, 2, 3) for place in places) or not places:
        raise ValueError("expected some of (0, 1, 2, 3)")
    return {"stages": tuple(place + 2 for place in places)}


def _contracted(given: object, fields: Values) -> Values:
    return {} if given or tupled(fields["dilations"]) == (1, 1, 1, 1) else {"dilated_blocks": "all"}


def _grid(given: object, _: Values) -> Values:
    return {} if given is None else {"multi_grid": tupled(given)}


def _style(given: object, fields: Values) -> Values:
    if given not in ("pytorch", "caffe"):
        raise ValueError("only pytorch and caffe are known")
    bottleneck = fields["depth"] not in (18, 34)  # the blocks of the others do not look at style
    return {"stride_first": True} if given == "caffe" and bottleneck else {}


# --- MobileNetV2 --------------------------------------------------------------------------------------------------

_MOBILE_STAGES = {1: 2, 2: 3, 4: 4, 6: 5}


def _mobile_outputs(given: object, _: Values) -> Values:
    places = tupled(given)
    if not isinstance(places, Sequence) or not places or any(place not in _MOBILE_STAGES for place in places):
        raise ValueError("expected some of (1, 2, 4, 6)")
    return {"stages": tuple(_MOBILE_STAGES[place] for place in places)}


def _widened(given: object, _: Values) -> Values:
    if given not in _MOBILE_WIDTHS:
        raise ValueError(f"only {', '.join(map(str, _MOBILE_WIDTHS))} can be converted")
    return {"widen_factor": given}


_MOBILENET_FIELDS = (
    computed("widen_factor", _widened, lambda o: o["widen_factor"], 1.0),
    computed(
        "strides",
        lambda given, f: _mobile_stride(f),
        lambda o: _MOBILE_STRIDES[_asked(o)][0],
        (1, 2, 2, 2, 1, 2, 1),
    ),
    computed("dilations", lambda given, _: {}, lambda o: _MOBILE_STRIDES[_asked(o)][1], (1,) * 7),
    computed("out_indices", _mobile_outputs, lambda _: (1, 2, 4, 6), (1, 2, 4, 6)),
    fixed("act_cfg", {"type": "ReLU6"}),
    fixed("conv_cfg", None),
)


def _take_mobilenet(fields: Values) -> TheirBackbone:
    options = take_fields(_MOBILENET_FIELDS, fields, "backbone", _WITHOUT_EFFECT)
    factor, stages = options.pop("widen_factor"), options.pop("stages")
    assert isinstance(factor, (int, float))
    assert isinstance(stages, tuple)
    return TheirBackbone(f"mobilenetv2_{_MOBILE_WIDTHS[float(factor)]}", options, MOBILENET_KEYS, stages)
