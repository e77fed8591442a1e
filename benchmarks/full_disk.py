"""A training on a disk that is full, or becomes read-only: one line, nothing half-written, and it goes on afterwards.

    python -m benchmarks.full_disk

Mounts small disks, which only root may. A disk in memory holds the run up to a different file each time; then it is made
larger, the run resumed, and compared with one that was not disturbed. A disk of ext4 in a file is told that it has found
an error, after which the system lets nobody write to it; then it is checked and mounted again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.interruptions import OPTIONS, differences
from nonlocalseg.cli.errors import describe
from nonlocalseg.files import UNFINISHED
from nonlocalseg.training.checkpoints import read_checkpoint
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.runs import train

RUN: dict[str, Any] = {**OPTIONS, "steps": 9, "val_every": 3, "workers": 0}
SHARES = (0.002, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
"""Of what a whole run takes."""


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


@contextmanager
def disk(kilobytes: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place)
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


@contextmanager
def faulty_disk() -> Iterator[Path]:
    """One that becomes read-only with its first error."""
    with tempfile.TemporaryDirectory() as folder:
        image, place = Path(folder) / "image", Path(folder) / "disk"
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(1 << 28)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        attach(image, place)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


def attach(image: Path, place: Path) -> None:
    mount("-o", "loop,errors=remount-ro", str(image), str(place))


@contextmanager
def broken(place: Path, step: int) -> Iterator[None]:
    """The disk finds an error at this step; it is mended in the end."""
    original = SegmentationTraining.training_step
    words = ["findmnt", "--noheadings", "--output", "SOURCE", str(place)]
    device = Path(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()).name

    def training_step(self: SegmentationTraining, batch: Any, batch_idx: int) -> Any:
        if batch_idx == step:
            Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")
        return original(self, batch, batch_idx)

    SegmentationTraining.training_step = training_step
    try:
        yield
    finally:
        SegmentationTraining.training_step = original
        subprocess.run(["umount", place], check=True)
        image = place.with_name("image")
        subprocess.run(["e2fsck", "-f", "-y", str(image)], check=False, capture_output=True)
        attach(image, place)


def tried(run: Path) -> str | None:
    """The line that a failing run ends with, None where it does not fail."""
    try:
        train(out=run, **RUN)
    except (ValueError, OSError) as error:
        return describe(error)[0]
    return None


def faults(run: Path, whole: Path, said: str | None) -> Iterator[str]:
    """What is wrong with a run that could not write, and with how it goes on."""
    if said is None or str(run) not in said or "\n" in said or "internal" in said:
        yield f"it said {said!r}"
    if left := [path.name for path in run.rglob("*") if UNFINISHED.fullmatch(path.name)]:
        yield f"left {left}"
    for path in run.rglob("*.ckpt"):
        read_checkpoint(path)
    train(resume=run, progress=False) if (run / "recipe.yaml").exists() else train(out=run, **RUN)
    yield from differences(whole, run)


def main() -> int:
    torch.set_num_threads(1)
    worst = 0
    with disk(1 << 18) as large:
        whole = train(out=large / "whole", **RUN).folder
        size = sum(path.stat().st_size for path in whole.rglob("*")) / 1024
        for number, share in enumerate(SHARES):
            with disk(max(8, int(share * size) // 4 * 4)) as small:
                said = tried(small / "run")
                mount("-o", "remount,size=256m", str(small))
                found = list(faults(small / "run", whole, said))
            worst += bool(found)
            print(
                f"full {number + 1}, {share:.1%} of a run: {said} {'; '.join(found) or 'whole afterwards'}", flush=True
            )
        for step in (0, 4, 7):
            with faulty_disk() as closed:
                with broken(closed, step):
                    said = tried(closed / "run")
                found = list(faults(closed / "run", whole, said))
            worst += bool(found)
            print(f"read-only from step {step + 1} on: {said} {'; '.join(found) or 'whole afterwards'}", flush=True)
    print(f"{len(SHARES)} full disks, 3 read-only ones: {worst} not as they should be")
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
