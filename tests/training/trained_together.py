"""Trainings by one process of several, or alone, with what each batch was: `python trained_together.py JOBS.json OUT`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nonlocalseg as nls
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.runs import train

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def trained(options: Mapping[str, Any], stop_after: int | None = None) -> list[tuple[float, list[float]]]:
    """The loss, and what tells the images apart, of every batch; leaves, as told by a signal, during batch `stop_after`."""
    seen: list[tuple[float, list[float]]] = []
    original = SegmentationTraining.training_step

    def noted(self: SegmentationTraining, batch: Any, index: int) -> Any:
        found = original(self, batch, index)
        seen.append((found["loss"].item(), batch["image"].sum((1, 2, 3)).tolist()))
        if len(seen) == stop_after and self.trainer.is_global_zero:
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    SegmentationTraining.training_step = noted
    try:
        with suppress(SystemExit):
            train(progress=False, **options)
    finally:
        SegmentationTraining.training_step = original
    return seen


def watch(out: Path, written: list[str]) -> None:
    """Note every file below `out` that this process opens to write, makes, renames or removes."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
        if changes or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            with suppress(TypeError):
                name = Path(os.fsdecode(arguments[0])).absolute()
                written.extend([str(name)] if name.is_relative_to(out) else [])

    sys.addaudithook(note)


def main() -> None:
    jobs, out, rank = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), int(os.environ["RANK"])
    written: list[str] = []
    if rank:
        watch(out, written)
    found: dict[str, Any] = {name: trained(*job) for name, job in jobs["train"].items()}
    evaluation = nls.evaluate(progress=False, workers=0, **jobs["evaluate"])
    found["counts"], found["written"] = evaluation.counts.tolist(), list(written)
    found["confusion"] = evaluation.scores.confusion.tolist()
    out.with_name(f"{out.name}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
