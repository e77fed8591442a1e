"""From names to models: the `MODELS` dictionary, the four wirings of each, and `create_model()`."""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nonlocalseg.blocks.aggregation import ASPP, CGNL, PSP, HalfResolution
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.distribution import LDv1, LDv2
from nonlocalseg.blocks.non_local import AFNB, APNB, CommonFusion, FusionNonLocal, NonLocal
from nonlocalseg.blocks.sampling import AverageSampling, MaxSampling, RandomSampling, Sampling
from nonlocalseg.models.backbone import Backbone, normalisation
from nonlocalseg.models.heads import ANNHead, FCNHead, GALDHead
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.wirings import MODEL_WIRINGS, WIRINGS, Details, Reader, known

FORMAT_VERSION = 1
Palette = Sequence[Sequence[int]]


SAMPLINGS: dict[str, type[Sampling]] = {
    f"{pyramid}{name}": kind
    for pyramid in ("pyramid_", "")
    for name, kind in (("average", AverageSampling), ("max", MaxSampling), ("random", RandomSampling))
}


@dataclass(frozen=True)
class Preset:
    """How a key of `MODELS` is built: `head(options, channels by stage, num_classes)`; `options` preset some details."""

    description: str
    head: Callable[[Any, dict[int, int], int], nn.Module]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _sampling(o: Any) -> Sampling:
    return SAMPLINGS[o.sampling](o.anchor_sizes)


def _block_details(o: Any) -> dict[str, Any]:
    return {
        "key_channels": o.key_channels,
        "value_channels": o.value_channels,
        "normalisation": o.normalisation,
        "embedding": o.embedding,
        "bias": o.embedding_bias,
        "scaled": o.scaled,
        "dropout": o.block_dropout,
    }


def _context(kind: str | None, o: Any, channels: int) -> NonLocal | None:
    if kind is None:
        return None
    if kind == "nonlocal" and o.output == "residual":
        details = {**_block_details(o), "context_norm": o.context_norm}
    else:
        details = _block_details(o)
    details |= {"output": o.output, "share": o.share_key_query}
    if o.output == "cat_conv":
        details["fuse_bias"] = o.fuse_bias
    return NonLocal(channels, **details) if kind == "nonlocal" else APNB(channels, _sampling(o), **details)


def _fusion(kind: str, o: Any, channels: dict[int, int]) -> CommonFusion | FusionNonLocal:
    high, lows = channels[5], tuple(_stage(channels, stage) for stage in o.fuse)
    if kind == "fusion":
        return CommonFusion(high, lows, o.align_corners)
    details = {**_block_details(o), "output": o.output, "share_value": o.share_key_value}
    if o.output == "cat_conv":
        details["fuse_bias"] = o.fuse_bias
    return FusionNonLocal(high, lows, **details) if kind == "fnb" else AFNB(high, lows, _sampling(o), **details)


def _stage(channels: dict[int, int], stage: int) -> int:
    if stage not in channels or stage == 5:
        known = [s for s in sorted(channels) if s != 5]
        raise ValueError(f"fuse: stage {stage} cannot be fused into stage 5; this backbone has {known}")
    return channels[stage]


def _fcn_head(context: str | None) -> Callable[[Any, dict[int, int], int], FCNHead]:
    def build(o: Any, channels: dict[int, int], num_classes: int) -> FCNHead:
        stage = channels[5]
        count = o.convs if context is None or o.between else 0
        widths = [stage, *(o.channels for _ in range(count))]
        convs = [ConvNormAct(a, o.channels, 3, bias=o.conv_bias) for a in widths[:-1]]
        block = _context(context, o, widths[-1])
        width = widths[-1] if block is None else block.out_channels
        combine = ConvNormAct(stage + width, o.channels, 3, bias=o.conv_bias) if o.combine else None
        width = o.channels if combine is not None else width
        return FCNHead(convs, nn.Conv2d(width, num_classes, 1), block, combine, o.dropout)

    return build


def _ann_head(fusion: str, context: str | None) -> Callable[[Any, dict[int, int], int], ANNHead]:
    def build(o: Any, channels: dict[int, int], num_classes: int) -> ANNHead:
        block = _fusion(fusion, o, channels)
        width = block.out_channels
        between = ConvNormAct(width, o.channels, 3, bias=o.conv_bias) if o.between else None
        width = o.channels if between is not None else width
        last = _context(context, o, width)
        classifier = nn.Conv2d(width if last is None else last.out_channels, num_classes, 1)
        return ANNHead(block, classifier, o.fuse, between, last, o.fusion_dropout, o.classifier_dropout)

    return build


