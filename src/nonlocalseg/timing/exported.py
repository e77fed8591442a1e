"""Every form in which one model can run on this CPU, side by side: torch, onnxruntime, OpenVINO, in float and in INT8."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import to_channels_last
from nonlocalseg.exporting.checking import drawn
from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.formats import FORMATS
from nonlocalseg.exporting.graph import Graph, trace
from nonlocalseg.exporting.onnx_file import open_onnx, write_onnx
from nonlocalseg.exporting.openvino_file import open_openvino, write_from_onnx
from nonlocalseg.exporting.program import open_program, write_program
from nonlocalseg.exporting.quantisation import Search, split
from nonlocalseg.models.folding import fold
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import cpu_has_bfloat16, speed_up
from nonlocalseg.progress import track
from nonlocalseg.runtime import cpu_flags, cpu_has_vnni
from nonlocalseg.timing.measuring import Case, compare, peak_memory, surroundings
from nonlocalseg.timing.tables import Row, Table

COLUMNS = {
    "name": "",
    "seconds": "time",
    "spread": "spread",
    "ratio": "faster by",
    "torch_ratio": "than torch",
    "memory": "memory",
    "size": "on disk",
    "error": "error",
    "mean_iou": "mIoU",
}
SIZE = (360, 480)  # of CamVid's images
_EAGER = "eager"
_CPU = torch.device("cpu")


class Running(nn.Module):
    """A form of `model` that is called like it: `run` goes from images to logits."""

    def __init__(self, model: Segmenter, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.classes, self.palette, self.align_corners = model.classes, model.palette, model.align_corners
        self.view, self.num_classes, self.smallest_side = model.view, model.num_classes, 16
        self.register_buffer("mean", model.mean)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.run(images)}


@dataclass(frozen=True)
class _Made:
    """A form of the model. make: gets it ready to run. of_torch: no other runtime. size: bytes on disk."""

    name: str
    make: Callable[[], Callable[[Tensor], Tensor]]
    of_torch: bool = False
    size: int | None = None


def exports(
    model: Segmenter,
    title: str,
    size: tuple[int, int],
    repeat: int = 5,
    photographs: Sequence[Tensor] | None = None,
    measure: Callable[[nn.Module], float | None] | None = None,
    compiled: bool | None = None,
) -> Table:
    """One image of that size in every form, on the CPU.

    photographs: for INT8; by default drawn ones, with which its error means nothing. measure: the mIoU of a model.
    compiled: as in `networks.network`. ratio is to the model as it is, torch_ratio to the fastest form of torch; memory
    is the most that the process grew while a form was loaded and ran for the first time.
    """
    compiled = shutil.which(os.environ.get("CXX", "g++")) is not None if compiled is None else compiled
    for kind in FORMATS.values():
        kind.need_int8()
    image, notes = drawn(1, *size), []
    with _forms(model.eval(), size, photographs, compiled, notes) as forms, torch.no_grad():
        memory, cases, mious = {}, [], {}
        for form in track(forms, "running each form"):
            held: list[Callable[[Tensor], Tensor]] = []

            def first(form: _Made = form, held: list[Any] = held) -> Tensor:
                held.append(form.make())
                return held[0](image)

            memory[form.name], _ = peak_memory(first, _CPU)
            run = held[0]
            against = None if form.name == _EAGER else _EAGER
            cases.append(Case(form.name, lambda run=run: run(image), against, counted=False))
            if measure is not None:
                mious[form.name] = measure(Running(model, run))
        rows = compare(cases, _CPU, repeat)
    best = min(row["seconds"] for row, form in zip(rows, forms, strict=True) if form.of_torch)
    for row, form in zip(rows, forms, strict=True):
        more: Row = {"memory": memory[form.name], "torch_ratio": best / row["seconds"], "size": form.size}
        row |= {**more, "mean_iou": mious.get(form.name)}
    return Table(
        f"{title}, one {size[0]}x{size[1]} image",
        COLUMNS if measure is not None else {n: c for n, c in COLUMNS.items() if n != "mean_iou"},
        rows,
        surroundings(_CPU),
        (
            "Faster than the model as it is, and than the fastest form of torch. Memory: of loading and the first image.",
            *notes,
            f"This CPU has {'VNNI' if cpu_has_vnni() else 'no VNNI'}; its flags: {' '.join(cpu_flags())}",
        ),
    )


@contextmanager
def _forms(
    model: Segmenter,
    size: tuple[int, int],
    photographs: Sequence[Tensor] | None,
    compiled: bool,
    notes: list[str],
) -> Iterator[list[_Made]]:
    """All forms; files lie in a folder that is removed. notes: what is left out, and why, is added."""
    folded = to_channels_last(fold(model))
    fast = speed_up(copy.deepcopy(model), _CPU)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        program = trace(Graph.of(model, Form()))
        write_onnx(program, place / "float.onnx")
        write_from_onnx(place / "float.onnx", place / "float.xml", half=False)
        write_program(program, place / "float.pt2")
        made = [
            _Made(_EAGER, lambda: _logits(copy.deepcopy(model)), True, _bytes_of(model)),
            _Made("folded, channels_last", lambda: _last(copy.deepcopy(folded)), True, _bytes_of(folded)),
            _Made(
                "--fast: " + ", ".join(choice.partition(" (")[0] for choice in fast.choices),
                lambda: _logits(fast),
                True,
                _bytes_of(fast.model),
            ),
        ]
        if compiled:
            made.append(_Made("compiled", lambda: _compiled(folded), True, _bytes_of(folded)))
        else:
            notes.append("The compiled form is left out: it needs a C++ compiler.")
        made += [
            _Made(".pt2", lambda: open_program(place / "float.pt2").run, True, _on_disk(place / "float.pt2")),
            _Made("onnxruntime", lambda: open_onnx(place / "float.onnx").run, size=_on_disk(place / "float.onnx")),
            _Made("OpenVINO", lambda: open_openvino(place / "float.xml").run, size=_on_disk(place / "float.xml")),
        ]
        if cpu_has_bfloat16():
            name = "OpenVINO, bfloat16"
            made.append(
                _Made(name, lambda: open_openvino(place / "float.xml", "bf16").run, size=_on_disk(place / "float.xml"))
            )
        else:
            notes.append("OpenVINO in bfloat16 is left out: this CPU has no instructions for it.")
        for kind, name in (("onnx", "onnxruntime, INT8"), ("openvino", "OpenVINO, INT8")):
            path = place / f"int8{FORMATS[kind].suffix}"
            notes.append(f"{name}: {_quantised(kind, place / 'float.onnx', path, model, size, photographs)}")
            made.append(_Made(name, lambda kind=kind, path=path: FORMATS[kind].open(path).run, size=_on_disk(path)))
        yield made


def _quantised(
    kind: str, source: Path, path: Path, model: Segmenter, size: tuple[int, int], photographs: Sequence[Tensor] | None
) -> str:
    """Writes `path`, and says what was found."""
    make = FORMATS[kind].quantiser
    assert make is not None
    if photographs is None:
        quantiser = make(source, [drawn(1, *size)])
        quantiser.write(path, quantiser.ways[0], [])
        return "its ranges are of a drawn image, so its error says nothing (give --calibrate)."
    calibrated, compared = split(photographs)
    graph = Graph.of(model, Form(fold=False))
    found = Search(make(source, calibrated), FORMATS[kind].open, graph, compared, path).run(len(calibrated))
    kept = [part.name for part in found.parts if part.kept]
    return (
        f"{100 * found.agreement:.2f} % of the pixels of {found.compared} photographs keep their class; weights in "
        f"{found.weights}; in float {', '.join(kept) or 'no part'}."
    )


def _logits(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda images: network(images)["out"]


def _last(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda images: network(images.contiguous(memory_format=torch.channels_last))["out"]


def _compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    optimised: Callable[..., Any] = torch.compile(network)
    return lambda images: optimised(images.contiguous(memory_format=torch.channels_last))["out"]


def _bytes_of(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def _on_disk(path: Path) -> int:
    parts = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return sum(part.stat().st_size for part in parts)
