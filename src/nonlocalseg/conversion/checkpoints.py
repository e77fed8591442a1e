"""Checkpoints of mmsegmentation and of the official ANN and GALD become ours by visible key tables; ANN goes back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nonlocalseg.choices import pick
from nonlocalseg.conversion.key_maps import HEADS, MMSEG_ANN, Table
from nonlocalseg.labels import Palette
from nonlocalseg.models.creation import create_model
from nonlocalseg.models.hub import load_weights
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.storage import read_weights
from nonlocalseg.values import changed

SOURCES = ("mmseg", "ann-official", "gald-official")
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Blue, green, red means on 0-255, no division: in RGB on 0-1 the deviation is 1/255 and the first convolution is flipped.
_ANN_MEAN = tuple(value / 255 for value in (122.7717, 115.9465, 102.9801))
_GALD_MEAN = tuple(value / 255 for value in (122.67891434, 116.66876762, 104.00698793))
_UNSCALED = (1 / 255,) * 3


def convert(
    checkpoint: Mapping[str, Any],
    source: str,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    align_corners: bool | None = None,
) -> Segmenter:
    """A Segmenter from another project's checkpoint: a state dict, or a dict that holds one; in evaluation mode.

    `source` is one of `SOURCES`. Head, backbone, widths and the number of classes are inferred; names and colours come
    from the checkpoint's meta data where it has them, else from the arguments. `align_corners` defaults to the
    source's: the config in an mmsegmentation checkpoint, else False; True for the official codes. Raises `ValueError`
    naming the first keys that do not fit.
    """
    pick("source", source, SOURCES)
    state, meta = _unwrap(checkpoint)
    model_name, table = _head(state, source)
    state = {key: value for key, value in state.items() if not _unused(key)}
    mapped = _map_keys(state, table, source)
    count = mapped["head.classifier.weight"].shape[0]
    names = classes or _meta(meta, "classes", count)
    backbone = _backbone_name(mapped, source)
    options = _options(mapped, model_name, source)
    if align_corners is None and source == "mmseg":
        align_corners = bool(re.search(r"align_corners\s*=\s*True", str(meta.get("config", meta.get("cfg", "")))))
    if align_corners is not None:
        options["align_corners"] = align_corners
    model = create_model(
        model_name,
        backbone,
        num_classes=None if names else count,
        classes=names,
        palette=palette or _meta(meta, "palette", count),
        wiring="mmseg" if source == "mmseg" else "official",
        **options,
    )
    mean, std = {
        "mmseg": (_IMAGENET["mean"], _IMAGENET["std"]),
        "ann-official": (_ANN_MEAN, _UNSCALED),
        "gald-official": (_GALD_MEAN, _UNSCALED),
    }[source]
    if source != "mmseg":
        first = "backbone.body.conv1.0.weight"
        mapped[first] = mapped[first].flip(1)
    assert model.config is not None
    model.config = changed(model.config, {"mean": mean, "std": std, "converted_from": source})
    mapped |= {"mean": torch.tensor(mean).view(1, 3, 1, 1), "std": torch.tensor(std).view(1, 3, 1, 1)}
    load_weights(model, mapped, f"the {source} checkpoint")
    return model.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a `.pth`, `.pt`, `.ckpt` or `.safetensors` file; tensors and plain values only, never code."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        return dict(read_weights(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} is no readable checkpoint of tensors ({reason}): it may be truncated, or hold Python objects; "
            "save its state dict alone and try again"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    return dict(content)


def to_mmseg(model: Segmenter) -> dict[str, Any]:
    """An ANN checkpoint as mmsegmentation loads it: `{"state_dict", "meta"}`, from a model in the mmseg wiring.

    Raises `ValueError` for other models and other wirings, naming the first key that has no place there.
    """
    config = model.config
    if config is None or config.model != "ann":
        raise ValueError("only ann can be written for mmsegmentation")
    mean, std = model.mean.flatten().tolist(), model.std.flatten().tolist()
    state: dict[str, Tensor] = {}
    own = {key: value for key, value in model.state_dict().items() if key not in ("mean", "std")}
    for source, ours in MMSEG_ANN.items():
        if source in ("backbone.conv1", "backbone.bn1") and "backbone.body.conv1.0.weight" in own:
            continue
        for key, value in own.items():
            if key.startswith(ours + "."):
                state[source + key[len(ours) :]] = value.detach().clone()
    written = {key for key in own if any(key.startswith(ours + ".") for ours in MMSEG_ANN.values())}
    extra = [key for key in own if key not in written] + [key for key in state if _has_extra_bias(key)]
    if extra:
        raise ValueError(f"mmsegmentation's ANN has no {extra[0]}: only models in the mmseg wiring can be written")
    meta = {
        "classes": model.classes,
        "palette": model.palette,
        "mean": [255 * value for value in mean],
        "std": [255 * value for value in std],
    }
    return {"state_dict": state, "meta": {"dataset_meta": meta, "CLASSES": model.classes, "PALETTE": model.palette}}


def _has_extra_bias(key: str) -> bool:
    return key.endswith(".conv.bias") and key.startswith(("decode_head", "auxiliary_head"))


def _unwrap(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The bare state dict (wrappers and a `module.` prefix removed), and meta data."""
    meta = checkpoint.get("meta", {})
    inner: Any = checkpoint
    for wrapper in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(inner, Mapping) and isinstance(inner.get(wrapper), Mapping):
            inner = inner[wrapper]
    state = {}
    for key, value in inner.items():
        if isinstance(value, Tensor):
            while key.startswith("module."):
                key = key[len("module.") :]
            state[key] = value
    if not state:
        raise ValueError(
            "the checkpoint holds no tensors: expected a state dict, or a dict with one under 'state_dict'"
        )
    return state, dict(meta) if isinstance(meta, Mapping) else {}


