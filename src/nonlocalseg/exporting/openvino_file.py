"""OpenVINO files, an .xml with its .bin: made of an ONNX file, because only that way keeps sizes free."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nonlocalseg.exporting.onnx_file import write_onnx
from nonlocalseg.exporting.passport import ENTRY, Opened
from nonlocalseg.extras import needing

_NEED = ("export", "OpenVINO files")


def openvino_core() -> Any:
    """OpenVINO, opened once for as long as the process lives. Raises ValueError with the cure where it is missing.

    When it is closed it unmaps the stack that the kernel was told to run signal handlers on: closed in another thread
    than it was opened in, it leaves the next signal, such as Ctrl-C, to end in a segmentation fault (seen in 2026.4).
    """
    with needing(*_NEED):
        import openvino
    return _opened_once(openvino.Core)


@functools.cache
def _opened_once(kind: Callable[[], Any]) -> Any:
    return kind()


def write_openvino(program: torch.export.ExportedProgram, path: Path, half: bool) -> None:
    """Write `path` and the .bin beside it; half: store the weights in 16 bits."""
    openvino_core()  # before the step that may take minutes
    between = path.with_suffix(".onnx")
    write_onnx(program, between)
    try:
        write_from_onnx(between, path, half)
    finally:
        between.unlink()


def write_from_onnx(source: Path, path: Path, half: bool) -> None:
    """The ONNX file `source` as `path` and the .bin beside it."""
    core = openvino_core()
    import openvino

    # Not by openvino.convert_model, which reports its use over the network where that is not forbidden.
    openvino.save_model(core.read_model(source), path, compress_to_fp16=half)


def seal_openvino(path: Path, text: str) -> None:
    """Put the passport in."""
    import openvino

    model, sealed = openvino_core().read_model(path), path.with_name("sealed.xml")
    model.set_rt_info(text, [ENTRY])
    openvino.save_model(model, sealed, compress_to_fp16=False)
    del model  # it has the .bin open
    for suffix in (".bin", ".xml"):
        os.replace(sealed.with_suffix(suffix), path.with_suffix(suffix))


def open_openvino(path: Path, precision: Literal["f32", "bf16"] = "f32") -> Opened:
    """The file on the CPU, with as many threads as torch has. precision: of what is not in INT8."""
    core = openvino_core()
    if not path.with_suffix(".bin").is_file():
        raise FileNotFoundError(f"{path.with_suffix('.bin')} is missing beside {path.name}: copy both files")
    # Without the hint it takes bfloat16 by itself on CPUs that have it.
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
    except RuntimeError as error:
        raise ValueError(f"{path}: OpenVINO cannot read it ({_last_line(error)}): export it again") from None

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.numpy())[0].copy())

    return Opened(run, str(model.get_rt_info([ENTRY]).value) if model.has_rt_info([ENTRY]) else None)


def _last_line(error: RuntimeError) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
