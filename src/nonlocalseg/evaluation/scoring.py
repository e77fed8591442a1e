"""`evaluate()`: a model against the labels of a data set, at the labels' own size, per class and per image."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nonlocalseg.boundaries import BoundaryMetric
from nonlocalseg.choices import pick
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.source import DataSource
from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.images import channels_first
from nonlocalseg.inference.borrowed import evaluated
from nonlocalseg.inference.engine import classify
from nonlocalseg.labels import check_same_classes
from nonlocalseg.metrics import bootstrap_mean_iou, class_counts, confusion_matrix, scores
from nonlocalseg.models.hub import from_pretrained
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import SpedUp, speed_up
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
from nonlocalseg.values import changed, names_of, plain
from nonlocalseg.view import WHOLE, View, find_view

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
        model: folder of a run, a saved model, its name on the hub, or a model.
        source: the data; by default a folder of images.
        view: how the model sees an image; by default whole, once.
        setting: a paper's way to measure, one of `view.VIEWS`, instead of a view.
        boundary: measure boundary F (GALD, Table V) and Boundary IoU as well.
        precision: 32, bf16 or 16.
        fast: the fastest form of the model on this device, which may mean half precision; it says what it chose.
        device: cpu, cuda, ...; by default a GPU where there is one.
        workers: processes that read images, by default up to four.
        out: folder for the files, see `Evaluation.write`; by default none are written.
        progress: show progress.
        changes: fields of the source (data, root, split, ...) and of the view (mode, scales, ...), put over them.
    """
    source, view = _settled(source or DataSource(data="folder"), view, setting, changes)
    where = pick_device(device)
    join_processes(where)
    console = Console(quiet=not progress or rank() > 0, stderr=True)
    network: nn.Module = model if isinstance(model, nn.Module) else from_pretrained(model)
    scenes = _Scenes(source.labelled("evaluate against"))
    check_same_classes(_classes_of(network), scenes.classes, source.data)
    network.to(where)
    chosen: dict[str, Any] = {"precision": pick("precision", precision, HALF)}
    if fast:
        network = _sped_up(network, where, precision)
        chosen = {"fast": list(network.choices)}
        console.print(f"fast: {', '.join(network.choices)}", highlight=False)
    edges = BoundaryMetric(len(scenes.classes), dilation_ratio=BOUNDARY_IOU_DILATION) if boundary else None
    loader = DataLoader(scenes, batch_size=None, num_workers=worker_count(workers))
    with in_precision(where, precision):
        shown = track(loader, "evaluating", console=console)
        share = _measured(evaluated(network), shown, view, where, len(scenes.classes), edges)
    settings = _settings(model, source, setting, view) | chosen
    result = _collected(gather(share), scenes.classes, settings, edges)
    if out is not None and rank() == 0:
        result.write(out)
    return result


def _settled(
    source: DataSource, view: View | None, setting: str | None, changes: Mapping[str, object]
) -> tuple[DataSource, View]:
    """Both values with the changes put over them; ValueError where a named setting stands beside another view."""
    of_source, of_view = set(names_of(DataSource)), set(names_of(View))
    for name in changes:
        pick("option", name, [*names_of(DataSource), *names_of(View)])
    seen = {name: given for name, given in changes.items() if name in of_view}
    if setting is not None:
        named = find_view(setting)
        others = [name for name in names_of(View) if view is not None and getattr(view, name) != getattr(WHOLE, name)]
        if name := next(iter((*seen, *others)), None):
            raise ValueError(f"--setting {setting} fixes --{name.replace('_', '-')}: give one of the two")
        view = named
    source = changed(source, {name: given for name, given in changes.items() if name in of_source})
    return source, changed(view or WHOLE, seen).economical


def _settings(model: object, source: DataSource, setting: str | None, view: View) -> dict[str, Any]:
    """What is measured and how, as JSON holds it."""
    name = str(model) if isinstance(model, (str, Path)) else type(model).__name__
    named = {"setting": setting} if setting else {}
    return {"model": name, "data": source.data, "split": source.split, **named, **plain(view)}


def _classes_of(network: nn.Module) -> tuple[str, ...]:
    """The names of a model's classes; numbers where it has none."""
    named = tuple(getattr(network, "classes", None) or ())
    return named or tuple(map(str, range(getattr(network, "num_classes", 0))))


def _sped_up(network: nn.Module, device: torch.device, precision: str) -> SpedUp:
    if precision != "32":
        raise ValueError("--fast chooses the precision itself: leave out --precision")
    if not isinstance(network, Segmenter):
        raise ValueError("--fast is for models of this library")
    return speed_up(network, device)


class _Scene(NamedTuple):
    name: str
    image: Tensor  # uint8 [3, H, W]
    label: Tensor  # uint8 [H, W]


class _Scenes(Dataset[_Scene | str]):
    """This process's share of the images; the message of its error for one that cannot be read, because an exception
    that leaves a worker process arrives as a printed traceback."""

    def __init__(self, parts: list[SegmentationDataset]) -> None:
        self.classes = parts[0].classes
        self.items = [(part, index) for part in parts for index in range(len(part))][rank() :: world_size()]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> _Scene | str:
        part, index = self.items[item]
        try:
            image, label = part.read(index)
        except (ValueError, OSError) as error:
            return str(error)
        assert label is not None  # `labelled` has looked
        return _Scene(part.name(index), channels_first(image), torch.from_numpy(label))


class _Share(NamedTuple):
    """What one process found: name and confusion matrix of each of its images, and the seconds of inference."""

    found: list[tuple[str, Tensor]]
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
    found, seconds = [], 0.0
    for scene in scenes:
        if isinstance(scene, str):
            raise ValueError(scene)
        start = time.perf_counter()
        prediction = classify(network, scene.image[None].to(device), view, align_corners=align_corners)[0]
        target = scene.label.to(device).long()
        found.append((scene.name, confusion_matrix(prediction, target, num_classes).cpu()))
        seconds += time.perf_counter() - start
        if edges is not None:
            edges.update(prediction, target)
    return _Share(found, seconds)


def _collected(
    shares: list[_Share], classes: tuple[str, ...], settings: dict[str, Any], edges: BoundaryMetric | None
) -> Evaluation:
    """The images of all processes, in the order of the data; each was seen once."""
    longest = max(len(share.found) for share in shares)
    found = [share.found[i] for i in range(longest) for share in shares if i < len(share.found)]
    rows = []
    for name, confusion in found:
        one = scores(confusion)
        accuracies = {"miou": one.mean_iou, "pixel_accuracy": one.pixel_accuracy}
        rows.append({"name": name, **accuracies, "pixels": int(confusion.sum())})
    every = torch.stack([confusion for _, confusion in found])  # [N, K, K + 1]
    counts = class_counts(every)
    return Evaluation(
        scores=scores(every.sum(0)),
        classes=classes,
        images=rows,
        counts=counts,
        interval=bootstrap_mean_iou(counts),
        seconds=sum(share.seconds for share in shares),
        settings=settings,
        boundary=None if edges is None else edges.compute(),
    )
