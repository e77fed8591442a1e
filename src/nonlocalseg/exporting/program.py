"""Files of torch.export, .pt2: run by torch alone, on any device of it.

Such a file is a program. torch evaluates expressions that stand in it, so load none that you do not trust.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from nonlocalseg.exporting.passport import ENTRY, Opened


def write_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write the traced graph."""
    torch.export.save(program, path)


def seal_program(path: Path, text: str) -> None:
    """Put the passport in."""
    with ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/{ENTRY}", text)


def open_program(path: Path) -> Opened:
    """The graph as a module of torch, on the CPU."""
    held: dict[str, str] = {ENTRY: ""}
    try:
        module = torch.export.load(path, extra_files=held).module()
    except (RuntimeError, ValueError, KeyError, AssertionError, TypeError, BadZipFile) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: torch cannot read it ({reason}): export it again") from None

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return Opened(run, held[ENTRY] or None)
