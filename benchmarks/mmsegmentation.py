"""ANN against mmsegmentation's own, with the same weights: head, whole network, training step; and the compared heads.

    python -m benchmarks.mmsegmentation head|network|train [--size 64 128] [--depth 50] [--device cuda] [--json FILE]
    python -m benchmarks.mmsegmentation heads [--only danet ...]     # whole heads
    python -m benchmarks.mmsegmentation parts [--only danet ...]     # what attends in them

It needs the packages of benchmarks/requirements.txt. mmsegmentation's model is built with drawn weights, written as one
of its checkpoints and converted, as any checkpoint would be; results must then agree. The size is that of the feature
map for head, of the image for network and of the crop for train.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from nonlocalseg.blocks.basic import to_channels_last
from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.losses import SegmentationLoss
from nonlocalseg.models.folding import fold
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import speed_up
from nonlocalseg.runtime import pick_device
from nonlocalseg.timing.measuring import Case, compare, surroundings
from nonlocalseg.timing.tables import COMPARISON, Row, Table, write_json

CLASSES = 19
SIZES = {"head": (64, 128), "network": (512, 1024), "train": (480, 480), "heads": (64, 128), "parts": (64, 128)}
LAST = torch.channels_last


class _NoOperators(types.ModuleType):
    """In place of mmcv's compiled operators, which mmcv-lite lacks and mmsegmentation imports."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


def import_mmsegmentation() -> tuple[Any, Any]:
    """(mmseg.models, mmseg.structures); exits with the cure where a package is missing."""
    sys.modules.setdefault("mmcv._ext", _NoOperators("mmcv._ext"))
    try:
        import mmseg.models
        import mmseg.structures
    except ImportError as error:
        raise SystemExit(f"error: {error}; pip install --no-deps -r benchmarks/requirements.txt") from None
    return mmseg.models, mmseg.structures


def their_model(depth: int, align_corners: bool = False) -> nn.Module:
    """mmsegmentation's configs/_base_/models/ann_r50-d8.py, with plain batch norm and drawn weights."""
    models, _ = import_mmsegmentation()
    from mmengine.config import ConfigDict  # pyright: ignore[reportMissingImports]  # its fields are read as attributes

    norm = {"type": "BN", "requires_grad": True}
    head = {"num_classes": CLASSES, "norm_cfg": norm, "align_corners": align_corners, "dropout_ratio": 0.1}
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": False}
    model = models.EncoderDecoder(
        backbone={
            "type": "ResNetV1c",
            "depth": depth,
            "num_stages": 4,
            "out_indices": (0, 1, 2, 3),
            "dilations": (1, 1, 2, 4),
            "strides": (1, 2, 1, 1),
            "norm_cfg": norm,
            "norm_eval": False,
            "style": "pytorch",
            "contract_dilation": True,
        },
        decode_head={
            "type": "ANNHead",
            "in_channels": [1024, 2048],
            "in_index": [2, 3],
            "channels": 512,
            "project_channels": 256,
            "query_scales": (1,),
            "key_pool_scales": (1, 3, 6, 8),
            "loss_decode": {**loss, "loss_weight": 1.0},
            **head,
        },
        auxiliary_head={
            "type": "FCNHead",
            "in_channels": 1024,
            "in_index": 2,
            "channels": 256,
            "num_convs": 1,
            "concat_input": False,
            "loss_decode": {**loss, "loss_weight": 0.4},
            **head,
        },
        train_cfg={},
        test_cfg=ConfigDict(mode="whole"),
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Conv2d) and not part.weight.any():  # W_o starts at zero
                nn.init.normal_(part.weight, std=part.weight[0].numel() ** -0.5)
            if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.75, 1.25)
    return model


def ours_of(theirs: nn.Module) -> Segmenter:
    return convert({"state_dict": theirs.state_dict()}, "mmseg")


def heads(size: tuple[int, int], depth: int, device: torch.device) -> list[Case]:
    """Their ANNHead and ours on the same stages."""
    theirs = their_model(depth).eval().to(device)
    model = ours_of(theirs).to(device)
    plain, folded = model.head, fold(model).head
    stages = [torch.randn(1, channels, *size, device=device).relu_() for channels in (1024, 2048)]
    features = dict(zip((4, 5), stages, strict=True))
    given = [stages[0][:, :1], stages[0][:, :1], *stages]  # stages 2 and 3 are not read
    decode: Any = theirs.decode_head
    last = {stage: x.contiguous(memory_format=LAST) for stage, x in features.items()}
    folded_last = to_channels_last(fold(model).head)
    return [
        Case("mmsegmentation", lambda: decode(given)),
        Case("ours", lambda: plain(features), "mmsegmentation"),
        Case("ours, folded", lambda: folded(features), "mmsegmentation"),
        Case("ours, folded, channels_last", lambda: folded_last(last), "mmsegmentation"),
    ]


