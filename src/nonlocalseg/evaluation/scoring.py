"""`evaluate()`: a model against the labels of a data set, at the labels' own size, per class and per image."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nonlocalseg.boundaries import BoundaryMetric
from nonlocalseg.choices import pick
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.readers import WatchedLoader, told_by
from nonlocalseg.data.source import DataSource, settled_source
from nonlocalseg.evaluation.results import Evaluation, Settings
from nonlocalseg.exporting.fast_form import fastest
from nonlocalseg.images import channels_first
from nonlocalseg.inference.borrowed import evaluated, fingerprint, settled_view
from nonlocalseg.inference.engine import classify
from nonlocalseg.labels import check_same_classes
from nonlocalseg.metrics import bootstrap_mean_iou, class_counts, confusion_matrix, scores
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import SpedUp
from nonlocalseg.progress import track
from nonlocalseg.runtime import (
    HALF,
    Precision,
    gather,
    in_precision,
    join_processes,
    pick_device,
    rank,
    worker_count,
    world_size,
)
from nonlocalseg.values import changed, names_of
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained

BOUNDARY_IOU_DILATION = 0.02  # of the image's diagonal (Cheng et al., CVPR 2021)


def evaluate(
    model: str | Path | nn.Module,
    source: DataSource | None = None,
    view: View | None = None,
    *,
    setting: str | None = None,
    boundary: bool = False,
    precision: Precision = "32",
    fast: bool = False,
    device: str | torch.device | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **changes: object,
) -> Evaluation:
    """Measure a model on a labelled split.

    Under `torchrun` the images are dealt to the processes, each once, and every process returns the scores of all.

    Raises ValueError where the model's classes are not those of the data, where the split has no labels, and for
    options that make no sense; FileNotFoundError for a missing model or root.

    Args:
        model: folder of a run, a saved model, its name in the zoo or on the hub, or a model.
        source: the data; by default what the run was validated on, or a folder of images.
        view: how the model sees an image; by default `model.view`.
        setting: a paper's way to measure, one of `view.VIEWS`, instead of a view.
        boundary: measure boundary F (GALD, Table V) and Boundary IoU as well.
        precision: 32, bf16 or 16.
        fast: the fastest form of the model on this device, which may mean half precision; it says what it chose.
        device: cpu, cuda, ...; by default a GPU where there is one.
        workers: processes that read images, by default up to four.
        out: folder for the files, see `Evaluation.write`; by default none are written. Boundary scores that the same
            evaluation has left there are kept.
        progress: show progress.
        changes: fields of the source (data, root, split, ...) and of the view (mode, scales, ...), put over them.
    """
    asked = prepare(model, source, view, setting, precision, **changes)
    where = pick_device(device)
    join_processes(where)
    network = asked.network.to(where)
    if fast:
        network = _sped_up(network, where, precision)
        asked = asked.sped_up(network.choices)
        if progress and rank() == 0:
            print(f"fast: {', '.join(network.choices)}", file=sys.stderr, flush=True)
    num_classes = len(asked.classes)
    edges = BoundaryMetric(num_classes, dilation_ratio=BOUNDARY_IOU_DILATION) if boundary else None
    scenes = _Scenes(asked.parts)
    loader = WatchedLoader(scenes, scenes.file, worker_count(workers), batch_size=None)
    shown = track(loader, "evaluating", quiet=not progress or rank() > 0)
    with in_precision(where, precision), told_by([loader]):
        share = _measured(evaluated(network), shown, asked.settings.view.economical, where, num_classes, edges)
    result = _collected(gather(share), asked, edges)
    if out is not None:
        result = result.merged(out)
        if rank() == 0:
            result.write(out)
    return result


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model, the data and the settings of an evaluation, all of which fit together."""

    network: nn.Module
    parts: list[SegmentationDataset]
    settings: Settings

    @property
    def classes(self) -> tuple[str, ...]:
        return self.parts[0].classes

    @property
    def names(self) -> list[str]:
        """Of the images."""
        return [part.name(index) for part in self.parts for index in range(len(part))]

    def sped_up(self, choices: tuple[str, ...]) -> Prepared:
        return replace(self, settings=changed(self.settings, {"fast": choices}))


def prepare(
    model: str | Path | nn.Module,
    source: DataSource | None = None,
    view: View | None = None,
    setting: str | None = None,
    precision: Precision = "32",
    **changes: object,
) -> Prepared:
    """Everything that can be wrong with the arguments of `evaluate` is found here, before anything is measured."""
    for name in changes:
        pick("option", name, [*names_of(DataSource), *names_of(View)])
    of_view, of_source = ({n: given for n, given in changes.items() if n in names_of(k)} for k in (View, DataSource))
    pick("precision", precision, HALF)
    chosen = settled_source(None if isinstance(model, nn.Module) else model, source, of_source)
    network: nn.Module = model if isinstance(model, nn.Module) else from_pretrained(model)
    settings = Settings(
        model=type(model).__name__ if isinstance(model, nn.Module) else str(model),
        weights=fingerprint(network),
        source=chosen,
        view=settled_view(network, view, setting, of_view),
        setting=setting,
        precision=precision,
    )
    parts = chosen.labelled("evaluate against")
    check_same_classes(_classes_of(network), parts[0].classes, chosen.data)
    return Prepared(network, parts, settings)


