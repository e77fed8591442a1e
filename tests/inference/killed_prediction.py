"""A prediction into one file by processes that kill themselves one after the other, each at a later moment; run by
test_unfinished.py."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nonlocalseg as nls
from nonlocalseg.inference import streaming, unfinished
from nonlocalseg.inference.features import FeatureStore
from nonlocalseg.inference.ledger import Ledger
from nonlocalseg.models.segmenter import Segmenter

DIED = 77
"""Of a process that met its moment and lives on."""


def at(owner: Any, name: str, count: int, half: bool = False) -> Callable[[], None]:
    """Dies in the `count`th call of a function; `half`: just after it instead of before."""

    def arm() -> None:
        original, calls = getattr(owner, name), [0]

        def deadly(*given: Any, **more: Any) -> Any:
            calls[0] += 1
            if half:
                original(*given, **more)
            if calls[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return None if half else original(*given, **more)

        setattr(owner, name, deadly)

    return arm


def before_its_place() -> None:
    """Dies when the answer is to get its name."""
    original = os.replace

    def deadly(source: Any, target: Any) -> None:
        if Path(target).name == f"classes.{sys.argv[2]}":
            os.kill(os.getpid(), signal.SIGKILL)
        original(source, target)

    os.replace = deadly


MOMENTS: dict[str, Callable[[], None]] = {
    "before the first tile": at(Segmenter, "features", 1),
    "while maps are stored": at(FeatureStore, "write", 7),
    "in the first pass": at(Ledger, "keep", 3),
    "between a sum and its number": at(streaming, "write_text", 2),
    "in the second pass": at(Ledger, "keep", 6, half=True),
    "between classes and their window": at(unfinished.FileCanvas, "write", 3, half=True),
    "when all is written": before_its_place,
}


def model() -> Segmenter:
    torch.manual_seed(0)
    small = {"channels": 8, "key_channels": 4, "value_channels": 4, "auxiliary": False}
    found = nls.create_model("ann", "test_resnet.r160_in1k", num_classes=5, **small).eval()
    for part in found.head.parameters():  # W_o starts at zero
        if not part.any():
            torch.nn.init.normal_(part, std=0.3)
    return found


def on_the_map(image: Path) -> Path:
    """The same pixels as a GeoTIFF."""
    import rasterio

    place, array = rasterio.transform.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), np.load(image)
    stored = {"width": 240, "height": 67, "count": 3, "dtype": "uint8", "crs": "EPSG:32632", "transform": place}
    with rasterio.open(image.with_name("ortho.tif"), "w", driver="GTiff", **stored) as file:
        file.write(np.moveaxis(array, -1, 0))
    return image.with_name("ortho.tif")


def main(image: Path, answer: Path) -> None:
    torch.set_num_threads(1)
    network = model()
    nls.predict_into(network, image, answer.with_name(f"whole{answer.suffix}"), crop=(64, 96))
    for moment, arm in MOMENTS.items():
        child = os.fork()
        if not child:
            arm()
            nls.predict_into(network, image, answer, crop=(64, 96))
            os._exit(DIED)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            sys.exit(f"{moment}: the process ended with {status} and was not killed")
        if answer.exists():
            sys.exit(f"{moment}: {answer} is there before it is whole")
        print(moment, (answer.parent / f".{answer.name}.unfinished/sweep0/steps.txt").exists(), flush=True)
    passes: list[int] = []
    network.backbone.register_forward_hook(lambda _, given, __: passes.append(1) if not given[0].is_meta else None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nls.predict_into(network, image, answer, crop=(64, 96))
    print(f"{len(passes)} passes")
    print(next(str(one.message) for one in caught if "goes on" in str(one.message)))


if __name__ == "__main__":
    given = Path(sys.argv[1])
    main(given if sys.argv[2] == "npy" else on_the_map(given), given.with_name(f"classes.{sys.argv[2]}"))