def networks(size: tuple[int, int], depth: int, device: torch.device) -> list[Case]:
    """Scores at the image's size, from the normalised image in theirs and from [0, 1] in ours."""
    theirs: Any = their_model(depth).eval().to(device)
    model = ours_of(theirs).to(device)
    image = torch.rand(1, 3, *size, device=device)
    last, normalised = image.contiguous(memory_format=LAST), model.normalise(image)
    meta = [{"ori_shape": size, "img_shape": size, "pad_shape": size, "padding_size": [0, 0, 0, 0]}]
    folded = fold(model)
    folded_last = to_channels_last(fold(model))
    fast = speed_up(model, device)
    base = "mmsegmentation"

    def their_scores() -> Tensor:
        return theirs.inference(normalised, meta)

    def their_half_scores() -> Tensor:
        with torch.autocast(device.type, torch.float16):
            return theirs.inference(normalised, meta)

    cases = [
        Case(base, their_scores),
        Case("ours", lambda: model(image)["out"], base),
        Case("ours, folded", lambda: folded(image)["out"], base),
        Case("ours, folded, channels_last", lambda: folded_last(last)["out"], base),
        Case(f"ours: {', '.join(fast.choices)}", lambda: fast(last)["out"], base, counted=device.type != "cuda"),
    ]
    if device.type == "cuda":
        cases.insert(1, Case("mmsegmentation, float16", their_half_scores, base))
    return cases


def steps(size: tuple[int, int], depth: int, device: torch.device, batch_size: int) -> list[Case]:
    """One SGD step with cross-entropy on both heads, in float32; in theirs the accuracy it logs as well."""
    _, structures = import_mmsegmentation()
    from mmengine.structures import PixelData

    images = torch.rand(batch_size, 3, *size, device=device)
    labels = torch.randint(CLASSES, (batch_size, *size), device=device)
    samples = []
    for label in labels:
        sample = structures.SegDataSample()
        sample.gt_sem_seg = PixelData(data=label[None])
        sample.set_metainfo({"img_shape": size})
        samples.append(sample)
    theirs: Any = their_model(depth).train().to(device)
    loss = SegmentationLoss(ohem=False)
    normalised = ours_of(theirs).to(device).normalise(images)

    def their_loss() -> Tensor:
        losses: dict[str, Tensor] = theirs.loss(normalised, samples)
        return torch.stack([value for name, value in losses.items() if "loss" in name]).sum()

    def our_loss(model: Segmenter, given: Tensor) -> Callable[[], Tensor]:
        return lambda: loss(model(given), labels)["loss"]

    ours = ours_of(theirs).train().to(device)
    ours_last = to_channels_last(ours_of(theirs).train().to(device))
    last = images.contiguous(memory_format=LAST)
    base = "mmsegmentation"
    return [
        Case(base, stepper(theirs, their_loss), gradients=True),
        Case("ours", stepper(ours, our_loss(ours, images)), base, True),
        Case("ours, channels_last", stepper(ours_last, our_loss(ours_last, last)), base, True),
    ]


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Forward, backward and an optimizer step so small that every run begins from nearly the same weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9, weight_decay=5e-4)
    for part in model.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0  # so that the losses can be compared; its arithmetic remains

    def run() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return run


def compared(what: str, names: list[str] | None, size: tuple[int, int], device: torch.device, repeat: int) -> Table:
    """Every compared head against theirs, or what attends in them."""
    from benchmarks import attending_parts, compared_heads  # which need this file

    if what == "parts":
        rows = [attending_parts.part_row(name, size, device, repeat) for name in names or attending_parts.PARTS]
        headings = {key: text for key, text in compared_heads.HEADINGS.items() if key in rows[0]}
        title = f"What attends in heads, against mmsegmentation's, {size[0]}x{size[1]}: time, memory, multiply-adds"
        return Table(title, headings, rows, surroundings(device), attending_parts.NOTES)
    rows = [compared_heads.compared_row(name, size, device, repeat) for name in names or compared_heads.COMPARED]
    title = f"Heads against mmsegmentation's on stages of a ResNet-50, {size[0]}x{size[1]}: error, time, memory, multiply-adds"
    return Table(title, compared_heads.HEADINGS, rows, surroundings(device), compared_heads.NOTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(SIZES), nargs="?", help="one comparison; by default all")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of the compared heads")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--depth", type=int, default=50, choices=(50, 101), help="of the ResNet")
    parser.add_argument("--batch-size", type=int, default=2, help="of the training step")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", help="by default a GPU where there is one")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    device = pick_device(options.device)
    tables = []
    for what in [options.what] if options.what else list(SIZES):
        size = (options.size[0], options.size[1]) if options.size else SIZES[what]
        if what in ("heads", "parts"):
            tables.append(compared(what, options.only, size, device, options.repeat))
            Console(highlight=False, width=160).print(tables[-1].shown())
            continue
        if what == "head":
            cases = heads(size, options.depth, device)
        elif what == "network":
            cases = networks(size, options.depth, device)
        else:
            cases = steps(size, options.depth, device, options.batch_size)
        rows: list[Row] = compare(cases, device, options.repeat)
        for row in rows:
            row["share"] = row["multiply_adds"] and row["multiply_adds"] / rows[0]["multiply_adds"]
        title = f"ANN with ResNet-{options.depth} against mmsegmentation's: {what}, {size[0]}x{size[1]}"
        tables.append(Table(title, {**COMPARISON, "share": "of their operations"}, rows, surroundings(device)))
        Console(highlight=False, width=130).print(tables[-1].shown())
    if options.json:
        write_json(options.json, tables)


if __name__ == "__main__":
    main()
