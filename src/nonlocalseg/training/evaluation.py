"""`evaluate()`: a saved model against the labels of a data set, at the labels' own size, per class and per image."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.inference import check_options, evaluating, infer
from nonlocalseg.metrics import BoundaryMetric, bootstrap_mean_iou, confusion_matrix, scores
from nonlocalseg.models.hub import from_pretrained
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import SpedUp, speed_up
from nonlocalseg.training.datamodule import open_data
from nonlocalseg.training.recipes import Phase
from nonlocalseg.training.results import Evaluation
from nonlocalseg.training.settings import InferenceSetting, find_setting

BOUNDARY_IOU_DILATION = 0.02  # of the image's diagonal (Cheng et al., CVPR 2021)


def evaluate(
    model: str | Path | nn.Module,
    data: str = "folder",
    root: str | None = None,
    split: str = "val",
    *,
    mode: Literal["whole", "slide"] = "whole",
    crop: int | tuple[int, int] | None = None,
    stride: float | tuple[float, float] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    average: Literal["probabilities", "logits"] = "probabilities",
    short_side: int | None = None,
    setting: str | None = None,
    boundary: bool = False,
    precision: Literal["32", "bf16", "16"] = "32",
    fast: bool = False,
    data_options: Mapping[str, Any] | None = None,
    device: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure a model on a labelled split.

    Under `torchrun` the images are dealt to the processes, each once, and every process returns the scores of all.

    Raises ValueError where the model's classes are not those of the data, where the split has no labels, and for
    options that make no sense; FileNotFoundError for a missing model or root.

    Args:
        model: folder of a run, a saved model, its name on the hub, or a model.
        data: name of the data set.
        root: folder of the data.
        split: split to measure on; several joined with +.
        mode: whole images, or windows that slide over them.
        crop: height and width of the windows.
        stride: step between windows, in pixels or as a part of the crop.
        scales: factors at which every image is seen; the scores are averaged.
        flip: see every image mirrored as well.
        average: what is averaged over windows, scales and flips.
        short_side: pixels to which the shorter side of every image is brought first; by default images keep their size.
        setting: a paper's way to measure, instead of the options above from mode on: ann-single,
            ann-cityscapes-test, ann-ade20k, ann-pascal-context, gald-crop, gald-whole, gald-multi-scale or
            gald-crop-multi-scale.
        boundary: measure boundary F (GALD, Table V) and Boundary IoU as well.
        precision: 32, bf16 or 16.
        fast: the fastest form of the model on this device, which may mean half precision; it says what it chose.
        data_options: further options of the data set.
        device: cpu, cuda, ...; by default a GPU where there is one.
        workers: processes that read images.
        out: folder for the files, see `Evaluation.write`; by default none are written.
        progress: show progress.
    """
    options = dict(mode=mode, crop=crop, stride=stride, scales=tuple(scales), flip=flip, average=average)
    options["short_side"] = short_side
    if setting is not None:
        options = _named(setting, options)
    check_options(**{name: value for name, value in options.items() if name != "flip"})  # pyright: ignore
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    where, rank, processes = _processes(where)
    network: nn.Module = model if isinstance(model, nn.Module) else from_pretrained(model)
    parts = open_data(Phase(data=data, root=root, data_options=data_options or {}), split)
    classes = parts[0].classes
    _check_classes(network, classes, data)
    if options["mode"] == "whole" and options["scales"] == (1.0,) and not options["flip"]:
        options["average"] = "logits"  # one pass: nothing to average
    half = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}[precision]
    network.to(where)
    console = Console(quiet=not progress or rank > 0, stderr=True)
    chosen: dict[str, Any] = {"precision": precision}
    if fast:
        network = _sped_up(network, where, precision)
        chosen = {"fast": list(network.choices)}
        console.print(f"fast: {', '.join(network.choices)}", highlight=False)
    found: list[tuple[str, Tensor]] = []
    edges = BoundaryMetric(len(classes), dilation_ratio=BOUNDARY_IOU_DILATION).to(where) if boundary else None
    seconds = 0.0
    loader = DataLoader(
        _Read(parts, rank, processes),
        batch_size=None,
        num_workers=min(4, os.cpu_count() or 1) if workers is None else workers,
    )
    with evaluating(network), torch.autocast(where.type, dtype=half, enabled=half is not None):
        for name, image, label in track(loader, "evaluating", console=console):
            if image is None:
                raise ValueError(label)
            if label is None:
                raise ValueError(f"{root or data}: the split {split!r} has no labels to evaluate against")
            start = time.perf_counter()
            logits = infer(network, image[None].to(where), align_corners=network.align_corners, **options)  # pyright: ignore
            prediction, target = logits.argmax(1)[0], label.to(where).long()
            found.append((name, confusion_matrix(prediction, target, len(classes)).cpu()))
            seconds += time.perf_counter() - start
            if edges is not None:
                edges.update(prediction, target)
    named = {"setting": setting} if setting else {}
    settings = {
        "model": str(model) if isinstance(model, (str, Path)) else type(model).__name__,
        "data": data,
        "split": split,
        **named,
        **options,
        **chosen,
    }
    if processes > 1:
        found, seconds = _gathered(found, seconds, processes)
    result = _collect(found, classes, seconds, settings, edges)
    if out is not None and rank == 0:
        result.write(out)
    return result


