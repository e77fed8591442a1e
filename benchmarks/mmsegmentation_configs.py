"""Every distinct network that mmsegmentation 1.2.2's own configs describe, and some more: equal here, or refused by name.

    python -m benchmarks.mmsegmentation_configs [--configs FOLDER] [--out tests/conversion/mmseg_configs.json]

It needs the packages of benchmarks/requirements.txt. Of every config the
fields that decide the network are kept, once for each distinct network of a head that is known here; `VARIANTS` are
networks that none of them describes. Those that can be converted are then built at small widths there, filled with weights
drawn by key, written as one of their checkpoints, converted and compared; a digest of their keys and a few of their scores
are kept, so that tests/conversion/test_mmseg_configs.py can compare again without mmsegmentation.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.literal_operators import without_operators
from benchmarks.mmsegmentation import import_mmsegmentation
from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.config_text import write
from nonlocalseg.conversion.mmseg_config import from_mmseg_config
from nonlocalseg.conversion.mmseg_rules import RULES

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "conversion")]
from golden_files import portable_fill  # noqa: E402  # the tests' own weights by key
from small_configs import digest, small  # noqa: E402  # what the tests build

WITHOUT_EFFECT = {"loss_decode", "init_cfg", "pretrained", "norm_eval", "with_cp", "frozen_stages", "train_cfg"}
WITHOUT_EFFECT |= {
    "test_cfg",
    "sampler",
    "ignore_index",
    "size",
    "batch_augments",
    "pad_val",
    "seg_pad_val",
    "threshold",
}
WITHOUT_EFFECT |= {"zero_init_residual", "data_preprocessor", "num_classes"}
SIZE, KEPT = (65, 49), 12
EXACT = 1e-5


def read_configs(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, model) of every config."""
    from mmengine.config import Config  # pyright: ignore[reportMissingImports]  # beside mmsegmentation

    for path in sorted(folder.glob("[!_]*/*.py")):
        model: Any = Config.fromfile(path, import_custom_modules=False).get("model")
        if model is not None and model.get("decode_head"):
            yield path.relative_to(folder).as_posix(), json.loads(json.dumps(model.to_dict(), default=str))