def _classes_of(network: nn.Module) -> tuple[str, ...]:
    """The names of a model's classes; numbers where it has none."""
    named = tuple(getattr(network, "classes", None) or ())
    return named or tuple(map(str, range(getattr(network, "num_classes", 0))))


def _sped_up(network: nn.Module, device: torch.device, precision: str) -> SpedUp:
    if precision != "32":
        raise ValueError("--fast chooses the precision itself: leave out --precision")
    if not isinstance(network, Segmenter):
        raise ValueError("--fast is for models of this library")
    return fastest(network, device)


class _Scene(NamedTuple):
    name: str
    image: Tensor  # uint8 [3, H, W]
    label: Tensor  # uint8 [H, W]


class _Scenes(Dataset[_Scene | str]):
    """This process's share of the images; the message of its error for one that cannot be read, because an exception
    that leaves a worker process arrives as a printed traceback."""

    def __init__(self, parts: list[SegmentationDataset]) -> None:
        self.items = [(part, index) for part in parts for index in range(len(part))][rank() :: world_size()]

    def __len__(self) -> int:
        return len(self.items)

    def file(self, item: int) -> str:
        part, index = self.items[item]
        return part.file(index)

    def __getitem__(self, item: int) -> _Scene | str:
        part, index = self.items[item]
        try:
            image, label = part.read(index)
        except (ValueError, OSError) as error:
            return str(error)
        assert label is not None  # `labelled` has looked
        return _Scene(part.name(index), channels_first(image), torch.as_tensor(label))


class _Share(NamedTuple):
    """What one process found: the rows of its images and their counts, int64 [N, K, 3], the sum of their confusion
    matrices, and the seconds of inference."""

    rows: list[dict[str, Any]]
    counts: Tensor
    confusion: Tensor  # int64 [K, K + 1]
    seconds: float


def _measured(
    network: nn.Module,
    scenes: Iterable[_Scene | str],
    view: View,
    device: torch.device,
    num_classes: int,
    edges: BoundaryMetric | None,
) -> _Share:
    align_corners = bool(getattr(network, "align_corners", False))
    total = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    with tempfile.TemporaryFile() as file:  # 10,000 images of 171 classes have 41 MB of counts
        for scene in scenes:
            if isinstance(scene, str):
                raise ValueError(scene)
            start = time.perf_counter()
            prediction = classify(network, scene.image[None].to(device), view, align_corners=align_corners)[0]
            target = scene.label.to(device).long()
            confusion = confusion_matrix(prediction, target, num_classes).cpu()
            seconds += time.perf_counter() - start
            rows.append(_row(scene.name, confusion))
            file.write(class_counts(confusion).numpy().tobytes())
            total += confusion
            if edges is not None:
                edges.update(prediction, target)
        return _Share(rows, _mapped(file, (len(rows), num_classes, 3)), total, seconds)


def _mapped(file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    """The int64 in a file as a tensor, which is read as it is looked at; the file may be closed and removed."""
    file.flush()
    if not shape[0]:
        return torch.zeros(shape, dtype=torch.int64)
    return torch.as_tensor(np.memmap(file, np.int64, mode="c", shape=shape))


def _row(name: str, confusion: Tensor) -> dict[str, Any]:
    """Of `Evaluation.images`."""
    one = scores(confusion)
    return {"name": name, "miou": one.mean_iou, "pixel_accuracy": one.pixel_accuracy, "pixels": int(confusion.sum())}


def _collected(shares: list[_Share], asked: Prepared, edges: BoundaryMetric | None) -> Evaluation:
    """The images of all processes, in the order of the data; each was seen once."""
    count = sum(len(share.rows) for share in shares)
    rows = [shares[place % len(shares)].rows[place // len(shares)] for place in range(count)]
    counts = shares[0].counts
    if len(shares) > 1:
        counts = torch.empty(count, *counts.shape[1:], dtype=torch.int64)
        for place, share in enumerate(shares):
            counts[place :: len(shares)] = share.counts
    return Evaluation(
        scores=scores(torch.stack([share.confusion for share in shares]).sum(0)),
        classes=asked.classes,
        images=rows,
        counts=counts,
        interval=bootstrap_mean_iou(counts),
        seconds=sum(share.seconds for share in shares),
        settings=asked.settings,
        boundary=None if edges is None else edges.compute(),
    )
