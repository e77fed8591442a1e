"""Peak memory of `evaluate` over the number of images: small ones, of 171 classes, each number in a process of its own.

Counted is memory of the process itself, every 20 ms; pages of files, which the system takes back when it wants them, are
not. Linux only.

python -m benchmarks.evaluation_memory 1000 10000
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nonlocalseg import images
from nonlocalseg.data.source import DataSource
from nonlocalseg.evaluation.scoring import evaluate

CLASSES, SIDE, PER_IMAGE = 171, 32, 12


class Guess(nn.Module):
    """A class for every brightness, from a model that costs nothing."""

    classes = tuple(f"class {number}" for number in range(CLASSES))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        centres = torch.linspace(0, 1, CLASSES).view(1, -1, 1, 1)
        return {"out": -(batch.mean(1, keepdim=True) - centres).abs()}


def draw(root: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        chosen = generator.choice(CLASSES, PER_IMAGE, replace=False)
        mask = chosen[generator.integers(0, PER_IMAGE, (SIDE, SIDE))].astype(np.uint8)
        noise = generator.integers(-1, 2, mask.shape)
        grey = np.clip(mask.astype(int) * 255 // (CLASSES - 1) + noise, 0, 255).astype(np.uint8)
        images.write_image(root / f"images/val/{number:06}.png", np.repeat(grey[..., None], 3, 2))
        images.write_mask(root / f"masks/val/{number:06}.png", mask)
    lines = [f"  {number}: class {number}" for number in range(CLASSES)]
    (root / "classes.yaml").write_text("\n".join(["masks:", *lines]) + "\n")


def own_memory() -> float:
    """MB of this process that belong to no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status: no RssAnon")


def measure(root: str) -> None:
    source = DataSource(data="folder", root=root, split="val")
    torch.set_num_threads(1)
    largest, ended = [own_memory()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            largest.append(max(own_memory(), largest.pop()))

    before = own_memory()
    watcher = threading.Thread(target=watch)
    watcher.start()
    found = evaluate(Guess(), source, workers=0, progress=False)
    ended.set()
    watcher.join()
    print(f"{len(found.images)} images: {largest[0] - before:.0f} MB more than the {before:.0f} MB before; {found!r}")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2])
        return
    for count in map(int, sys.argv[1:] or ["1000", "10000"]):
        with tempfile.TemporaryDirectory() as root:
            draw(Path(root), count)
            subprocess.run([sys.executable, "-m", "benchmarks.evaluation_memory", "--one", root], check=True)


if __name__ == "__main__":
    main()
