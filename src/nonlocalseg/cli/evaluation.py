"""The verb that measures models against labels and with each other: evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.published import PUBLISHED, beside, published_view
from nonlocalseg.cli.shared import OfFolder, OnDevice
from nonlocalseg.cli.terminal import first_process, output, percent, say
from nonlocalseg.data.source import DataSource
from nonlocalseg.files import check_folder
from nonlocalseg.values import Metavar, Names, Natural, Positional, Precision, names_of, value
from nonlocalseg.view import VIEWS, View

if TYPE_CHECKING:
    from rich.table import Table

    from nonlocalseg.evaluation.comparison import Comparison
    from nonlocalseg.evaluation.results import Evaluation


def settings() -> str:
    """The named ways to measure, as the help shows them."""
    named = {name: found.source for name, found in VIEWS.items()}
    named[PUBLISHED] = "as the first figure published of the model itself, by the recipe of its run or in the zoo"
    lines = "\n".join(f"  {name:21}  {source}" for name, source in named.items())
    return f"--setting NAME stands for a paper's way to see images:\n\n{lines}"


@value
class Evaluate(OnDevice, OfFolder):
    """The verb's own options."""

    models: Annotated[Names, Positional()]
    """The models."""
    compare: bool = False
    """Compare two models, class by class, with the 95 % interval of each difference (a paired bootstrap over the
    images)."""
    out: Annotated[str | None, Metavar("DIR")] = None
    """Folder for the files; by default evaluation/ in the folder of the model. With several models each has a folder of
    its name in it."""
    setting: Annotated[str | None, Metavar("NAME")] = None
    """A paper's way to measure, or `published` for that of the model's own figure, instead of the options from --mode
    on."""
    boundary: bool = False
    """Measure boundary F (GALD, Table V) and Boundary IoU as well."""
    precision: Precision = "32"
    """Bits of the arithmetic: bf16 and 16 are automatic mixed precision."""
    fast: bool = False
    """The fastest form of the model on this device, which may mean half precision, or, with the extra export, OpenVINO
    (the first time it takes a minute); it says what it chose."""
    workers: Natural | None = None
    """Processes that read images; by default up to four."""

    def __post_init__(self) -> None:
        if self.compare and len(self.models) != 2:
            raise ValueError(f"--compare takes two models; {len(self.models)} given")


@verb(Evaluate, DataSource, View, more=settings)
def evaluate(own: Evaluate, given: Given) -> None:
    """Measure models against the labels of a data set: IoU per class, mIoU, accuracies, boundaries, worst images.

    A model is the folder of a run, a saved model, an exported file, a name of the zoo (`nonlocalseg list zoo`), or one on
    the Hugging Face
    hub; the .json of an earlier evaluation stands for the model that it measured. Where figures were published of it, by
    the zoo or by the recipe of its run, they stand beside the measured ones. Data set, folder and split of a run are
    those of its training's validation where they are not given, and images are seen as the model says where no option
    from --mode on says otherwise. The figures are written as JSON and CSV, the confusion matrix as a picture, and the
    counts of each image and class as .npz, under a name that stands for data and view, so that other settings never
    replace them. `torchrun --nproc-per-node 4 -m nonlocalseg evaluate ...` shares the images between processes.

    Examples:
        nonlocalseg evaluate runs/mine
        nonlocalseg evaluate runs/camvid --split test --boundary
        nonlocalseg evaluate model.onnx --data camvid --root CamVid --split test
        nonlocalseg evaluate mmseg:ann-r50-cityscapes --data cityscapes --root Cityscapes
        nonlocalseg evaluate runs/ann-resnet101s --setting published
        nonlocalseg evaluate runs/mine --data folder --root my-images --flip --scales 0.75 1.0 1.25
        nonlocalseg evaluate runs/mine --data folder --root my-images --mode slide --crop 512 --stride 0.667
        nonlocalseg evaluate runs/fcn runs/ann --data camvid --root CamVid --split test --compare
        nonlocalseg evaluate runs/fcn/evaluation/camvid-test-whole-1f0c9a7e.json runs/ann --split test --compare
    """
    from nonlocalseg.evaluation.comparison import compare
    from nonlocalseg.evaluation.results import Evaluation
    from nonlocalseg.runtime import pick_device

    pick_device(own.device)
    folders = _folders(own.models, own.out)
    stored = {model: Evaluation.read(model) for model in own.models if model.endswith(".json")}
    if len(own.models) > 1:
        _check_all(own, given, stored)
    results = []
    for model, folder in zip(own.models, folders, strict=True):
        result = stored[model] if model in stored else _measure(own, given, model, folder)
        results.append(result)
        if first_process():
            _show(result, folder, model if len(own.models) > 1 else "")
    if own.compare and first_process():
        _show_comparison(compare(*results), folders[1])


def _check_all(own: Evaluate, given: Given, stored: Mapping[str, Evaluation]) -> None:
    """What would be wrong with a later model is said before the first is measured, which may take hours."""
    from nonlocalseg.evaluation.comparison import check_comparable
    from nonlocalseg.evaluation.scoring import prepare

    asked = {
        model: prepare(model, precision=own.precision, **_seen(own, given, model))
        for model in own.models
        if model not in stored
    }
    if not own.compare:
        return
    for evaluation in stored.values():
        for other in asked.values():
            check_comparable(evaluation, other.classes, other.names)
    sources = [found.settings.source for found in asked.values()]
    if any(source != sources[0] for source in sources):
        told = "; ".join(source.describe() for source in sources)
        raise ValueError(f"the models were validated on other data ({told}): say with --data and --root what counts")


