"""`export()`: a model as a file of another runtime, which has been run and compared before it appears."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nonlocalseg.exporting.checking import TOLERANCE, compare, smallest_taken, timed, tried_sizes
from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.formats import Format, format_of
from nonlocalseg.exporting.graph import Graph, trace
from nonlocalseg.exporting.loading import ExportedModel
from nonlocalseg.exporting.onnx_file import write_onnx
from nonlocalseg.exporting.passport import Figures, Opened, Passport, Quantised, Tried
from nonlocalseg.exporting.quantisation import Search, split
from nonlocalseg.files import check_folder
from nonlocalseg.models.config import FORMAT_VERSION
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.values import changed, plain


class Measured(Protocol):
    """What `nls.evaluate` returns, as far as it is asked for here."""

    @property
    def scores(self) -> Any: ...
    @property
    def interval(self) -> tuple[float, float]: ...
    @property
    def images(self) -> list[dict[str, Any]]: ...
    @property
    def settings(self) -> Any: ...


@dataclass(frozen=True)
class Exported:
    """The file, its passport, and its size on disk in bytes, with what lies beside it."""

    path: Path
    passport: Passport
    size: int


def export(
    model: Segmenter,
    path: str | Path,
    form: Form | None = None,
    *,
    format: str | None = None,
    calibrate: Sequence[Tensor] | None = None,
    measure: Callable[[ExportedModel], Measured] | None = None,
    **changes: object,
) -> Exported:
    """Write `model` as a file for onnxruntime (.onnx), OpenVINO (.xml and .bin) or torch.export (.pt2).

    The file is run in its own runtime at five sizes and compared with the model before it appears under its name.
    `from_pretrained`, `predict` and `evaluate` take it as they take a model.

    Args:
        model: in evaluation mode.
        path: the file; its suffix says the format.
        form: what the graph takes and answers.
        format: onnx, openvino or pt2, to be sure of the suffix.
        calibrate: for INT8: photographs as the network sees them, float32 [1, 3, h, w] in [0, 1]: see
            `calibration_images`.
        measure: measures the file, for its passport, e.g. `lambda file: nls.evaluate(file, data="camvid", root=...)`.
        changes: fields of the form, put over it.

    Raises ValueError in one line for a model in training mode, for a path that no format has, for a missing extra, and
    where the file differs from the model by more than 1e-4 of its largest value (in half precision 5e-2, in INT8 0.5),
    and for INT8 that names other classes than the model's for more than 2.5 % of the pixels of photographs: none is left.
    """
    if model.training:
        raise ValueError("export() is for evaluation: call model.eval() first")
    path, form = Path(path).expanduser(), changed(form or Form(), changes)
    kind = format_of(path, format)
    if form.half and kind.no_half:
        raise ValueError(f"half: not for {kind.suffix}, because {kind.no_half}; leave it out")
    if path.is_dir():
        raise ValueError(f"--out: {path} is a folder; give the name of a file")
    if form.int8 and kind.quantiser is None:
        raise ValueError(f"int8: not for {kind.suffix}, because {kind.no_int8}; take .onnx or .xml")
    if form.int8 and not calibrate:
        raise ValueError("int8: its ranges are found on photographs: give calibrate, a folder of such")
    if calibrate is not None and not form.int8:
        raise ValueError("calibrate: ranges of numbers are for INT8 alone: add int8, or leave it out")
    if form.int8:
        kind.need_int8()
    check_folder(path.parent)
    reference = Graph.of(model, replace(form, fold=False, half=False))
    with _together(path) as temporary:
        program = trace(Graph.of(model, replace(form, half=form.half and kind.half_graph)))
        if kind.quantiser is None or not calibrate:
            quantised = None
            kind.write(program, temporary, form)
        else:
            quantised = _quantised(kind, program, temporary, reference, calibrate)
        opened = kind.open(temporary)
        tried = _compared(opened, reference, form, path)
        red, green, blue = model.mean.flatten()
        passport = Passport(
            form=form,
            classes=model.classes,
            palette=model.palette,
            mean=(float(red), float(green), float(blue)),
            align_corners=model.align_corners,
            view=form.view_of(model.view),
            model=None if model.config is None else {"format_version": FORMAT_VERSION, **plain(model.config)},
            smallest=smallest_taken(opened.run, reference, form, kind.smallest(program)),
            parity=tried,
            tolerance=TOLERANCE[form.precision],
            quantised=quantised,
            latency=timed(opened.run, form),
            versions=_versions(kind, form),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if measure is not None:
            passport = replace(passport, figures=_figures(measure(ExportedModel(temporary, opened, passport))))
        kind.seal(temporary, passport.text())
        size = sum(part.stat().st_size for part in temporary.parent.iterdir())
    return Exported(path, passport, size)


def _quantised(
    kind: Format, program: torch.export.ExportedProgram, path: Path, reference: Graph, images: Sequence[Tensor]
) -> Quantised:
    """Write the graph in INT8 to `path`; what lies between is in a folder that is removed."""
    assert kind.quantiser is not None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float.onnx"
        write_onnx(program, source)
        calibrated, compared = split(images)
        search = Search(kind.quantiser(source, calibrated), kind.open, reference, compared, path)
        return search.run(len(calibrated))


def _compared(opened: Opened, reference: Graph, form: Form, path: Path) -> tuple[Tried, ...]:
    """The errors at all sizes; ValueError where one is too large."""
    found = [compare(opened.run, reference, *size) for size in tried_sizes(form)]
    tried = tuple(one for one in found if one is not None)
    if not tried:
        raise ValueError("the model refuses every size that an export tries: give --static H W, a size that it takes")
    worst = max(tried, key=lambda one: one.error)
    if worst.error > TOLERANCE[form.precision]:
        listed = ", ".join(f"{one.height}x{one.width} {one.error:.1e}" for one in tried)
        raise ValueError(
            f"{path} would not answer as the model does at {worst.height}x{worst.width} pixels (errors: {listed}; "
            f"{TOLERANCE[form.precision]:g} is allowed), so it was not written: try another format, or --static H W"
        )
    return tried


def _figures(found: Measured) -> Figures:
    return Figures(
        mean_iou=found.scores.mean_iou,
        interval=found.interval,
        images=len(found.images),
        data=found.settings.source.describe(),
        seen=", ".join(found.settings.words()),
    )


def _versions(kind: Format, form: Form) -> dict[str, str]:
    from nonlocalseg import __version__

    int8 = ("nncf",) if form.int8 and kind.suffix == ".xml" else ()
    packages = {name: importlib.metadata.version(name) for name in (*kind.packages, *int8)}
    return {"nonlocalseg": __version__, "torch": torch.__version__, "python": platform.python_version(), **packages}


@contextmanager
def _together(path: Path) -> Generator[Path, None, None]:
    """A path of the same name in a folder of its own beside `path`: what lies there at the end takes its place, the file
    itself last; nothing does where the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
        yield Path(folder) / path.name
        for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == path.name):
            os.replace(part, path.with_name(part.name))
