"""The zoo's catalog and the key listings that its test needs, from a table of facts and mmsegmentation's configs.

    python -m benchmarks.zoo_catalog FACTS.json

FACTS.json lists the published checkpoints: name, data set, crop, schedule, figures, address, digest, test settings. The
networks come from the configs of the same names that mmsegmentation installs, each stored once. It needs the packages of
benchmarks/requirements.txt and writes `src/nonlocalseg/zoo/mmsegmentation.json` and `tests/golden/zoo_keys.json.gz`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path
from typing import Any

import torch

from benchmarks.mmsegmentation import import_mmsegmentation

ROOT = Path(__file__).resolve().parents[1]
CATALOG = ROOT / "src" / "nonlocalseg" / "zoo" / "mmsegmentation.json"
KEYS = ROOT / "tests" / "golden" / "zoo_keys.json.gz"
CLASSES = 23  # occurs in no other shape: a placeholder for the number of classes
# What the facts call a data set -> its key in DATASETS.
DATA = {
    "Cityscapes": "cityscapes",
    "# ResNet backbone": "cityscapes",
    "ADE20K": "ade20k",
    "Pascal VOC 2012 + Aug": "voc2012",
    "Pascal Context": "pascal_context",
    "Pascal Context 59": "pascal_context",
    "COCO-Stuff 10k": "coco_stuff_10k",
    "COCO-Stuff 164k": "coco_stuff_164k",
    "LoveDA": "loveda",
    "Potsdam": "potsdam",
    "Vaihingen": "vaihingen",
    "iSAID": "isaid",
    "Mapillary Vistas v1.2": "mapillary_vistas",
}
# Digests whose files say by their names that the published index put them beside another network or schedule; two other
# names there have their first letter twice.
CORRECTED = {
    "d5730af7": "deeplabv3plus_r101-d8_4xb4-80k_ade20k-512x512",
    "9092b254": "pspnet_r50-d32_4xb2-80k_cityscapes-512x1024",
    "d3c8a29e": "deeplabv3plus_r101-d8_4xb4-40k_pascal-context-480x480",
    "145d3ee8": "deeplabv3plus_r101-d8_4xb4-80k_pascal-context-480x480",
    "cf9ce186": "deeplabv3plus_r101-d16-mg124_4xb2-40k_cityscapes-512x1024",
    "c43fcef1": "emanet_r50-d8_4xb2-80k_cityscapes-512x1024",
}
# Their class of the last head -> our key of MODELS.
MODEL_OF = {
    "ANNHead": "ann",
    "APCHead": "apc",
    "ASPPHead": "aspp",
    "CCHead": "ccnet",
    "DAHead": "danet",
    "DepthwiseSeparableASPPHead": "deeplabv3plus",
    "DMHead": "dm",
    "DNLHead": "dnl",
    "EMAHead": "emanet",
    "EncHead": "encnet",
    "FCNHead": "fcn",
    "GCHead": "gcnet",
    "ISAHead": "isa",
    "NLHead": "nonlocal",
    "OCRHead": "ocr",
    "PSAHead": "psanet",
    "PSPHead": "psp",
    "UPerHead": "upernet",
}
# Has no effect on what a checkpoint computes.
_TRAINING = {"loss_decode", "sampler", "norm_cfg", "norm_eval", "init_cfg", "pretrained", "train_cfg", "ignore_index"}


def plain(given: Any) -> Any:
    if isinstance(given, dict):
        return {str(name): plain(item) for name, item in given.items() if name not in _TRAINING}
    return [plain(item) for item in given] if isinstance(given, (list, tuple)) else given


def configs() -> dict[str, Path]:
    """mmsegmentation's configs by name."""
    import mmseg  # pyright: ignore[reportMissingImports]  # of benchmarks/requirements.txt

    assert mmseg.__file__ is not None
    folder = Path(mmseg.__file__).parent / ".mim" / "configs"
    return {path.stem: path for path in folder.glob("*/*.py")}


