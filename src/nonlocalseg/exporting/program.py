"""Files of torch.export, .pt2: run by torch alone, on any device of it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nonlocalseg.exporting.archive import checked, tidied
from nonlocalseg.exporting.passport import ENTRY, Opened
from nonlocalseg.runtime import out_of_memory
from nonlocalseg.silence import unlogged


def write_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write the traced graph."""
    torch.export.save(program, path)
    tidied(path, {})


def seal_program(path: Path, text: str) -> None:
    """Put the passport in."""
    tidied(path, {ENTRY: text})


def open_program(path: Path) -> Opened:
    """The graph as a module of torch, on the CPU."""
    held: dict[str, str] = {ENTRY: ""}
    try:
        with unlogged():
            module = torch.export.load(checked(path), extra_files=held).module()
    except Exception as error:  # anything, of damaged graphs
        if out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: torch cannot read it ({reason}): export it again") from None

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return Opened(run, held[ENTRY] or None)
