"""Drawn photographs: bright squares on dark ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nonlocalseg.images import write_image


def draw_photographs(folder: Path, count: int, seed: int = 0) -> Path:
    """NUMBER.png of 48x64 pixels."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        generator = np.random.default_rng(seed + number)
        picture = generator.integers(0, 80, (48, 64, 3), dtype=np.uint8)
        y, x = generator.integers(0, 24, 2)
        picture[y : y + 24, x : x + 24] += 150
        write_image(folder / f"{number}.png", picture)
    return folder
