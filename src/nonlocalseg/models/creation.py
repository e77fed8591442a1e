"""From a name, or from a config, to a model: `create_model()` and `build()`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.choices import pick
from nonlocalseg.heads.fcn import FCNHead
from nonlocalseg.labels import LabelMap, Palette, default_palette
from nonlocalseg.models.backbone import Backbone, normalisation
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.config import ModelConfig, NetworkOptions, Wiring
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.wirings import WIRINGS, wired
from nonlocalseg.values import changed, names_of


def create_model(
    model: str,
    backbone: str = "resnet50c",
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    label_map: LabelMap | None = None,
    wiring: str = "default",
    pretrained: bool = False,
    backbone_weights: str | Path | None = None,
    **options: Any,
) -> Segmenter:
    """A `Segmenter` of `MODELS[model]` on the timm network `backbone`, for named `classes` or a number of them.

    `label_map` says what stored labels mean (see `LabelMap`), for whoever reads a label image for this model.
    `wiring` ("default", "official", "mmseg", "paper") selects the details in which implementations differ; keyword
    `options` are fields of `NetworkOptions` and of the head's own options, and override it. `pretrained` downloads
    timm's weights, `backbone_weights` reads them from a local file. Raises `ValueError` for an unknown name, nearest
    named, for an option that has no effect on this model, and for a combination that cannot be built;
    `FileNotFoundError` for missing weights.
    """
    config = resolve(model, backbone, class_names(num_classes, classes), palette, wiring, options, label_map)
    return build(config, pretrained, backbone_weights)


def resolve(
    model: str,
    backbone: str,
    classes: Sequence[str],
    palette: Palette | None = None,
    wiring: str = "default",
    options: Mapping[str, object] | None = None,
    label_map: LabelMap | None = None,
) -> ModelConfig:
    """The config that `create_model` builds from; the same errors, but for what only the backbone knows."""
    start = MODELS[pick("model", model, MODELS)].options
    own, network, given = names_of(type(start)), names_of(NetworkOptions), dict(options or {})
    chosen_wiring = cast(Wiring, pick("wiring", wiring, WIRINGS))
    for name in given:
        _check_known(name, model, (*own, *network))
    chosen = {**wired(chosen_wiring, model, backbone), **given}
    head = changed(start, {name: item for name, item in chosen.items() if name in own})
    beside: dict[str, Any] = {name: item for name, item in chosen.items() if name in network}
    mean, std = normalisation(backbone)
    config = ModelConfig(
        model=model,
        backbone=backbone,
        wiring=chosen_wiring,
        classes=tuple(classes),
        palette=_as_colours(default_palette(len(classes)) if palette is None else palette),
        label_map=label_map,
        mean=mean,
        std=std,
        options=head,
        **beside,
    )
    for name in given:
        if name in head.idle() | config.idle_network():
            raise ValueError(f"option {name} has no effect on model {model!r} as it is set up: leave it out")
    return config


def build(config: ModelConfig, pretrained: bool = False, backbone_weights: str | Path | None = None) -> Segmenter:
    """The model that `config` describes; its own config says which output stride the backbone has."""
    kind, num_classes = MODELS[config.model].head, len(config.classes)
    backbone = Backbone(config.backbone, config, pretrained, backbone_weights, kind.usual_stride)
    head = kind.build(config.options, backbone.channels, num_classes)
    auxiliary = _auxiliary(config, backbone, num_classes) if config.auxiliary else None
    if config.norm_eps is not None:
        _set_norm_eps([backbone, head, *([auxiliary] if auxiliary else [])], config.norm_eps)
    return Segmenter(
        backbone,
        head,
        auxiliary,
        config.classes,
        config.palette,
        config.mean,
        config.std,
        config.options.align_corners,
        changed(config, {"output_stride": backbone.output_stride, "folded": False}),
    )


def with_stage_heads(model: Segmenter) -> Segmenter:
    """The model with new classifiers behind every step of its GALD head (Fig. 8), all else as it is; itself, where it
    has them. ValueError for another head and for a folded model."""
    config = model.config
    if config is None or config.folded or "stage_heads" not in names_of(type(config.options)):
        raise ValueError("stage_heads: only a GALD head that is not folded has steps that can be classified")
    if config.flat()["stage_heads"]:
        return model
    attached = build(changed(config, {"options": changed(config.options, {"stage_heads": True})}))
    attached.load_state_dict({**attached.state_dict(), **model.state_dict()})
    return attached


def class_names(num_classes: int | None, classes: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes, numbered ones where only their number is given."""
    if classes is None:
        if num_classes is None or num_classes < 1:
            raise ValueError("give classes=[...] or num_classes of at least 1")
        return tuple(f"class {index}" for index in range(num_classes))
    if num_classes is not None and num_classes != len(classes):
        raise ValueError(f"num_classes={num_classes}, but {len(classes)} class names are given: leave num_classes out")
    return tuple(str(name) for name in classes)


def _auxiliary(config: ModelConfig, backbone: Backbone, num_classes: int) -> FCNHead:
    if 4 not in backbone.channels:
        raise ValueError(f"the auxiliary head needs stage 4, which {config.backbone} lacks: use auxiliary=False")
    width = config.auxiliary_channels
    conv = ConvNormAct(backbone.channels[4], width, 3, bias=config.auxiliary_bias)
    return FCNHead([conv], nn.Conv2d(width, num_classes, 1), dropout=config.auxiliary_dropout, stage=4)


def _set_norm_eps(parts: Sequence[nn.Module], eps: float) -> None:
    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        raise ValueError("norm_eps: this network has no batch norm: leave it out")
    for norm in norms:
        norm.eps = eps


def _check_known(name: str, model: str, known: Sequence[str]) -> None:
    """ValueError for an option that is not among `known`: misspelt, or another model's."""
    if name in known:
        return
    if any(name in names_of(type(other.options)) for other in MODELS.values()):
        raise ValueError(f"option {name} has no effect on model {model!r}: leave it out")
    pick("option", name, known)


def _as_colours(palette: Palette) -> Any:
    return tuple(tuple(int(part) for part in colour) for colour in palette)
