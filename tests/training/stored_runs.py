"""What a run has written, an interruption, and pictures to train on: for the tests of this folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nonlocalseg.training.module import SegmentationTraining


class Interrupted(Exception):
    pass


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def weights(folder: Path, name: str = "last") -> dict[str, Any]:
    """Of the model, or of its average where there is one."""
    return checkpoint(folder, name)["state_dict"]


def raw(folder: Path) -> dict[str, Any]:
    """Of the model itself, beside its average."""
    found = checkpoint(folder)
    return found.get("current_model_state", found["state_dict"])


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """What metrics.csv holds beside the speed."""
    with (folder / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name != "images_per_second"} for row in csv.DictReader(file)
        ]


def interrupt(monkeypatch: pytest.MonkeyPatch, batch: int) -> pytest.MonkeyPatch:
    original = SegmentationTraining.on_train_batch_start

    def stop(self: SegmentationTraining, images: Any, index: int) -> None:
        if index == batch:
            raise Interrupted("here")
        original(self, images, index)

    monkeypatch.setattr(SegmentationTraining, "on_train_batch_start", stop)
    return monkeypatch


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


def draw_folder(folder: Path, count: int = 4) -> None:
    """A `folder` data set of two classes."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            mask = np.zeros((48, 64), np.uint8)
            mask[:, 32:] = 1
            Image.fromarray(mask).save(folder / "masks" / split / f"{index}.png")
    (folder / "classes.yaml").write_text("masks: {0: left, 1: right}\n")