def heads_of(network: dict[str, Any]) -> list[dict[str, Any]]:
    found = [network[name] for name in ("decode_head", "auxiliary_head") if network.get(name)]
    return [head for one in found for head in (one if isinstance(one, list) else [one])]


def network_of(path: Path) -> dict[str, Any]:
    """The model of a config, without what only training reads and the number of classes."""
    from mmengine.config import Config  # pyright: ignore[reportMissingImports]  # of benchmarks/requirements.txt

    network = plain(Config.fromfile(path).model.to_dict())
    for name in ("data_preprocessor", "test_cfg"):
        network.pop(name, None)
    for head in heads_of(network):
        head.pop("num_classes", None)
    return network


def listing(path: Path) -> dict[str, list[Any]]:
    """Key -> shape of the live network, K for the number of classes."""
    from mmengine.config import Config  # pyright: ignore[reportMissingImports]  # of benchmarks/requirements.txt
    from mmengine.registry import init_default_scope  # pyright: ignore[reportMissingImports]  # of the same

    models, _ = import_mmsegmentation()
    init_default_scope("mmseg")
    config = Config.fromfile(path).model
    config.pretrained = None
    for head in heads_of(config):
        head["num_classes"] = CLASSES
    with torch.device("meta"):
        network = models.build_segmentor(config)
    return {
        key: ["K" if size == CLASSES else size for size in value.shape] for key, value in network.state_dict().items()
    }


def backbone_of(name: str) -> str:
    """As in pspnet_r101-d8_..., or mobilenet-v2-d8_fcn_..."""
    first, second = name.split("_")[:2]
    return first if first.startswith("mobilenet") else second


def schedule_of(name: str) -> str:
    found = re.search(r"(\d+k)_", name)
    assert found is not None, name
    return found[1]


def size_of(keys: dict[str, list[Any]], num_classes: int) -> int:
    """Bytes of the tensors in float32."""
    total = 0
    for shape in keys.values():
        count = 1
        for size in shape:
            count *= num_classes if size == "K" else size
        total += 4 * count
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("facts", type=Path)
    facts = json.loads(parser.parse_args().facts.read_text())
    known = configs()
    networks: list[dict[str, Any]] = []
    keys: list[dict[str, list[Any]]] = []
    entries = []
    for fact in facts:
        name = str(CORRECTED.get(fact["sha8"], fact["name"]))
        network = network_of(known[name])
        if network not in networks:
            networks.append(network)
            keys.append(listing(known[name]))
        index = networks.index(network)
        num_classes = fact.get("num_classes") or {"Cityscapes": 19}[fact["dataset"]]
        twin = next(other for other in facts if other["crop"] == fact["crop"] and "test_cfg" in other)
        entries.append(
            {
                "name": name,
                "network": index,
                "model": MODEL_OF[heads_of(network)[0 if not isinstance(network["decode_head"], list) else 1]["type"]],
                "backbone": backbone_of(name),
                "data": DATA[fact["dataset"]],
                "num_classes": num_classes,
                "crop": fact["crop"],
                "schedule": schedule_of(name),
                "batch_size": fact["batch_size"],
                "miou": fact["miou"],
                "miou_flip": fact["miou_ms"],
                "test": fact.get("test_cfg", twin["test_cfg"]),
                "address": fact["weights"],
                "digest": fact["sha8"],
                "megabytes": round(size_of(keys[index], num_classes) / 1e6),
            }
        )
    names = [entry["name"] for entry in entries]
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise SystemExit(f"error: named twice: {', '.join(sorted(double))}")
    lines = ",\n".join(json.dumps(entry) for entry in sorted(entries, key=lambda entry: entry["name"]))
    shown = ",\n".join(json.dumps(network) for network in networks)
    CATALOG.write_text(f'{{"networks": [\n{shown}\n],\n"entries": [\n{lines}\n]}}\n')
    with gzip.GzipFile(KEYS, "wb", mtime=0) as file:
        file.write(json.dumps(keys).encode())
    print(
        f"{len(entries)} checkpoints of {len(networks)} networks; {CATALOG.stat().st_size:,} and {KEYS.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