_EPS = {"type": "SyncBN", "requires_grad": True, "eps": 1e-3}
_D32, _D16 = ([1, 2, 2, 2], [1, 1, 1, 1]), ([1, 2, 2, 1], [1, 1, 1, 2])
# name: the config that it starts with, and what is changed in it.
VARIANTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "V1d": ("ann/ann_r50-d8", {"backbone.type": "ResNetV1d"}),
    "V1d of 18 layers": ("pspnet/pspnet_r18-d8", {"backbone.type": "ResNetV1d"}),
    "34 layers, all blocks dilated": (
        "pspnet/pspnet_r18-d8",
        {"backbone.depth": 34, "backbone.contract_dilation": False},
    ),
    "V1d, d16": (
        "ann/ann_r50-d8",
        {"backbone.type": "ResNetV1d", "backbone.strides": _D16[0], "backbone.dilations": _D16[1]},
    ),
    "plain": ("ann/ann_r50-d8", {"backbone.type": "ResNet"}),
    "plain with a deep stem": ("ann/ann_r50-d8", {"backbone.type": "ResNet", "backbone.deep_stem": True}),
    "caffe": ("ann/ann_r50-d8", {"backbone.style": "caffe"}),
    "caffe, d32": (
        "ann/ann_r50-d8",
        {"backbone.style": "caffe", "backbone.strides": _D32[0], "backbone.dilations": _D32[1]},
    ),
    "all blocks dilated": ("ann/ann_r50-d8", {"backbone.contract_dilation": False}),
    "multi-grid": ("ann/ann_r50-d8", {"backbone.multi_grid": [1, 2, 4]}),
    "eps": (
        "ann/ann_r50-d8",
        {"backbone.norm_cfg": _EPS, "decode_head.norm_cfg": _EPS, "auxiliary_head.norm_cfg": _EPS},
    ),
    "d16": ("ann/ann_r50-d8", {"backbone.strides": _D16[0], "backbone.dilations": _D16[1]}),
    "d32": ("ann/ann_r50-d8", {"backbone.strides": _D32[0], "backbone.dilations": _D32[1]}),
    "dilated and strided": ("ann/ann_r50-d8", {"backbone.strides": [1, 2, 2, 2], "backbone.dilations": [1, 1, 2, 4]}),
    "other anchors": ("ann/ann_r50-d8", {"decode_head.key_pool_scales": [1, 2, 4]}),
    "another fusion": ("ann/ann_r50-d8", {"decode_head.in_index": [1, 3], "decode_head.in_channels": [512, 2048]}),
    "other pools": ("pspnet/pspnet_r50-d8", {"decode_head.pool_scales": [1, 4]}),
    "other rates": ("deeplabv3/deeplabv3_r50-d8", {"decode_head.dilations": [1, 2, 5]}),
    "decoder of other rates": ("deeplabv3plus/deeplabv3plus_r50-d8", {"decode_head.dilations": [1, 2, 5]}),
    "products": ("nonlocal_net/nonlocal_r50-d8", {"decode_head.mode": "dot_product"}),
    "unscaled": ("nonlocal_net/nonlocal_r50-d8", {"decode_head.use_scale": False, "decode_head.reduction": 4}),
    "products, disentangled": ("dnlnet/dnl_r50-d8", {"decode_head.mode": "dot_product"}),
    "unscaled, disentangled": ("dnlnet/dnl_r50-d8", {"decode_head.use_scale": False, "decode_head.temperature": 0.5}),
    "context multiplied": (
        "gcnet/gcnet_r50-d8",
        {"decode_head.pooling_type": "avg", "decode_head.fusion_types": ["channel_mul"], "decode_head.ratio": 0.5},
    ),
    "context of both": ("gcnet/gcnet_r50-d8", {"decode_head.fusion_types": ["channel_add", "channel_mul"]}),
    "once": ("ccnet/ccnet_r50-d8", {"decode_head.recurrence": 1}),
    "lateral": (
        "encnet/encnet_r50-d8",
        {"decode_head.add_lateral": True, "decode_head.use_se_loss": False, "decode_head.num_codes": 5},
    ),
    "collected": (
        "psanet/psanet_r50-d8",
        {"decode_head.psa_type": "collect", "decode_head.psa_softmax": False, "decode_head.shrink_factor": 1},
    ),
    "distributed": (
        "psanet/psanet_r50-d8",
        {"decode_head.psa_type": "distribute", "decode_head.normalization_factor": 2.0},
    ),
    "other windows": ("isanet/isanet_r50-d8", {"decode_head.down_factor": [2, 3]}),
    "not joined": (
        "emanet/emanet_r50-d8",
        {"decode_head.concat_input": False, "decode_head.num_stages": 2, "decode_head.num_bases": 5},
    ),
    "not fused": ("apcnet/apcnet_r50-d8", {"decode_head.fusion": False, "decode_head.pool_scales": [1, 4]}),
    "fused": ("dmnet/dmnet_r50-d8", {"decode_head.fusion": True, "decode_head.filter_sizes": [3, 1]}),
    "fewer laterals": (
        "upernet/upernet_r50",
        {"decode_head.in_channels": [512, 1024, 2048], "decode_head.in_index": [1, 2, 3]},
    ),
}


