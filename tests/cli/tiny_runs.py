"""A drawn folder data set of two classes, and the words of a training on it that is over in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nonlocalseg import images

CLASSES = ("ground", "thing")
BACKBONE = "test_resnet.r160_in1k"
NETWORK = ("--model", "fcn", "--backbone", BACKBONE, "--model-options", "channels=8", "auxiliary_channels=8")
FAST = ("--steps", "2", "--batch-size", "4", "--crop", "48", "64", "--workers", "0", "--val-every", "2")


def train(root: Path, out: Path, *more: str) -> list[str]:
    """The last of two equal options counts."""
    return ["train", "--data", "folder", "--root", str(root), "--out", str(out), *NETWORK, *FAST, *more]


def draw(root: Path) -> Path:
    """A bright square on dark ground, in four images to train on and two to validate on."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            picture = generator.integers(0, 80, (48, 64, 3), dtype=np.uint8)
            mask = np.zeros((48, 64), np.uint8)
            y, x = generator.integers(0, 30, 2)
            picture[y : y + 16, x : x + 16] += 150
            mask[y : y + 16, x : x + 16] = 1
            images.write_image(root / "images" / split / f"{number}.png", picture)
            images.write_mask(root / "masks" / split / f"{number}.png", mask)
    (root / "classes.yaml").write_text("masks: {0: ground, 1: thing}\n")
    return root


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