def _measure(own: Evaluate, given: Given, model: str, folder: Path) -> Evaluation:
    from nonlocalseg.evaluation.scoring import evaluate

    return evaluate(
        model,
        boundary=own.boundary,
        precision=own.precision,
        fast=own.fast,
        device=own.device,
        workers=own.workers,
        out=folder,
        **_seen(own, given, model),
    )


def _seen(own: Evaluate, given: Given, model: str) -> Given:
    """The options of data and view, and the setting that takes the view's place."""
    joined = own.joined(given)
    if own.setting != PUBLISHED:
        return {**joined, "setting": own.setting}
    if other := next((name for name in names_of(View) if name in joined), None):
        raise ValueError(f"--setting {PUBLISHED} fixes --{other.replace('_', '-')}: give one of the two")
    return {**joined, "view": published_view(model)}


def _folders(models: Sequence[str], out: str | None) -> list[Path]:
    """Where the files of each model go; nothing is made yet."""
    if out is None:
        return [check_folder(_beside(model)) for model in models]
    if len(models) == 1:
        return [check_folder(out)]
    names = [Path(model).name.removesuffix(".json") for model in models]
    if len(set(names)) < len(names):
        names = [f"{i}-{name}" for i, name in enumerate(names, start=1)]
    return [check_folder(Path(out) / name) for name in names]


def _beside(model: str) -> Path:
    """evaluation/ in the folder of the model, the folder of an evaluation, evaluation/NAME beside an exported file, or
    one here for a model from the hub."""
    path = Path(model)
    if model.endswith(".json"):
        return path.parent
    if path.is_file():
        return path.parent / "evaluation" / path.name
    return path / "evaluation" if path.is_dir() else Path("evaluation") / model.replace("/", "-")


def _show(result: Evaluation, folder: Path, model: str) -> None:
    table = _table("class", "IoU %", "accuracy %", "precision %", "pixels", title=model)
    for row in result.scores.per_class(result.classes):
        figures = (percent(row[name]) for name in ("iou", "recall", "precision"))
        table.add_row(str(row["class"]), *figures, f"{row['pixels']:,}")
    console, scores = output(), result.scores
    console.print(table)
    low, high = result.interval
    console.print(f"mIoU            {percent(scores.mean_iou)} %  (95 % interval {percent(low)} to {percent(high)})")
    console.print(f"mean accuracy   {percent(scores.mean_accuracy)} %")
    console.print(f"pixel accuracy  {percent(scores.pixel_accuracy)} %")
    console.print(f"fwIoU           {percent(scores.frequency_weighted_iou)} %  (weighted by frequency)")
    if result.boundary is not None:
        _show_boundary(result)
    for table in beside(result):
        console.print(table)
    worst = ", ".join(f"{row['name']} {percent(row['miou'])}" for row in result.worst())
    console.print(f"worst images    {worst}")
    console.print(f"measured on     {result.settings.source.describe()}")
    console.print(f"seen as         {', '.join(result.settings.words())}")
    console.print(f"{len(result.images)} images in {result.seconds:.1f} s; figures in {folder / result.stem}.json")


def _show_boundary(result: Evaluation) -> None:
    found = result.boundary
    assert found is not None
    table = _table("boundary F within", "all classes %", "classes present %")
    for number, (published, present) in enumerate(zip(found.published, found.present, strict=True)):
        table.add_row(f"{found.radius(number)} px", percent(published), percent(present))
    output().print(table)
    output().print("all classes: a class absent from an image counts as 1 there (GALD, Table V)")
    if found.mean_boundary_iou is not None:
        output().print(f"Boundary IoU    {percent(found.mean_boundary_iou)} %")


def _show_comparison(comparison: Comparison, folder: Path) -> None:
    table = _table("class", "first %", "second %", "difference", "95 % interval")
    for row in comparison.per_class():
        difference = _signed(row["difference"]), f"{_signed(row['low'])} to {_signed(row['high'])}"
        table.add_row(row["class"], percent(row["first"]), percent(row["second"]), *difference)
    found, means = comparison.difference, [e.scores.mean_iou for e in (comparison.first, comparison.second)]
    table.add_section()
    interval = f"{_signed(found.low)} to {_signed(found.high)}"
    table.add_row("mIoU", *map(percent, means), _signed(found.mean_iou), interval)
    for name, measured in (("first", comparison.first.settings), ("second", comparison.second.settings)):
        output().print(f"{name}: {measured.model} ({', '.join(measured.words())})")
    output().print(table)
    output().print("an interval that holds 0 is no difference that these images can show")
    path = comparison.write(folder)
    say(f"figures in {path}")


def _signed(share: float | None) -> str:
    return "-" if share is None or share != share else f"{100 * share:+.2f}"


def _table(first: str, *others: str, title: str = "") -> Table:
    from rich.table import Table

    table = Table(first, *others, title=title or None)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
