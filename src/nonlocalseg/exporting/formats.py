"""The formats by name: the suffix of their files, and how one is written, sealed with its passport, and opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nonlocalseg.choices import pick
from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.graph import SMALLEST, smallest_side
from nonlocalseg.exporting.onnx_file import open_onnx, seal_onnx, write_onnx
from nonlocalseg.exporting.onnx_quantisation import ONNXQuantiser, need_static_quantisation
from nonlocalseg.exporting.openvino_file import open_openvino, seal_openvino, write_openvino
from nonlocalseg.exporting.openvino_quantisation import OpenVINOQuantiser, import_nncf
from nonlocalseg.exporting.passport import Opened
from nonlocalseg.exporting.program import open_program, seal_program, write_program
from nonlocalseg.exporting.quantisation import Quantiser


@dataclass(frozen=True)
class Format:
    """suffix: of the file that is named. packages: whose versions its passport tells. write: a traced graph. seal: put
    the passport's text into a file that lies there. smallest: pixels that a side of an image must have.
    half_graph: in half precision the graph itself is in float16. no_half: why there is no half precision. quantiser: of
    an ONNX file in float32 and images; None where there is no INT8, and no_int8 says why.
    need_int8: ValueError where its extra is missing."""

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[torch.export.ExportedProgram, Path, Form], None]
    seal: Callable[[Path, str], None]
    open: Callable[[Path], Opened]
    smallest: Callable[[torch.export.ExportedProgram], int] = lambda _: SMALLEST
    half_graph: bool = False
    no_half: str = ""
    quantiser: Callable[[Path, Sequence[Tensor]], Quantiser] | None = None
    need_int8: Callable[[], object] = bool
    no_int8: str = ""


FORMATS: dict[str, Format] = {
    "onnx": Format(
        ".onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        lambda program, path, _: write_onnx(program, path),
        seal_onnx,
        open_onnx,
        half_graph=True,
        quantiser=ONNXQuantiser,
        need_int8=need_static_quantisation,
    ),
    "openvino": Format(
        ".xml",
        ("openvino", "onnx", "onnxscript"),
        lambda program, path, form: write_openvino(program, path, form.half),
        seal_openvino,
        open_openvino,
        quantiser=OpenVINOQuantiser,
        need_int8=import_nncf,
    ),
    "pt2": Format(
        ".pt2",
        (),
        lambda program, path, _: write_program(program, path),
        seal_program,
        open_program,
        smallest_side,
        no_half="torch has no fast float16 on CPUs, and elsewhere torch.autocast does it at run time",
        no_int8="torch computes in INT8 only in graphs that it has compiled for one machine",
    ),
}


def format_of(path: Path, name: str | None = None) -> Format:
    """The format called `name`, by default that of the suffix. ValueError where there is none, or the two disagree."""
    suffixes = {kind.suffix: kind for kind in FORMATS.values()}
    found = suffixes.get(path.suffix)
    if name is not None:
        kind = FORMATS[pick("format", name, FORMATS)]
        if kind is not found:
            raise ValueError(f"--out: a file of the format {name} ends in {kind.suffix}, not as {path.name}")
        return kind
    if found is None:
        raise ValueError(f"--out: {path.name} ends in none of {', '.join(suffixes)}, which say the format")
    return found


def is_exported(source: str | Path) -> bool:
    """Whether the name is one of an exported file, by its suffix."""
    return Path(source).suffix in {kind.suffix for kind in FORMATS.values()}
