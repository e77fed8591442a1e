"""Every distinct network that mmsegmentation 1.2.2's own configs describe: equal here, or refused by name.

    python -m benchmarks.mmsegmentation_configs [--configs FOLDER] [--out tests/conversion/mmseg_configs.json]

It needs the packages of benchmarks/requirements.txt. Of every config the fields that decide the network are kept, once
for each distinct network. Those that can be converted are then built there at small widths, filled with weights drawn
by key, written as one of their checkpoints, converted and compared; a few of their scores are kept, so that
tests/conversion/test_mmseg_configs.py can compare again without mmsegmentation.
"""

from __future__ import annotations

import argparse
import contextlib
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
from small_configs import small  # noqa: E402  # what the tests build

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
    """(file, model) of every config that can be read with mmsegmentation's packages alone."""
    from mmengine.config import Config  # pyright: ignore[reportMissingImports]  # beside mmsegmentation

    for path in sorted(folder.glob("[!_]*/*.py")):
        with contextlib.suppress(Exception):  # some configs import packages that are not here
            model: Any = Config.fromfile(path).get("model")
            if model is not None and model.get("decode_head"):
                yield path.relative_to(folder).as_posix(), json.loads(json.dumps(model.to_dict(), default=str))


def decisive(given: Any) -> Any:
    """Without what does not decide the network."""
    if isinstance(given, Mapping):
        return {name: decisive(item) for name, item in given.items() if name not in WITHOUT_EFFECT}
    return [decisive(item) for item in given] if isinstance(given, list) else given


def scores(model: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Theirs and ours at stage 5's size or the decoder's, of one image."""
    models, _ = import_mmsegmentation()
    from mmengine.config import ConfigDict  # pyright: ignore[reportMissingImports]  # beside mmsegmentation

    given = {name: item for name, item in small(model).items() if name != "type"}
    built = getattr(models, str(model["type"]))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs: nn.Module = built(**given, train_cfg={}, test_cfg=ConfigDict(mode="whole")).eval()
    without_operators(theirs)
    theirs.load_state_dict(portable_fill({key: list(value.shape) for key, value in theirs.state_dict().items()}))
    image = portable_fill({"image": [1, 3, *SIZE]})["image"]
    with torch.no_grad():
        features: Any = theirs
        their_scores = features.encode_decode(image, [{"img_shape": SIZE}])
        config = {
            "data_preprocessor": {"mean": [0, 0, 0], "std": [255, 255, 255], "bgr_to_rgb": True},
            "model": small(model),
        }
        checkpoint = {"state_dict": theirs.state_dict(), "meta": {"cfg": write(config)}}
        return their_scores, convert(checkpoint, "mmseg")(image)["out"]


def case(name: str, model: dict[str, Any]) -> dict[str, Any]:
    """A case of the data file: the config, and why it is refused or a few of their scores."""
    try:
        found = from_mmseg_config({"model": model})
    except ValueError as error:
        return {"name": name, "model": model, "refused": str(error)}
    theirs, ours = scores(model)
    worst = float((theirs - ours).abs().max() / theirs.abs().max().clamp(min=1.0))
    print(f"{worst:.1e}  {name}", flush=True)
    if worst > EXACT:
        raise SystemExit(f"error: {name} differs by {worst:.2g} of the largest score")
    kept = theirs.flatten()[:: theirs.numel() // KEPT][:KEPT]
    ours_of = [found.model, found.backbone, found.options]
    rounded = [round(float(score), 5) for score in kept]
    return {"name": name, "model": model, "ours": ours_of, "scores": rounded}


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
    own.out.write_text(
        "[\n" + ",\n".join(json.dumps(found, separators=(",", ":")) for found in cases.values()) + "\n]\n"
    )
    refused = sum("refused" in found for found in cases.values())
    print(f"{len(cases)} networks: {len(cases) - refused} equal, {refused} refused; {own.out}")


if __name__ == "__main__":
    main()
