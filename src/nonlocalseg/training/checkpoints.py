"""A run's checkpoints on disk: written beside their place, whole or not at all, verified when read; who may go on."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from nonlocalseg.files import writing
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.plan import PHASE_FIELDS, Plan

OURS = "nonlocalseg"
"""The entry of a checkpoint that is not Lightning's."""


class WrittenBeside(TorchCheckpointIO):
    """Stages a checkpoint in its own folder; Lightning's way does it in $TMPDIR, which may be small, and on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with writing(path) as temporary:
            try:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
            except (OSError, RuntimeError) as error:
                cause = error.__context__ if isinstance(error, RuntimeError) else error  # PyTorch hides it now and then
                if isinstance(cause, OSError):
                    raise OSError(cause.errno, cause.strerror, str(path)) from error
                raise


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
        raise ValueError(f"{path} is corrupt or not ours ({reason}): train anew, or put back a whole copy") from error


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
            raise ValueError(f"{checkpoint} is corrupt or not ours: train anew, or put back a whole copy")
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
