"""What the page tells: the run's recipe, model and curves, its evaluation, measured here where there is none, and its images."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.inference import predict
from nonlocalseg.models.hub import CONFIG, from_pretrained
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.training.datamodule import open_data
from nonlocalseg.training.evaluation import evaluate
from nonlocalseg.training.options import Plan, read_plan
from nonlocalseg.training.recipes import Phase
from nonlocalseg.training.results import Evaluation

Curve = tuple[list[float], list[float]]  # steps, values


@dataclass(frozen=True, eq=False)
class Measured:
    """The data that the model is measured on: its images in the order of the evaluation."""

    phase: Phase
    split: str
    parts: list[SegmentationDataset]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def place(self, row: int) -> tuple[SegmentationDataset, int]:
        for part in self.parts:
            if row < len(part):
                return part, row
            row -= len(part)
        raise IndexError(row)

    @property
    def names(self) -> list[str]:
        return [part.name(index) for part in self.parts for index in range(len(part))]

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] and label uint8 [H, W], 255 where nothing is labelled."""
        part, index = self.place(row)
        image, label = part.read(index)
        if label is None:
            raise ValueError(f"--split: {self.split!r} of {self.phase.data} has no labels; choose a labelled split")
        return image, label


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that the sections read. curves: column of metrics.csv -> phase -> curve, empty columns left out."""

    run: Path
    plan: Plan
    model: Segmenter
    measured: Measured
    evaluation: Evaluation
    curves: Mapping[str, Mapping[str, Curve]]
    device: torch.device

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        return self.model.palette

    def predict(self, image: np.ndarray) -> np.ndarray:
        """int64 [H, W], with the inference setting of the evaluation."""
        names = ("mode", "crop", "stride", "scales", "flip", "average", "short_side")
        options = {name: _tuple(self.evaluation.settings.get(name)) for name in names}
        return predict(self.model, image, **options).mask.numpy()


def open_run(run: Path) -> Plan:
    """The plan of a run with a trained model. Raises FileNotFoundError that says what RUN lacks."""
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: there is no such run; give the folder that `nonlocalseg train` wrote")
    if not (run / "recipe.yaml").is_file():
        raise FileNotFoundError(f"{run} is no run, it holds no recipe.yaml; give the folder that `train` wrote")
    if not (run / "model" / CONFIG).is_file():
        raise FileNotFoundError(
            f"{run} holds no model/ yet; go on with `nonlocalseg train --resume {run}` until its first checkpoint"
        )
    return Plan(**read_plan(run / "recipe.yaml"))


def open_measured(
    run: Path,
    plan: Plan,
    data: str | None,
    root: str | None,
    split: str | None,
    data_options: Mapping[str, Any] | None,
) -> Measured:
    """The data to measure on: what is given, and for the rest the run's last phase with its validation split.

    Raises ValueError and FileNotFoundError that name the option which would help.
    """
    last = plan.phases[-1]
    own = data in (None, last.data)
    phase = Phase(
        data=data or last.data,
        root=root or (last.root if own else None),
        data_options={**(last.data_options if own else {}), **(data_options or {})},
    )
    split = split or (last.val_split if own else "val")
    if split is None:
        raise ValueError(f"--split: {run} was trained without validation; say what to measure on, such as --split test")
    try:
        return Measured(phase, split, open_data(phase, split))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; if the data has moved, say where it is with --root DIR") from None
    except ValueError as error:
        raise ValueError(f"{error} (--data, --root, --split and --data-options say what to measure on)") from None


def find_evaluation(run: Path, model: Segmenter, measured: Measured) -> Evaluation | None:
    """The evaluation of these images in RUN/evaluation: the plainest setting before the others, the newest of each.

    Passed over are those that are older than the weights, of other images or classes, or unreadable.
    """
    found: list[tuple[bool, float, Evaluation]] = []
    for path in sorted((run / "evaluation").glob("*.json")):
        time = path.stat().st_mtime
        if path.stem.endswith("-comparison") or time < (run / "model" / CONFIG).stat().st_mtime:
            continue
        try:
            evaluation = Evaluation.read(path)
        except (ValueError, FileNotFoundError):
            continue
        of = evaluation.settings.get("data"), evaluation.settings.get("split"), evaluation.classes
        names = [row["name"] for row in evaluation.images]
        if of == (measured.phase.data, measured.split, tuple(model.classes)) and names == measured.names:
            found.append((_is_plain(evaluation.settings), time, evaluation))
    return max(found, key=lambda entry: entry[:2])[2] if found else None


def gather(
    run: Path, plan: Plan, measured: Measured, device: torch.device, workers: int | None, progress: bool
) -> Findings:
    """Load the model, and evaluate it, boundaries included, where RUN/evaluation does not hold that yet."""
    model = from_pretrained(run).to(device)
    evaluation = find_evaluation(run, model, measured)
    if evaluation is None:
        evaluation = evaluate(
            run,
            measured.phase.data,
            measured.phase.root,
            measured.split,
            boundary=True,
            data_options=measured.phase.data_options,
            device=str(device),
            workers=workers,
            out=run / "evaluation",
            progress=progress,
        )
    return Findings(run, plan, model, measured, evaluation, read_curves(run, len(plan.phases)), device)


def read_curves(run: Path, phases: int) -> dict[str, dict[str, Curve]]:
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


def _is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether whole images were seen once."""
    return (
        settings["mode"] == "whole"
        and list(settings["scales"]) == [1.0]
        and not settings["flip"]
        and not settings.get("short_side")
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