def _named(setting: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a named setting; ValueError where one of them is given as well."""
    fixed = find_setting(setting).options
    plain = InferenceSetting("").options
    for name, value in given.items():
        if value != plain[name]:
            raise ValueError(f"--setting {setting} fixes --{name.replace('_', '-')}: give one of the two")
    return fixed


def _processes(device: torch.device) -> tuple[torch.device, int, int]:
    """This process's device, its rank and how many there are; joins those that `torchrun` started."""
    if device.type == "cuda" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)  # NCCL gathers objects through the current device
    if dist.is_available() and not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    joined = dist.is_available() and dist.is_initialized()
    return (device, dist.get_rank(), dist.get_world_size()) if joined else (device, 0, 1)


def _gathered(
    found: list[tuple[str, Tensor]], seconds: float, processes: int
) -> tuple[list[tuple[str, Tensor]], float]:
    """What all processes found, in the order of the data, and their seconds together; each image was seen once."""
    shares: list[Any] = [None] * processes
    dist.all_gather_object(shares, (found, seconds))
    longest = max(len(share) for share, _ in shares)
    merged = [share[i] for i in range(longest) for share, _ in shares if i < len(share)]
    return merged, sum(part for _, part in shares)


def _sped_up(network: nn.Module, device: torch.device, precision: str) -> SpedUp:
    if precision != "32":
        raise ValueError("--fast chooses the precision itself: leave out --precision")
    if not isinstance(network, Segmenter):
        raise ValueError("--fast is for models of this library")
    return speed_up(network, device)


class _Read(Dataset):
    """(name, image uint8 [3, H, W], label uint8 [H, W] or None); (name, None, message) for what cannot be read."""

    def __init__(self, parts: list[SegmentationDataset], rank: int, processes: int) -> None:
        self.items = [(part, index) for part in parts for index in range(len(part))][rank::processes]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[str, Tensor | None, Tensor | str | None]:
        part, index = self.items[item]
        try:
            image, label = part.read(index)
        except (ValueError, OSError) as error:
            return part.name(index), None, str(error)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return part.name(index), pixels, None if label is None else torch.from_numpy(label)


def _check_classes(network: nn.Module, classes: tuple[str, ...], data: str) -> None:
    """ValueError where the model cannot have been trained for these classes."""
    known = tuple(getattr(network, "classes", ()) or ())
    count = getattr(network, "num_classes", len(known))
    if count != len(classes):
        raise ValueError(
            f"the model predicts {count} classes and {data} has {len(classes)}: evaluate it on its own data"
        )
    if set(known) == set(classes) and known != tuple(classes):
        raise ValueError(f"the model and {data} have the same classes in another order: bring them into one order")


def _collect(
    found: list[tuple[str, Tensor]],
    classes: tuple[str, ...],
    seconds: float,
    settings: dict[str, Any],
    edges: BoundaryMetric | None,
) -> Evaluation:
    rows = []
    for name, confusion in found:
        one = scores(confusion)
        rows.append(
            {
                "name": name,
                "miou": one.mean_iou,
                "pixel_accuracy": one.pixel_accuracy,
                "pixels": int(confusion.sum()),
            }
        )
    every = torch.stack([confusion for _, confusion in found])  # [N, K, K + 1]
    hits = every.diagonal(dim1=1, dim2=2)  # [N, K]
    counts = torch.stack([hits, every[..., :-1].sum(1) - hits, every.sum(2) - hits], dim=2)
    boundary = None if edges is None else edges.compute()
    return Evaluation(
        scores(every.sum(0)), classes, rows, counts, bootstrap_mean_iou(counts), seconds, settings, boundary
    )