def _gald_head(o: Any, channels: dict[int, int], num_classes: int) -> GALDHead:
    """psp and aspp take stage 5 itself and end in the classifier; the others, and every other arrangement, stand
    between two 3x3 convolutions, with a third over the concatenation with stage 5 (the public code)."""
    width, stage = o.channels, channels[5]
    framed = o.aggregate not in ("psp", "aspp") or o.arrangement != "gald"
    if o.arrangement != "gald" and "none" in (o.aggregate, o.distribute):
        raise ValueError(f"arrangement={o.arrangement!r} needs both aggregate and distribute; one of them is none")
    reduce = ConvNormAct(stage, width, 3) if framed else None
    aggregate = _aggregate(o, width if framed else stage, width)
    with_local = o.distribute == "ldv2" and o.arrangement == "gald" and o.aggregate != "none"
    distribute = _distribute(o, width, width if with_local else 0)
    out = 2 * width if o.arrangement == "parallel" else width
    skip = width if with_local else stage
    concat = framed or distribute is not None
    final = width if framed else out + (skip if concat else 0)
    return GALDHead(
        aggregate,
        distribute,
        nn.Conv2d(final, num_classes, 1),
        o.arrangement,
        reduce,
        ConvNormAct(stage, width) if with_local else None,
        ConvNormAct(out, width, 3) if framed else None,
        ConvNormAct(width + skip, width, 3) if framed else None,
        concat,
        o.dropout,
        _stage_heads(o, width if framed else stage, width, num_classes) if o.stage_heads else None,
    )


def _stage_heads(o: Any, first: int, width: int, num_classes: int) -> dict[str, nn.Conv2d]:
    """A classifier for X' and for each step that there is; X' has `first` channels, every later map `width`."""
    steps = {"gald": ("ga", "gald"), "ldga": ("ld", "ldga"), "parallel": ("ga", "ld")}[o.arrangement]
    taken = (o.aggregate, o.distribute) if o.arrangement != "ldga" else (o.distribute, o.aggregate)
    named = [step for step, block in zip(steps, taken, strict=True) if block != "none"]
    return {"fcn": nn.Conv2d(first, num_classes, 1), **{step: nn.Conv2d(width, num_classes, 1) for step in named}}


