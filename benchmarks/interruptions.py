"""A training that is killed at random moments, also while it writes, and resumed each time, against one that is not.

    python -m benchmarks.interruptions --kills 20

Every process is killed with SIGKILL: half of them after a random time, half when a file is next being written: a
checkpoint, the weights or the config of a model. The one run must end in the weights, their average, the saved models
and the rows of metrics.csv of the other, bit for bit.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import nonlocalseg as nls
from nonlocalseg.files import UNFINISHED
from nonlocalseg.training.runs import train

OPTIONS: dict[str, Any] = {
    "data": "synthetic",
    "data_options": {"size": [48, 96], "length": 6},
    "model": "ann",
    "backbone": "mobilenetv2_035",
    "model_options": {"channels": 16, "key_channels": 8, "value_channels": 8, "auxiliary_channels": 16},
    "batch_size": 2,
    "crop": (48, 64),
    "val_every": 10,
    "ema": 0.9,
    "workers": 1,
    "progress": False,
}


WRITTEN = ("last", "last", "model", "config")
"""Last.ckpt, and the weights and the config of a model; the first takes longest."""


def begun(folder: Path, steps: int) -> int:
    """A process that trains in `folder`, or goes on there."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(1)
    try:
        if (folder / "recipe.yaml").is_file():
            train(resume=folder, progress=False)
        else:
            train(out=folder, steps=steps, **OPTIONS)
        os._exit(0)
    except BaseException as error:
        print(f"  {type(error).__name__}: {error}", flush=True)
        os._exit(1)


def unfinished(folder: Path) -> list[str]:
    """The files in `folder` that are being written."""
    places = [folder, *(folder / name for name in ("checkpoints", "best", "last"))]
    return [
        path.name for place in places if place.is_dir() for path in place.iterdir() if UNFINISHED.fullmatch(path.name)
    ]


def killed(child: int, folder: Path, delay: float, written: str | None) -> str | None:
    """What was under way when the process was killed after `delay` seconds, and then while a file called `written` was
    written; None where it had ended."""
    until = time.monotonic() + delay
    while time.monotonic() < until or (written and not any(f".{written}." in name for name in unfinished(folder))):
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        time.sleep(0 if time.monotonic() > until else 0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    first = not list(folder.glob("checkpoints/*.ckpt"))
    if left := unfinished(folder):
        names = " and ".join(sorted(re.sub(r"^\.(\w+)\.\w+", r"\1", name) for name in left))
        return f"while {names} was written" + (", before the first checkpoint" if first else "")
    return "before the first checkpoint" if first else "between two checkpoints"


def rows(folder: Path) -> list[dict[str, str]]:
    """Of metrics.csv, without the speed."""
    with (folder / "metrics.csv").open() as file:
        return [{n: v for n, v in row.items() if n != "images_per_second"} for row in csv.DictReader(file)]


def differences(one: Path, other: Path) -> Iterator[str]:
    for name in ("last", "best", "previous"):
        first, second = (torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for run in (one, other))
        for part in ("state_dict", "current_model_state"):
            if not all(torch.equal(first[part][key], second[part][key]) for key in first[part] | second[part]):
                yield f"{part} of {name}.ckpt"
    for name in ("last", "best"):
        first, second = (nls.from_pretrained(run / name).state_dict() for run in (one, other))
        if not all(torch.equal(first[key], second[key]) for key in first | second):
            yield f"the model {name}"
    if rows(one) != rows(other):
        yield "the rows of metrics.csv"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    drawn = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        whole, broken = Path(place) / "whole", Path(place) / "broken"
        start = time.monotonic()
        if os.waitpid(begun(whole, asked.steps), 0)[1]:
            return 1
        seconds = time.monotonic() - start
        print(f"uninterrupted: {asked.steps} steps in {seconds:.0f} s", flush=True)
        count = 0
        for number in range(asked.kills):
            child = begun(broken, asked.steps)
            written = drawn.choice(WRITTEN) if number % 2 else None
            found = killed(child, broken, drawn.uniform(0, 2 * seconds / asked.kills), written)
            if found is None:
                print("the training ended before it could be killed: give more --steps")
                return 1
            count += 1
            print(f"kill {count}: {found}", flush=True)
        if os.waitpid(begun(broken, asked.steps), 0)[1]:
            return 1
        found = list(differences(whole, broken))
    equal = f"differs: {', '.join(found)}" if found else "weights, average, models and rows are equal bit for bit"
    print(f"{count} kills; {equal}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
