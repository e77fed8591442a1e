"""A long training of a tiny network: what its processes hold in memory, from a warm-up on.

    python -m benchmarks.endurance --steps 2000

Measured is the proportional set size of the training and of the processes that read its images (Linux), whenever the
run has written a row, without the pages of files, such as libraries, which other programs share and let go of. It must
stay within 2 % of what it was after the warm-up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.interruptions import OPTIONS
from nonlocalseg.training.history import read_rows
from nonlocalseg.training.runs import train

ALLOWED = 0.02


def megabytes(process: int) -> float:
    """Of a process and of those below it."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        own = sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has just ended
        return 0.0
    return own + sum(megabytes(int(child)) for child in below)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--warm", type=int, default=400)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.into is not None:
        torch.set_num_threads(1)
        train(out=asked.into, **{**OPTIONS, "steps": asked.steps, "workers": asked.workers, "val_every": 100})
        return 0
    found: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        words = [sys.executable, "-m", "benchmarks.endurance", *sys.argv[1:], "--into", str(folder)]
        child = subprocess.Popen(words)  # not by a fork, which would share memory with this process
        while child.poll() is None:
            time.sleep(0.2)
            if not (folder / "metrics.csv").is_file():
                continue
            steps = [int(row["step"]) for row in read_rows(folder / "metrics.csv", ["step"])[0]]
            if steps and steps[-1] not in found:
                found[steps[-1]] = megabytes(child.pid)
        if child.returncode:
            print("the training failed")
            return 1
    for step in sorted(found):
        if step % 200 == 0:
            print(f"step {step}: {found[step]:.1f} MB", flush=True)
    after = [held for step, held in sorted(found.items()) if asked.warm <= step < asked.steps]
    growth, spread = after[-1] / after[0] - 1, max(abs(held / after[0] - 1) for held in after)
    print(
        f"{asked.steps} steps, {len(after)} measurements after step {asked.warm}: {after[0]:.1f} MB at first, "
        f"{growth:+.2%} at the end, at most {spread:.2%} apart"
    )
    return int(spread > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