def _aggregate(o: Any, channels: int, width: int) -> nn.Module | None:
    if o.aggregate == "none":
        return None
    half = o.aggregate_stride == 2
    if o.aggregate == "psp":
        block = PSP(channels, width, width, o.psp_bins, o.psp_act, o.psp_map_first, o.align_corners)
    elif o.aggregate == "aspp":
        rates = tuple(max(1, rate // 2) for rate in o.aspp_rates) if half else o.aspp_rates
        block = ASPP(channels, width, o.aggregate_channels, rates, o.align_corners)
    elif o.aggregate == "cgnl":
        block = CGNL(channels, o.key_channels, o.cgnl_groups, official=o.official_gald)
    else:
        block = _context(o.aggregate, _Residual(o), channels)
        assert block is not None
    if not half:
        return block
    official = o.official_gald
    return HalfResolution(block, channels, 0 if official else 1, official, o.align_corners)


class _Residual:
    """Options in which the attending block adds its context to its input, as GALD's aggregation modules do."""

    output = "residual"

    def __init__(self, options: Any) -> None:
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)


def _distribute(o: Any, width: int, local: int) -> LDv1 | LDv2 | None:
    if o.distribute == "none":
        return None
    if o.distribute == "ldv1":
        return LDv1(width, o.mask_downsample, 8, o.official_gald, o.mask_residuals, o.align_corners)
    return LDv2(
        width,
        local,
        width,
        o.key_channels,
        width,
        o.distribute_kernel_size,
        o.distribute_dilation,
        o.distribute_query,
        o.distribute_key,
    )


MODELS: dict[str, Preset] = {
    "fcn": Preset("the papers' baseline", _fcn_head(None)),
    "nonlocal": Preset("baseline + NB", _fcn_head("nonlocal")),
    "apnb": Preset("baseline + APNB", _fcn_head("apnb")),
    "fusion": Preset("baseline + common fusion", _ann_head("fusion", None)),
    "fnb": Preset("baseline + FNB", _ann_head("fnb", None)),
    "afnb": Preset("baseline + AFNB", _ann_head("afnb", None)),
    "fusion_nonlocal": Preset("common fusion + NB", _ann_head("fusion", "nonlocal")),
    "fnb_nonlocal": Preset("FNB + NB", _ann_head("fnb", "nonlocal")),
    "ann": Preset("AFNB + APNB, the full network of ANN", _ann_head("afnb", "apnb")),
    "psp": Preset(
        "pyramid pooling alone", _gald_head, {"aggregate": "psp", "distribute": "none", "aggregate_stride": 1}
    ),
    "aspp": Preset(
        "atrous pyramid alone", _gald_head, {"aggregate": "aspp", "distribute": "none", "aggregate_stride": 1}
    ),
    "cgnl": Preset("compact generalised non-local alone", _gald_head, {"aggregate": "cgnl", "distribute": "none"}),
    "gald": Preset("any aggregation with any distribution, in three arrangements", _gald_head),
    "galdv1": Preset("CGNL + LDv1", _gald_head, {"aggregate": "cgnl", "distribute": "ldv1"}),
    "galdv2": Preset("ASPP + LDv2", _gald_head, {"aggregate": "aspp", "distribute": "ldv2"}),
}


def create_model(
    model: str,
    backbone: str = "resnet50c",
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    wiring: str = "default",
    pretrained: bool = False,
    backbone_weights: str | Path | None = None,
    **options: Any,
) -> Segmenter:
    """A `Segmenter` of `MODELS[model]` on the timm network `backbone`, for named `classes` or a number of them.

    `wiring` ("default", "official", "mmseg", "paper") selects the details in which implementations differ; keyword
    `options` are fields of `Details` and override it. `pretrained` downloads timm's weights, `backbone_weights` reads
    them from a local file. Raises `ValueError` for an unknown name, nearest named, for an option this model does not
    read, and for a combination that cannot be built; `FileNotFoundError` for missing weights.
    """
    preset = MODELS[known("model", model, MODELS)]
    known("wiring", wiring, WIRINGS)
    names = [field.name for field in dataclasses.fields(Details)]
    for name in options:
        known("option", name, names)
    mean, std = normalisation(backbone)
    config = {
        "format_version": FORMAT_VERSION,
        "model": model,
        "backbone": backbone,
        "wiring": wiring,
        "classes": class_names(num_classes, classes),
        "mean": list(mean),
        "std": list(std),
    }
    config["palette"] = full_palette(palette, len(config["classes"]))
    chosen = {**WIRINGS[wiring], **MODEL_WIRINGS.get((wiring, model), {}), **preset.options, **options}
    return build(config, chosen, set(options), pretrained, backbone_weights)


def build(
    config: dict[str, Any],
    options: Mapping[str, Any],
    required: set[str] | frozenset[str] = frozenset(),
    pretrained: bool = False,
    backbone_weights: str | Path | None = None,
) -> Segmenter:
    """The model that `config` and the resolved `options` describe. Every name in `required` must be read by it."""
    o = Reader(_resolve(options))
    preset = MODELS[config["model"]]
    backbone = Backbone(
        config["backbone"],
        o.output_stride,
        o.multi_grid,
        o.dilate_first,
        o.dilate_second,
        o.max_pool_ceil,
        o.backbone_options,
        pretrained,
        backbone_weights,
    )
    num_classes = len(config["classes"])
    head = preset.head(o, backbone.channels, num_classes)
    auxiliary = None
    if o.auxiliary:
        if 4 not in backbone.channels:
            raise ValueError(f"the auxiliary head needs stage 4, which {config['backbone']} lacks: use auxiliary=False")
        conv = ConvNormAct(backbone.channels[4], o.auxiliary_channels, 3, bias=o.auxiliary_bias)
        classifier = nn.Conv2d(o.auxiliary_channels, num_classes, 1)
        auxiliary = FCNHead([conv], classifier, dropout=o.auxiliary_dropout, stage=4)
    align_corners = o.align_corners
    unread = sorted(required - o.used.keys())
    if unread:
        raise ValueError(f"option {unread[0]} has no effect on model {config['model']!r} as it is set up: leave it out")
    o.used["output_stride"] = backbone.output_stride
    used = {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(o.used.items())}
    return Segmenter(
        backbone,
        head,
        auxiliary,
        tuple(config["classes"]),
        config["palette"],
        tuple(config["mean"]),
        tuple(config["std"]),
        align_corners,
        {**config, "options": used},
    )


def _resolve(options: Mapping[str, Any]) -> Details:
    """Details with sequences as tuples, and the anchor sizes that belong to the sampling; checks what a type cannot."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    details = dataclasses.replace(Details(), **values)
    known("sampling", details.sampling, SAMPLINGS)
    plain = not details.sampling.startswith("pyramid_")
    sizes = details.anchor_sizes or ((15,) if plain else (1, 3, 6, 8))
    if plain and len(sizes) != 1:
        raise ValueError(f"anchor_sizes: {details.sampling} sampling takes one size, e.g. (15,), not {sizes}")
    for name, allowed in (
        ("aggregate", ("none", "psp", "aspp", "nonlocal", "cgnl", "apnb")),
        ("distribute", ("none", "ldv1", "ldv2")),
        ("aggregate_stride", (1, 2)),
    ):
        if getattr(details, name) not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, not {getattr(details, name)!r}")
    return dataclasses.replace(details, anchor_sizes=sizes)


def class_names(num_classes: int | None, classes: Sequence[str] | None) -> list[str]:
    if classes is None:
        if num_classes is None or num_classes < 1:
            raise ValueError("give classes=[...] or num_classes of at least 1")
        return [f"class {index}" for index in range(num_classes)]
    if num_classes is not None and num_classes != len(classes):
        raise ValueError(f"num_classes={num_classes}, but {len(classes)} class names are given: leave num_classes out")
    if not classes or len(set(classes)) != len(classes):
        raise ValueError("classes must be at least one name, each of them once")
    return [str(name) for name in classes]


def full_palette(palette: Palette | None, count: int) -> list[list[int]]:
    """The palette as lists; without one, colours of evenly spaced hue at alternating brightness."""
    if palette is None:
        shades = [colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, 0.95 - 0.35 * (index % 2)) for index in range(count)]
        return [[round(255 * part) for part in shade] for shade in shades]
    if len(palette) != count or any(len(colour) != 3 for colour in palette):
        raise ValueError(f"palette must hold one RGB colour for each of the {count} classes")
    return [[int(part) for part in colour] for colour in palette]
