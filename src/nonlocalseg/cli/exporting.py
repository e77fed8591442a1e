"""The verb that writes models for other runtimes: export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OfFolder
from nonlocalseg.cli.terminal import output, percent, say
from nonlocalseg.data.source import DataSource
from nonlocalseg.exporting.form import Form
from nonlocalseg.values import Metavar, Positional, names_of, value

if TYPE_CHECKING:
    from nonlocalseg.evaluation.results import Evaluation
    from nonlocalseg.exporting.loading import ExportedModel
    from nonlocalseg.exporting.passport import Quantised
    from nonlocalseg.exporting.writing import Exported


@value
class Export(OfFolder):
    """The verb's own options."""

    model: Annotated[str, Positional()]
    """The model."""
    out: Annotated[str, Metavar("FILE")]
    """The file to write; OpenVINO's weights stand beside it, in a .bin."""
    format: Literal["onnx", "openvino", "pt2"] | None = None
    """For onnxruntime and many others (.onnx), OpenVINO (.xml) or torch alone (.pt2); by default as the name of --out
    ends."""
    calibrate: Annotated[str | None, Metavar("DIR")] = None
    """With --int8: a folder with photographs like those to be predicted, labels aside; 64 of them are looked at."""


@verb(Export, Form, DataSource)
def export(own: Export, given: Given) -> None:
    """Write a model as a file for other runtimes: ONNX, OpenVINO, torch.export; it is run and compared before it appears.

    MODEL is the folder of a run, a saved model, a name of the zoo (`nonlocalseg list zoo`), or one on the Hugging Face
    hub. Batch, height and width stay free, and images go in as RGB in [0, 1]: the graph normalises them. The file is run
    in its own runtime at five sizes and its errors are printed, relative to the model's largest value; above 1e-4
    (--half: 5e-2) it is removed. With --int8 and --calibrate, weights and activations are in 8 bits, but for those parts of
    the network that stay in float because they damage most: as many as it takes to name the model's own class for 97.5 %
    of the pixels of photographs. Names and colours of the classes, these errors, the time of an image and, with --data or
    --root, the mIoU of the file on that data are kept in it. `predict`, `evaluate`, `submit` and `benchmark network`
    take the file as a model.

    Examples:
        nonlocalseg export runs/mine --out model.onnx
        nonlocalseg export runs/mine --format openvino --out model.xml --data camvid --root CamVid --split test
        nonlocalseg export runs/mine --out small.onnx --size 512 1024 --host-size --answer classes
        nonlocalseg export runs/mine --out phone.onnx --static 512 512 --half
        nonlocalseg export runs/mine --out fast.xml --int8 --calibrate photos/
    """
    from nonlocalseg.evaluation.scoring import evaluate
    from nonlocalseg.exporting.writing import export as write
    from nonlocalseg.inference.calibration import calibration_images
    from nonlocalseg.zoo.pretrained import pretrained_network

    form, data = ({n: x for n, x in given.items() if n in names_of(kind)} for kind in (Form, DataSource))
    source = own.joined(data)

    def measured(file: ExportedModel) -> Evaluation:
        return evaluate(file, **source)

    asked = Form(**form)
    model = pretrained_network(own.model)
    photographs = None if own.calibrate is None else calibration_images(own.calibrate, asked.view_of(model.view))
    say("exporting ...")
    exported = write(
        model, own.out, asked, format=own.format, calibrate=photographs, measure=measured if source else None
    )
    _show(exported)


def _of_int8(found: Quantised) -> Iterator[str]:
    yield (
        f"INT8: ranges of {found.calibrated} photographs; on {found.compared} others {percent(found.agreement)} % of the "
        f"pixels have the model's class (at least {percent(found.least)} %); weights in {found.weights}"
    )
    kept = [f"{part.name} ({100 * part.gain:+.2f} points)" for part in found.parts if part.kept]
    yield f"in float: {', '.join(kept) if kept else 'no part of the network'}"


def _show(exported: Exported) -> None:
    from rich.table import Table

    passport = exported.passport
    table = Table("batch", "height", "width", "error")
    for column in table.columns:
        column.justify = "right"
    for one in passport.parity:
        table.add_row(str(one.batch), str(one.height), str(one.width), f"{one.error:.1e}")
    latency, console = passport.latency, output()
    console.print(table)
    console.print(
        f"one image of {latency.height}x{latency.width} takes {1000 * latency.seconds:.0f} ms on {latency.threads} threads of "
        f"{latency.processor}"
    )
    if passport.quantised is not None:
        for line in _of_int8(passport.quantised):
            console.print(line)
    if passport.figures is not None:
        found = passport.figures
        low, high = found.interval
        console.print(
            f"mIoU {percent(found.mean_iou)} %  (95 % interval {percent(low)} to {percent(high)}) on {found.images} images "
            f"of {found.data}"
        )
    console.print(f"written {exported.path}, {exported.size / 2**20:.1f} MiB", markup=False)
