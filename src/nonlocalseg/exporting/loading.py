"""Exported files as models: called like a Segmenter, for everything that only asks for scores."""

from __future__ import annotations

import hashlib
import warnings
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import resize
from nonlocalseg.exporting.formats import format_of
from nonlocalseg.exporting.passport import Opened, Passport, read_passport
from nonlocalseg.labels import Colour
from nonlocalseg.models.config import ModelConfig
from nonlocalseg.models.storage import config_of
from nonlocalseg.runtime import cpu_has_vnni, out_of_memory
from nonlocalseg.silence import Notice
from nonlocalseg.view import View

CERTAIN = 100.0
"""The score of the class that a file names where it answers no scores: its probability is 1."""


class ExportedModel(nn.Module):
    """`model(images)`: RGB in [0, 1] `[B, 3, H, W]`, any H and W from `smallest_side` up -> `{"out": scores [B, K, H, W]}`.

    Scores are the model's logits; of a file that answers probabilities their logarithms, whose softmax they are; of one
    that answers classes `CERTAIN` for the class and 0 for the others. They are brought to the size of the images where
    the file answers at another. The file runs on the CPU, wherever the images are. `passport` tells what is known of
    it; `classes`, `palette`, `view`, `align_corners` and `config` are those of the model it was made from.
    Raises ValueError for images that are smaller, or not of the size of a static file.
    """

    mean: Tensor
    digest: Tensor

    def __init__(self, path: Path, opened: Opened, passport: Passport) -> None:
        super().__init__()
        self.path, self.passport, self._run = path, passport, opened.run
        self.register_buffer("mean", torch.tensor(passport.mean).view(1, -1, 1, 1))
        self.register_buffer("digest", _digest(path))  # by which its evaluations are told from those of other files
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.passport.classes

    @property
    def palette(self) -> tuple[Colour, ...]:
        return self.passport.palette

    @property
    def num_classes(self) -> int:
        return len(self.passport.classes)

    @property
    def align_corners(self) -> bool:
        return self.passport.align_corners

    @property
    def smallest_side(self) -> int:
        return self.passport.smallest

    @property
    def view(self) -> View:
        return self.passport.view

    @cached_property
    def config(self) -> ModelConfig | None:
        content = self.passport.model
        return None if content is None else config_of(dict(content), self.path)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.answer(images)
        size = (images.shape[2], images.shape[3])
        form = self.passport.form
        if form.answer == "classes":
            named = found.long()[:, None]
            if form.resized:
                named = nn.functional.interpolate(named.float(), size, mode="nearest-exact").long()
            scores = torch.zeros(len(images), self.num_classes, *size, device=images.device)
            return {"out": scores.scatter_(1, named, CERTAIN)}
        scores = resize(found, size, self.align_corners) if form.resized else found
        return {"out": scores.clamp_min(1e-30).log() if form.answer == "probabilities" else scores}

    def answer(self, images: Tensor) -> Tensor:
        """What the file itself answers, on the device of the images."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        height, width = images.shape[-2:]
        static = self.passport.form.static
        least = self.smallest_side
        if static is None and min(height, width) < least:
            raise ValueError(f"images must be at least {least}x{least} pixels, not {height}x{width}")
        if static is not None and (height, width) != static:
            raise ValueError(
                f"{self.path.name} takes images of {static[0]}x{static[1]} pixels only, not {height}x{width}: "
                f"see others in windows, --mode slide --crop {static[0]} {static[1]} --small pad"
            )
        given = images.detach().float().cpu().contiguous()
        parts = given.split(1) if static is not None else (given,)
        try:
            found = torch.cat([self._run(part) for part in parts])
        except Exception as error:  # every runtime has exceptions of its own
            if out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"{self.path}: fails on images of {height}x{width} ({reason}): export it again") from None
        self._check(found, (len(images), height, width))
        return found.to(images.device)

    def _check(self, found: Tensor, given: tuple[int, int, int]) -> None:
        """ValueError where a file answers something else than its passport says."""
        form, count = self.passport.form, self.num_classes
        classes = form.answer == "classes"
        batch, *size = given
        fits = found.ndim == (3 if classes else 4) and len(found) == batch and 0 not in found.shape
        fits = fits and (form.resized or list(found.shape[-2:]) == size) and (classes or found.shape[1] == count)
        if classes:
            fits = fits and not found.is_floating_point() and 0 <= int(found.min()) <= int(found.max()) < count
        if not fits:
            raise ValueError(
                f"{self.path}: answers {str(found.dtype).removeprefix('torch.')} {list(found.shape)}, which are no "
                f"{form.answer} of {count} classes: export it again"
            )


def load_exported(source: str | Path) -> ExportedModel:
    """The model in a file that `export` wrote.

    Warns of a file in INT8 that needs a CPU with VNNI where there is none. Raises FileNotFoundError where there is no
    file, ValueError in one line for one that cannot be read, that another program wrote, or whose runtime is not
    installed.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a file that `nonlocalseg export` wrote")
    opened = format_of(path).open(path)
    passport = read_passport(opened.text, path)
    if passport.quantised is not None and len(passport.quantised.ways) == 1 and not cpu_has_vnni():
        warnings.warn(
            f"{path} was quantised on a CPU with VNNI, and this one has none: sums of products of 8 bits need not fit "
            "here, and classes may be wrong; quantise it again on this CPU, or take the file in float32",
            Notice,
            stacklevel=2,
        )
    return ExportedModel(path, opened, passport)


def _digest(path: Path) -> Tensor:
    """Of the file and, beside an .xml, of its weights: uint8 [32]."""
    found = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with part.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return torch.tensor(list(found.digest()), dtype=torch.uint8)
