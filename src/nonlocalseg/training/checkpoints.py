"""A run's checkpoints on disk: written beside their place, whole or not at all, verified when read; who may go on."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console

from nonlocalseg.files import writing
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.folder import CHECKPOINT, PREVIOUS
from nonlocalseg.training.plan import PHASE_FIELDS, Plan

OURS = "nonlocalseg"
"""The entry of a checkpoint that is not Lightning's."""
DAMAGED = CHECKPOINT.with_name("damaged.ckpt")
"""What a damaged last checkpoint is called from then on."""
CURE = ": train anew, or put back a whole copy"


class WrittenBeside(TorchCheckpointIO):
    """Stages a checkpoint in its own folder; Lightning's way does it in $TMPDIR, which may be small, and on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with _replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


def copy_checkpoint(source: Path, path: Path) -> None:
    """Write a checkpoint once more; what was at `path` is kept as the one before, as when it is saved there."""
    with _replacing(path) as temporary:
        shutil.copyfile(source, temporary)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Where to write what becomes the checkpoint `path`. The last one becomes the one before: of the two, one is always
    whole. Raises OSError that names `path`."""
    with writing(path) as temporary:
        try:
            yield temporary
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # PyTorch hides it now and then
                raise error.__context__ from None
            raise
        if path.name == CHECKPOINT.name and path.exists():
            os.replace(path, path.with_name(PREVIOUS.name))


def newest_whole(paths: Sequence[Path], console: Console) -> Path | None:
    """The first of these checkpoints that can be read, None where there are none; what is passed over is told in a line.

    Raises ValueError where none can be read.
    """
    damage: list[str] = []
    for path in paths:
        try:
            content = read_checkpoint(path)
        except ValueError as error:
            damage.append(str(error))
            continue
        for line in damage:
            step = content.get("global_step", 0)
            said = f"{line.removesuffix(CURE)}: going on from {path}, of step {step}"
            console.print(said, highlight=False, markup=False, soft_wrap=True)
        return path
    if damage:
        raise ValueError(damage[0])
    return None


def set_damaged_aside(checkpoint: Path) -> None:
    """Where the run goes on from the one before, the damaged last one must not take its place when the next is saved."""
    last = checkpoint.with_name(CHECKPOINT.name)
    if checkpoint.name == PREVIOUS.name and last.exists():
        os.replace(last, checkpoint.with_name(DAMAGED.name))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its checksums verified, its tensors left on disk until they are used.

    Raises ValueError, one line, where it is corrupt or was not written by a training of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # PyTorch writes checksums and does not look at them
        if broken is not None:
            raise ValueError(f"the checksum of {broken} is wrong")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(content, dict) or not isinstance(content.get(OURS), Mapping):
            raise ValueError("it says nothing of a training of ours")
        return content
    except (
        *(ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError, EOFError, OSError),
        *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, NotImplementedError),
    ) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{path} is corrupt or not ours ({reason}){CURE}") from error


FIXED = {
    **dict.fromkeys(("model", "backbone", "model_options"), "that is the network whose weights it holds"),
    **dict.fromkeys(("pretrained", "backbone_weights", "init_from"), "that is where its weights began"),
    "seed": "its first weights and its images so far were drawn with that",
    "accumulate": "its checkpoint counts batches in such parts",
    "optimizer": "its checkpoint holds the state of that one",
    "layer_decay": "the optimizer's state in its checkpoint is sorted by that",
    "ema": "its checkpoint holds an average of the weights, or none",
    **dict.fromkeys(("frozen_backbone", "frozen_batchnorm"), "its checkpoint holds the optimizer's state for the rest"),
}
"""The options that a resumed run cannot change, and why. Of those in `SWITCHES` the number may change, but a run that
began without one goes on without. All others count from the first resumed step on."""
SWITCHES: tuple[str, ...] = ("layer_decay", "ema")


def check_unchanged(run: Path, stored: Plan, plan: Plan, given: Iterable[str]) -> None:
    """ValueError for the first of the options `given` that is fixed and differs in `plan` from what the run has."""
    for name in given:
        if name not in FIXED:
            continue
        for old, new in zip(stored.phases, plan.phases, strict=True):
            if _fixed(name, stored, old) != _fixed(name, plan, new):
                raise _refusal(name, run, _value(name, stored, old))


def _value(name: str, plan: Plan, phase: Phase) -> object:
    return getattr(phase if name in PHASE_FIELDS else plan, name)


def _fixed(name: str, plan: Plan, phase: Phase) -> str:
    """What of an option is fixed, as text: whatever a recipe.yaml holds can be stored so and compared."""
    found = _value(name, plan, phase)
    return str(found is not None if name in SWITCHES else found)


def _refusal(name: str, run: Path, begun: object) -> ValueError:
    shown = "none" if begun is None else begun
    return ValueError(
        f"--{name.replace('_', '-')}: {run} was begun with {shown}, and a resumed run cannot change that, because "
        f"{FIXED[name]}: leave it out, or start a new run with --init-from {run}"
    )


def identity(plan: Plan, phase: Phase, classes: tuple[str, ...]) -> dict[str, Any]:
    """What a checkpoint says of itself, so that nothing else goes on from it."""
    return {"classes": list(classes), "fixed": {name: _fixed(name, plan, phase) for name in FIXED}}


def check_resumable(checkpoint: Path, plan: Plan, phase: Phase, classes: tuple[str, ...]) -> None:
    """ValueError where the checkpoint cannot be read or was made with what a resumed run cannot change."""
    content = read_checkpoint(checkpoint)
    stored, afresh = content[OURS], "or start a new run with --init-from"
    for name, item in identity(plan, phase, classes).items():
        if not isinstance(stored.get(name), type(item)):
            raise ValueError(f"{checkpoint} is corrupt or not ours{CURE}")
    if (count := len(stored["classes"])) != len(classes):
        raise ValueError(
            f"{checkpoint} was trained for {count} classes and the data has {len(classes)}: resume with the run's own "
            f"data, {afresh}"
        )
    for old, new in zip(stored["classes"], classes, strict=True):
        if old != new:
            raise ValueError(
                f"{checkpoint} was trained for other classes ({old!r} where the data has {new!r}): resume with the "
                f"run's own data, {afresh}"
            )
    for name in FIXED:  # here it is recipe.yaml that was changed
        begun = stored["fixed"].get(name)
        if begun != _fixed(name, plan, phase):
            raise ValueError(
                f"{checkpoint} was begun with {name} {begun}, where recipe.yaml has {_fixed(name, plan, phase)}: put "
                f"recipe.yaml back, {afresh}"
            )
    if content.get("global_step", 0) > phase.steps:
        raise ValueError(
            f"{checkpoint} has done {content['global_step']} steps: give --steps {content['global_step']} or more"
        )
