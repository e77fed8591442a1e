"""Models of ours in mmsegmentation itself: files of `convert --to mmseg`, loaded there by the config that they carry.

    python -m benchmarks.mmsegmentation_back [--only ann ...]

It needs the packages of benchmarks/requirements.txt. The networks are those of tests/conversion/mmseg_configs.json that can
be converted: one of every head, and those that no config of mmsegmentation describes; at small widths. Each is filled with
weights drawn by key, its norms with the statistics of a few images; written by the command line; built by mmsegmentation's
`init_model` from the text in the file; and compared, first in what its preprocessor makes of uint8 BGR, then in its scores
at the image's size, in float64, because drawn attentions blow up the rounding of the pixels.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.literal_operators import without_operators
from benchmarks.mmsegmentation import import_mmsegmentation
from benchmarks.mmsegmentation_configs import EXACT, TESTS
from nonlocalseg.cli import main as run
from nonlocalseg.conversion.mmseg_config import from_mmseg_config
from nonlocalseg.conversion.reading import read_checkpoint
from nonlocalseg.models.creation import create_model
from nonlocalseg.models.segmenter import Segmenter

sys.path[:0] = [str(TESTS), str(TESTS / "conversion")]
from golden_files import portable_fill  # noqa: E402  # the tests' own weights by key
from small_configs import small  # noqa: E402  # what the tests build

SIZE = (97, 65)


def chosen(cases: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By name: one network of every head, and all that are not of their own configs."""
    found: dict[str, dict[str, Any]] = {}
    heads: set[str] = set()
    for case in cases:
        if "refused" not in case and (case["ours"][0] not in heads or ", " in case["name"]):
            heads.add(case["ours"][0])
            found[case["name"]] = case
    return found


def drawn(model: dict[str, Any]) -> Segmenter:
    """Our network of a config, with its weights by key."""
    found = from_mmseg_config({"model": small(model)})
    made = create_model(found.model, found.backbone, num_classes=3, wiring="mmseg", **found.options)
    shapes = {key: list(value.shape) for key, value in made.state_dict().items() if key not in ("mean", "std")}
    made.load_state_dict(portable_fill(shapes), strict=False)
    norms = [part for part in made.eval().modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    generator = torch.Generator().manual_seed(0)
    brightness, grain = (torch.rand(4, 3, *size, generator=generator) for size in ((1, 1), SIZE))
    with torch.no_grad():
        made((brightness + grain) / 2)
    return made.eval()


def difference(ours: Segmenter, folder: Path) -> float:
    """The largest difference of a normalised pixel, or of any score from the same pixels relative to the largest score."""
    import_mmsegmentation()
    from mmengine.config import Config  # pyright: ignore[reportMissingImports]  # of benchmarks/requirements.txt
    from mmseg.apis import init_model  # pyright: ignore[reportMissingImports]  # of the same

    ours.save_pretrained(folder / "ours")
    file = folder / "theirs.pth"
    status = run(["convert", str(folder / "ours"), "--to", "mmseg", "--out", str(file)])
    if status:
        raise SystemExit(f"error: convert ended with {status}")
    text: Any = read_checkpoint(file)["meta"]
    config = Config.fromstring(text["cfg"], ".py")
    with contextlib.redirect_stdout(io.StringIO()):
        theirs: Any = init_model(config, str(file), device="cpu")
    without_operators(theirs)
    if list(theirs.dataset_meta["classes"]) != list(ours.classes):
        raise SystemExit("error: the class names differ")
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    with torch.no_grad():
        seen = theirs.data_preprocessor({"inputs": [pixels.flip(0)]}, False)["inputs"]
        prepared = float((seen - ours.normalise(pixels[None].float() / 255)).abs().max())
        seen, theirs, ours = seen.double(), theirs.double(), ours.double()
        expected = theirs.inference(seen, [{"img_shape": SIZE, "ori_shape": SIZE, "pad_shape": SIZE}])
        found = ours(seen * ours.std + ours.mean)["out"]
    return max(prepared, float((expected - found).abs().max() / expected.abs().max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="of our heads")
    own = parser.parse_args()
    warnings.simplefilter("ignore")
    found = chosen(json.loads((TESTS / "conversion" / "mmseg_configs.json").read_text()))
    worst = []
    for name, case in found.items():
        if own.only and case["ours"][0] not in own.only:
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            worst.append(difference(drawn(case["model"]), Path(folder)))
        print(f"{worst[-1]:.1e}  {case['ours'][0]:14} {name}", flush=True)
        if not worst[-1] <= EXACT:
            raise SystemExit(f"error: {name} differs by {worst[-1]:.2g} of the largest score")
    print(f"{len(worst)} networks: at most {max(worst, default=0):.1e} of the largest score")


if __name__ == "__main__":
    main()
