"""Checkpoints of the zoo end to end: mmsegmentation's own `inference_model` against `nonlocalseg predict`.

    python -m benchmarks.mmsegmentation_zoo PHOTO ... [--models ann psp ...] [--json FILE]

It needs the packages of benchmarks/requirements.txt. One network of every head of the zoo is built at its full width from
mmsegmentation's config, filled with drawn weights and written as the file that the zoo would serve. It is then fetched from
a folder as a mirror, converted and saved, and `nonlocalseg predict` labels the photographs as the entry says.

Drawn weights would give every pixel the same class by a hair's breadth. So batch norms take the statistics of crops of the
photographs, as a training would have left them, residual branches are scaled by 0.2 and queries behind batch norms by 0.05,
since with 1 the network blows up rounding until mmsegmentation's own float32 and float64 differ by 4e-4 (8e-4 in isa),
parts that begin at zero are drawn, and the classifier is scaled until each class has mean 0 and deviation 1 over all
photographs.
Differences of scores are in these units.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks.literal_operators import without_operators
from benchmarks.mmsegmentation import import_mmsegmentation
from benchmarks.zoo_catalog import configs
from nonlocalseg.cli import main as run
from nonlocalseg.images import channels_first, read_image, read_mask
from nonlocalseg.inference.engine import infer
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.timing.tables import Row, Table, write_json
from nonlocalseg.zoo.download import digest_of
from nonlocalseg.zoo.entries import Entry, all_entries
from nonlocalseg.zoo.loading import converted

HEADINGS = {
    "entry": "checkpoint",
    "photograph": "photograph",
    "classes": "classes",
    "same": "equal pixels %",
    "error": "difference of scores",
}
SAME, EXACT = 99.99, 1e-4
CROP, CROPS = 128, 4
WINDOWED = {"isa": 256}
"""Crops that hold many of the windows that a head attends in, where it does."""
BRANCH, QUERIES = 0.2, 0.05


def of_every_head() -> dict[str, Entry]:
    """By model, the entry whose images are smallest: ResNet-50 on ADE20K where there is one."""

    def cost(entry: Entry) -> tuple[bool, bool, int, str]:
        pixels = (entry.view.short_side or 0) * (entry.view.long_side or 0)
        return entry.view.mode == "slide", "r50" not in entry.backbone, pixels, entry.name

    models = sorted({entry.model for entry in all_entries()})
    return {model: min((entry for entry in all_entries() if entry.model == model), key=cost) for model in models}


def their_model(entry: Entry, photographs: Sequence[np.ndarray]) -> Any:
    """mmsegmentation's network of an entry, with drawn weights."""
    from mmengine.config import Config  # pyright: ignore[reportMissingImports]  # of benchmarks/requirements.txt
    from mmseg.apis import init_model  # pyright: ignore[reportMissingImports]  # of the same

    config = Config.fromfile(configs()[entry.name])
    config.model = without_processes(config.model)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses class names, which are not compared
        model = init_model(config, device="cpu")
    without_operators(model)
    draw(model, photographs, WINDOWED.get(entry.model, CROP))
    return model


def without_processes(given: Any) -> Any:
    """Batch norm of one process, which trains on a CPU."""
    if isinstance(given, dict):
        return {name: without_processes(item) for name, item in given.items()}
    if isinstance(given, (list, tuple)):
        return [without_processes(item) for item in given]
    return "BN" if given == "SyncBN" else given


@torch.no_grad()
def draw(model: Any, photographs: Sequence[np.ndarray], side: int) -> None:
    """Weights that tell pixels apart: see above."""
    for parameter in model.parameters():
        if not parameter.any() and parameter.ndim != 1:
            parameter.normal_(0, 0.7 if parameter.ndim == 0 else parameter[0].numel() ** -0.5)
        elif not parameter.any() and parameter.numel() == 1:
            parameter.fill_(0.7)
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        if norm.weight is not None and not norm.weight.any():
            nn.init.ones_(norm.weight)
    for name, part in model.backbone.named_modules():
        if name.startswith("layer") and name.endswith(".bn3"):
            part.weight.fill_(BRANCH)
    for name, part in model.decode_head.named_modules():
        if "query_project" in name and isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.weight.fill_(QUERIES)
    mean, std = (
        torch.tensor(numbers).view(3, 1, 1) for numbers in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    wholes = [(channels_first(photograph).float() - mean) / std for photograph in photographs]
    crops = torch.stack([whole[:, y : y + side, x : x + side] for whole in wholes for y, x in corners(whole, side)])
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    scores_of(model, crops)
    model.eval()
    decode = model.decode_head
    for head in decode if isinstance(decode, nn.ModuleList) else [decode]:
        kept: list[Tensor] = []
        hook = head.conv_seg.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output[0].flatten(1)))
        for whole in wholes:
            scores_of(model, whole[None])
        hook.remove()
        found = torch.cat(kept, 1)
        head.conv_seg.bias.sub_(found.mean(1)).div_(found.std(1))
        head.conv_seg.weight.div_(found.std(1)[:, None, None, None])