def _head(state: Mapping[str, Tensor], source: str) -> tuple[str, Table]:
    for key, model, table in HEADS[source]:
        if key in state:
            return model, table
    expected = " or ".join(key for key, _, _ in HEADS[source])
    raise ValueError(
        f"no known {source} head: expected the key {expected}; the checkpoint begins with {', '.join(list(state)[:3])}"
    )


def _unused(key: str) -> bool:
    """Classifiers of the ImageNet network that some checkpoints still carry, and normalisation buffers."""
    return key.startswith(("backbone.fc.", "fc.", "data_preprocessor."))


def _map_keys(state: Mapping[str, Tensor], table: Table, source: str) -> dict[str, Tensor]:
    prefixes = sorted(table, key=len, reverse=True)
    mapped: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        prefix = next((p for p in prefixes if key.startswith(p + ".")), None)
        if prefix is None:
            unknown.append(key)
            continue
        ours = table[prefix] + key[len(prefix) :]
        if ours in mapped and not torch.equal(mapped[ours], value):
            raise ValueError(
                f"{key} differs from the key it is tied to in {source}: key and query are one module there"
            )
        mapped[ours] = value
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys have no place, first: {', '.join(unknown[:3])}: is it a {source} checkpoint?"
        )
    if "head.classifier.weight" not in mapped:
        wanted = next(s for s, ours in table.items() if ours == "head.classifier")
        raise ValueError(f"the checkpoint is truncated: {wanted}.weight is missing")
    return mapped


def _backbone_name(mapped: Mapping[str, Tensor], source: str) -> str:
    blocks = [_blocks(mapped, layer) for layer in (1, 2, 3, 4)]
    basic = "backbone.body.layer1.0.conv3.weight" not in mapped
    depths = {"2, 2, 2, 2": 18, "3, 4, 6, 3": 34 if basic else 50, "3, 4, 23, 3": 101, "3, 8, 36, 3": 152}
    depth = depths.get(str(blocks)[1:-1])
    if depth is None:
        raise ValueError(
            f"the {source} backbone has {blocks} blocks in its layers: no known ResNet; is the file whole?"
        )
    if "backbone.body.conv1.weight" in mapped:
        return f"resnet{depth}"
    wide = mapped["backbone.body.conv1.0.weight"].shape[0] == 64
    return f"resnet{depth}{'s' if wide and not basic else 'c' if not basic else ''}"


def _blocks(mapped: Mapping[str, Tensor], layer: int) -> int:
    pattern = re.compile(rf"backbone\.body\.layer{layer}\.(\d+)\.")
    return 1 + max((int(m[1]) for key in mapped if (m := pattern.match(key))), default=-1)


def _options(mapped: Mapping[str, Tensor], model: str, source: str) -> dict[str, Any]:
    """Options of `create_model` read off the shapes."""

    def width(key: str) -> int:
        if key not in mapped:
            raise ValueError(f"the checkpoint is truncated: it has nothing for our {key}")
        return mapped[key].shape[0]

    options: dict[str, Any] = {"auxiliary": "auxiliary.classifier.weight" in mapped}
    if options["auxiliary"]:
        options["auxiliary_channels"] = width("auxiliary.convs.0.conv.weight")
    context = "head.context.branches.0"
    if model in ("ann", "nonlocal"):
        options |= {
            "key_channels": width(f"{context}.query.conv.weight"),
            "value_channels": width(f"{context}.value.conv.weight"),
        }
    channels = {
        "ann": "head.between",
        "nonlocal": "head.convs.0",
        "fcn": "head.convs.0",
        "psp": "head.aggregate.bottleneck",
        "aspp": "head.aggregate.bottleneck",
        "galdv1": "head.reduce",
    }[model]
    options["channels"] = width(f"{channels}.conv.weight")
    if model == "aspp":
        options["aggregate_channels"] = width("head.aggregate.image.conv.weight")
    if model == "galdv1":
        options["key_channels"] = width("head.aggregate.block.t.weight")
    if source == "gald-official":
        # Every block of stages 4 and 5 is dilated; GALDNet adds a multi-grid of (1, 2, 4), its PSPNet has none.
        options |= {"dilate_first": True} | ({"multi_grid": (1, 2, 4)} if model == "galdv1" else {})
    if source == "mmseg" and "backbone.body.layer1.0.conv3.weight" not in mapped:
        options["dilate_second"] = False
    small = _small_backbone(mapped)
    return {**options, "backbone_options": small} if small else options


def _small_backbone(mapped: Mapping[str, Tensor]) -> dict[str, Any]:
    """timm options of a ResNet whose widths differ from the named one's, or that has a deep stem where the name has none."""
    basic = "backbone.body.layer1.0.conv3.weight" not in mapped
    last = "conv2" if basic else "conv3"
    expansion = 1 if basic else 4
    widths = tuple(mapped[f"backbone.body.layer{n}.0.{last}.weight"].shape[0] // expansion for n in (1, 2, 3, 4))
    options: dict[str, Any] = {} if widths == (64, 128, 256, 512) else {"channels": list(widths)}
    stem = mapped.get("backbone.body.conv1.0.weight")
    if stem is not None and (basic or stem.shape[0] not in (32, 64)):
        options |= {"stem_type": "deep", "stem_width": stem.shape[0]}
    return options


def _meta(meta: Mapping[str, Any], name: str, count: int) -> Any:
    inner = meta.get("dataset_meta")
    value = inner.get(name) if isinstance(inner, Mapping) else None
    value = value if value is not None else meta.get(name.upper(), meta.get(name))
    return [item for item in value] if value is not None and len(value) == count else None
