"""What the page tells: a run's plan, model and curves, its images, and its evaluation, measured here where there is none."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.source import DataSource, settled_source
from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.evaluation.scoring import evaluate
from nonlocalseg.exporting.loading import ExportedModel
from nonlocalseg.inference.borrowed import fingerprint, settled_view
from nonlocalseg.inference.predictor import predict
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.storage import BEST, CONFIG
from nonlocalseg.training.folder import RECIPE
from nonlocalseg.training.plan import Plan, read_plan
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained, pretrained_network

Curve = tuple[list[float], list[float]]  # steps, values
Curves = Mapping[str, Mapping[str, Curve]]
"""Column of metrics.csv -> phase ("" where there is one) -> curve; empty columns are left out."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The data that the model is measured on: its images in the order of the evaluation."""

    source: DataSource
    parts: list[SegmentationDataset]

    @property
    def items(self) -> list[tuple[SegmentationDataset, int]]:
        return [(part, index) for part in self.parts for index in range(len(part))]

    @property
    def names(self) -> list[str]:
        return [part.name(index) for part, index in self.items]

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] and label uint8 [H, W], 255 where nothing is labelled."""
        part, index = self.items[row]
        image, label = part.read(index)
        assert label is not None  # the source was asked for labelled images
        return image, label


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that the sections read. model: what is measured, the network of the run or a file exported of it."""

    run: Path
    plan: Plan
    network: Segmenter
    model: Segmenter | ExportedModel
    measured: Measured
    evaluation: Evaluation
    curves: Curves
    device: torch.device

    @property
    def view(self) -> View:
        """How the model saw the images in the evaluation."""
        return self.evaluation.settings.view

    def predict(self, image: np.ndarray) -> np.ndarray:
        """int64 [H, W], seen as in the evaluation."""
        return predict(self.model, image, self.view).mask.numpy()


def open_run(run: Path) -> Plan:
    """The plan of a run with a trained model. Raises FileNotFoundError that says what RUN lacks."""
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: there is no such run; give the folder that `nonlocalseg train` wrote")
    if not (run / RECIPE).is_file():
        raise FileNotFoundError(f"{run} is no run, it holds no {RECIPE}; give the folder that `train` wrote")
    if not (run / BEST / CONFIG).is_file():
        raise FileNotFoundError(
            f"{run} holds no {BEST}/ yet; go on with `nonlocalseg train --resume {run}` until its first checkpoint"
        )
    return read_plan(run / RECIPE)


def open_measured(run: Path, given: Mapping[str, object]) -> Measured:
    """The data to measure on: the fields of `DataSource` that are given, and for the rest what was validated on last.

    Raises ValueError and FileNotFoundError that name the option which would help.
    """
    source = settled_source(run, None, given)
    try:
        return Measured(source, source.labelled("report on"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; if the data has moved, say where it is with --root DIR") from None
    except ValueError as error:
        raise ValueError(f"{error} (--data, --root, --split and --data-options say what to measure on)") from None


def find_evaluation(folder: Path, model: nn.Module, measured: Measured, view: View) -> Evaluation | None:
    """The newest evaluation, boundaries included, in the folder, of these images, seen so, by these weights.

    Those in full precision go before others. Passed over is what cannot be read.
    """
    weights, found = fingerprint(model), []
    for path in sorted(folder.glob("*.json")):
        if path.stem.endswith("-comparison"):
            continue
        try:
            evaluation = Evaluation.read(path)
        except (ValueError, OSError):
            continue
        settings = evaluation.settings
        same = (settings.weights, settings.source) == (weights, measured.source)
        same = same and settings.view.economical == view.economical and evaluation.boundary is not None
        if same and [row["name"] for row in evaluation.images] == measured.names:
            plain = settings.precision == "32" and not settings.fast
            found.append((plain, path.stat().st_mtime, evaluation))
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def gather_findings(
    run: Path,
    plan: Plan,
    measured: Measured,
    seen: tuple[str | None, Mapping[str, object]],
    file: Path | None,
    device: torch.device,
    workers: int | None,
    progress: bool,
) -> Findings:
    """Load the model, and evaluate it, boundaries included, where RUN/evaluation does not hold that yet.

    seen: how the model sees images: a named setting, and changes of its view. file: one that was exported of it, which
    is measured in its place, and whose evaluation lies in RUN/evaluation/NAME.
    """
    network = pretrained_network(run).to(device)
    model = network if file is None else from_pretrained(file).to(device)
    if model.classes != network.classes:
        raise ValueError(f"--file: {file} has other classes than {run}: give a file that was exported of its model")
    folder = run / "evaluation" / ("" if file is None else file.name)
    view = settled_view(model, None, *seen)
    evaluation = find_evaluation(folder, model, measured, view)
    if evaluation is None:
        evaluation = evaluate(
            run if file is None else file,
            measured.source,
            view,
            boundary=True,
            device=str(device),
            workers=workers,
            out=folder,
            progress=progress,
        )
    return Findings(run, plan, network, model, measured, evaluation, read_curves(run, len(plan.phases)), device)


def read_curves(run: Path, phases: int) -> Curves:
    """The columns of metrics.csv, of each phase where there are several; nothing where a file is missing."""
    files = {"": run / "metrics.csv"}
    if phases > 1:
        files = {f"phase {n}": run / f"phase-{n}" / "metrics.csv" for n in range(1, phases + 1)}
    curves: dict[str, dict[str, Curve]] = {}
    for phase, path in files.items():
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if name != "step" and value and math.isfinite(float(value)):
                        steps, values = curves.setdefault(name, {}).setdefault(phase, ([], []))
                        steps.append(float(row["step"]))
                        values.append(float(value))
    return curves