def corners(whole: Tensor, side: int) -> list[tuple[int, int]]:
    """Of crops that do not overlap."""
    rows, columns = (range(0, size - side + 1, side) for size in whole.shape[1:])
    return list(itertools.product(rows, columns))[:CROPS]


def scores_of(model: Any, images: Tensor) -> Tensor:
    size = tuple(images.shape[2:])
    return model.encode_decode(images, [{"img_shape": size, "ori_shape": size, "pad_shape": size}] * len(images))


def ours_of(entry: Entry, theirs: nn.Module, folder: Path) -> Segmenter:
    """Their weights as a file of the zoo, from a mirror, as a model of ours."""
    file = folder / "drawn.pth"
    torch.save({"state_dict": theirs.state_dict(), "meta": {}}, file)
    digest = digest_of(file)[:8]
    served = replace(entry, digest=digest, address=f"https://nowhere.invalid/{entry.name}-{digest}.pth")
    file.rename(folder / served.file)
    model = converted(served, str(folder))
    (folder / served.file).unlink()
    return model


def compare(entry: Entry, photographs: Sequence[Path]) -> Iterable[Row]:
    from mmseg.apis import inference_model  # pyright: ignore[reportMissingImports]  # of benchmarks/requirements.txt

    theirs = their_model(entry, [read_image(photograph) for photograph in photographs])
    with tempfile.TemporaryDirectory() as place:
        os.environ["NONLOCALSEG_CACHE"] = f"{place}/cache"
        folder = Path(place)
        ours = ours_of(entry, theirs, folder)
        ours.save_pretrained(folder / "model")
        words = ["predict", str(folder / "model"), *map(str, photographs), "--out", str(folder / "out")]
        if code := run([*words, "--device", "cpu"]):
            raise SystemExit(code)
        for photograph in photographs:
            image = read_image(photograph)
            found = inference_model(theirs, np.ascontiguousarray(image[..., ::-1]))
            expected, mask = found.seg_logits.data, found.pred_sem_seg.data[0].numpy()
            scores = infer(ours, channels_first(image)[None], entry.view, align_corners=ours.align_corners)[0]
            written = read_mask(folder / "out" / "index" / f"{photograph.name}.png")
            yield {
                "model": entry.model,
                "entry": entry.name,
                "photograph": photograph.name,
                "classes": len(np.unique(mask)),
                "same": 100 * float((written == mask).mean()),
                "error": float((scores - expected).abs().max()),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTO")
    entries = of_every_head()
    parser.add_argument("--models", nargs="+", choices=list(entries), default=list(entries))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    import_mmsegmentation()
    rows: list[Row] = []
    for model in options.models:
        start = time.perf_counter()
        for row in compare(entries[model], options.photographs):
            rows.append(row)
            print(*(f"{row[name]:.6g}" if name in ("same", "error") else row[name] for name in HEADINGS), flush=True)
        print(f"{model}: {time.perf_counter() - start:.0f} s", flush=True)
    table = Table("mmsegmentation's inference_model against nonlocalseg predict", HEADINGS, rows)
    Console(highlight=False, width=150).print(table.shown())
    if options.json:
        write_json(options.json, [table])
    wrong = [row for row in rows if row["same"] < SAME or row["error"] > EXACT]
    if wrong:
        raise SystemExit(f"error: {len(wrong)} of {len(rows)} differ by more than {100 - SAME:.2g} % or {EXACT:g}")


if __name__ == "__main__":
    main()