def variant(start: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(dict(start))
    for field, value in changes.items():
        part, _, name = field.rpartition(".")
        found[part][name] = value
    return found


def decisive(given: Any) -> Any:
    """Without what does not decide the network."""
    if isinstance(given, Mapping):
        return {name: decisive(item) for name, item in given.items() if name not in WITHOUT_EFFECT}
    return [decisive(item) for item in given] if isinstance(given, list) else given


def their_network(model: Mapping[str, Any]) -> Any:
    """Theirs at small widths, in evaluation, with weights drawn by key."""
    models, _ = import_mmsegmentation()
    from mmengine.config import ConfigDict  # pyright: ignore[reportMissingImports]  # beside mmsegmentation

    given = {name: item for name, item in small(model).items() if name != "type"}
    built = getattr(models, str(model["type"]))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs: nn.Module = built(**given, train_cfg={}, test_cfg=ConfigDict(mode="whole")).eval()
    without_operators(theirs)
    theirs.load_state_dict(portable_fill({key: list(value.shape) for key, value in theirs.state_dict().items()}))
    return theirs


@torch.no_grad()
def scores(theirs: Any, model: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Theirs and ours at the image's size, of one image."""
    image = portable_fill({"image": [1, 3, *SIZE]})["image"]
    config = {
        "data_preprocessor": {"mean": [0, 0, 0], "std": [255, 255, 255], "bgr_to_rgb": True},
        "model": small(model),
    }
    checkpoint = {"state_dict": theirs.state_dict(), "meta": {"cfg": write(config)}}
    ours = convert(checkpoint, "mmseg")(image)["out"]
    return theirs.encode_decode(image, [{"img_shape": SIZE}]), ours


def case(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """A case of the data file: the config, and why it is refused or a few of their scores."""
    try:
        found = from_mmseg_config({"model": model})
    except ValueError as error:
        return {"name": name, "model": model, "refused": str(error)}
    network = their_network(model)
    theirs, ours = scores(network, model)
    worst = float((theirs - ours).abs().max() / theirs.abs().max())
    print(f"{worst:.1e}  {name}", flush=True)
    if not worst <= EXACT:
        raise SystemExit(f"error: {name} differs by {worst:.2g} of the largest score")
    kept = theirs.flatten()[:: theirs.numel() // KEPT][:KEPT]
    ours_of = [found.model, found.backbone, found.options]
    rounded = [float(f"{score:.6g}") for score in kept]
    known = {key: item for key, item in network.state_dict().items() if not key.startswith(left_out(found.options))}
    return {"name": name, "model": model, "ours": ours_of, "keys": digest(known), "scores": rounded}


def left_out(options: Mapping[str, object]) -> tuple[str, ...]:
    """What their keys begin with that have no place here: an auxiliary head of another form."""
    return () if options["auxiliary"] else ("auxiliary_head.",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, help="mmsegmentation's configs; those of the installed package")
    parser.add_argument("--out", type=Path, default=Path("tests/conversion/mmseg_configs.json"))
    own = parser.parse_args()
    models, _ = import_mmsegmentation()
    folder = own.configs or Path(models.__file__).parents[1] / ".mim" / "configs"
    heads = {rule.theirs for rule in RULES}
    cases: dict[str, dict[str, Any]] = {}
    for name, model in read_configs(folder):
        decode = model["decode_head"]
        last = decode[-1] if isinstance(decode, list) else decode
        if last["type"] in heads and json.dumps(decisive(model)) not in cases:
            cases[json.dumps(decisive(model))] = case(name, decisive(model))
    own_networks = len(cases)
    for name, (start, changes) in VARIANTS.items():
        base = next(found for found in cases.values() if found["name"].startswith(start))
        model = variant(base["model"], changes)
        cases[json.dumps(model)] = case(f"{start}, {name}", model)
    own.out.write_text(
        "[\n" + ",\n".join(json.dumps(found, separators=(",", ":")) for found in cases.values()) + "\n]\n"
    )
    refused = sum("refused" in found for found in cases.values())
    print(f"{own_networks} networks of theirs and {len(cases) - own_networks} more:", end=" ")
    print(f"{len(cases) - refused} equal, {refused} refused; {own.out}")


if __name__ == "__main__":
    main()
