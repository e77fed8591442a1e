"""The verb that says what there is: list models, datasets, recipes."""

from __future__ import annotations

import ast
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Literal

from nonlocalseg.choices import pick
from nonlocalseg.cli.options import Given, explained, verb
from nonlocalseg.cli.terminal import output
from nonlocalseg.progress import track
from nonlocalseg.values import Count, Metavar, Positional, Size, options_of, plain, value
from nonlocalseg.view import WHOLE

if TYPE_CHECKING:
    from rich.table import Table

    from nonlocalseg.recipes.schema import Published


@value
class List:
    """The verb's own options."""

    what: Annotated[Literal["models", "datasets", "recipes", "zoo"], Positional()]
    """What to list."""
    model: Annotated[str | None, Metavar("NAME")] = None
    """Only this model, with the options that its head has of its own; of the zoo, only checkpoints of this model."""
    data: Annotated[str | None, Metavar("NAME")] = None
    """Only the recipes for this data set, or its checkpoints in the zoo, or only this data set, with its classes, its
    options and the files it expects."""
    cost: bool = False
    """Count the parameters and multiply-adds of the models, which takes up to a second for each."""
    backbone: Annotated[str | None, Metavar("NAME")] = None
    """The timm backbone under the counted models (default: resnet50c)."""
    size: Size | None = None
    """Height and width of the counted image; one number for both (default: 512)."""
    num_classes: Count | None = None
    """Number of classes of the counted models (default: 19)."""

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 16:
            raise ValueError(f"--size: {self.size[0]} {self.size[1]}; give height and width of 16 pixels or more")
        for name in ("backbone", "size", "num_classes"):
            if getattr(self, name) is not None and not self.cost:
                raise ValueError(
                    f"--{name.replace('_', '-')} has an effect with --cost only: add it, or leave this out"
                )


@verb(List)
def list_(own: List, given: Given) -> None:
    """List the models, the data sets, the training recipes or the trained models of the zoo.

    With --cost, models come with their parameters and multiply-adds on one image, in evaluation (without the auxiliary
    head). With --model, every option of its head is explained; they are what `train --model-options` takes.

    Examples:
        nonlocalseg list models
        nonlocalseg list models --cost --backbone resnet18 --size 360 480
        nonlocalseg list models --model galdv2
        nonlocalseg list datasets
        nonlocalseg list recipes --data camvid
        nonlocalseg list zoo --data ade20k --model ann
    """
    from nonlocalseg.data.catalog import DATASETS

    if own.data is not None:
        pick("data set", own.data, DATASETS)
    console = output()
    if own.what == "models":
        console.print(_models(own))
        for table in _model_options(own.model) if own.model is not None else ():
            console.print(table)
    elif own.what == "zoo":
        table, notes = _zoo(own)
        console.print(table)
        for note in notes:
            console.print(note)
    elif own.what == "recipes":
        table, notes = _recipes(own.data)
        console.print(table)
        for note in notes:
            console.print(note)
    else:
        console.print(_datasets(own.data))
        if own.data is not None:
            options = DATASETS[own.data].Options()
            if options_of(type(options)):
                console.print(_options(options, f"options of {own.data}, for --data-options"))
            console.print(_files(own.data), highlight=False, markup=False)


def _models(own: List) -> Table:
    from rich.table import Table

    known = described_models()
    table = Table()
    for heading in ("model", ""):
        table.add_column(heading)
    if not own.cost:
        for name in known if own.model is None else [pick("model", own.model, known)]:
            table.add_row(name, known[name])
        return table
    from nonlocalseg.models.catalog import MODELS
    from nonlocalseg.models.cost import model_cost

    names = list(MODELS) if own.model is None else [pick("model", own.model, MODELS)]

    backbone, size, classes = own.backbone or "resnet50c", own.size or (512, 512), own.num_classes or 19
    table.caption = f"on {backbone}, one {size[0]}x{size[1]} image, {classes} classes"
    for heading in ("parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for name in track(names, "counting"):
        parameters, operations = model_cost(name, backbone, size, classes)
        table.add_row(name, MODELS[name].description, f"{parameters / 1e6:.1f} M", f"{operations / 1e9:.1f} G")
    return table


def described_models() -> dict[str, str]:
    """The models and what they are, read from the source of their catalog, because importing it takes longer."""
    source = ast.parse(files("nonlocalseg.models").joinpath("catalog.py").read_text(encoding="utf-8"))
    table = next(n.value for n in source.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "MODELS")
    assert isinstance(table, ast.Dict)
    rows = zip(table.keys, table.values, strict=True)
    return {
        ast.literal_eval(key): ast.literal_eval(row.args[0]) for key, row in rows if key and isinstance(row, ast.Call)
    }


def _model_options(model: str) -> tuple[Table, Table]:
    from nonlocalseg.models.catalog import MODELS
    from nonlocalseg.models.config import NetworkOptions

    return (
        _options(MODELS[model].options, f"options of {model}, for train --model-options"),
        _options(NetworkOptions(), "options of every model, for train --model-options"),
    )


def _options(defaults: object, title: str) -> Table:
    """Every option of a value, which says what it is by default."""
    from rich.table import Table

    table = Table("option", "default", "", title=title, title_justify="left")
    table.columns[0].no_wrap = True
    for name, option in options_of(type(defaults)).items():
        shown = plain(getattr(defaults, name))
        table.add_row(name, "-" if shown is None else str(shown), explained(option))
    return table


def _datasets(data: str | None) -> Table:
    from rich.table import Table

    from nonlocalseg.data.catalog import DATASETS

    table = Table("data set", "classes", "splits", "")
    for name, kind in DATASETS.items():
        if data in (None, name):
            counts = kind.expected_counts
            splits = [f"{split} ({counts[split]})" if split in counts else split for split in kind.splits]
            classes = kind.known_classes(kind.Options())
            table.add_row(name, str(len(classes)) if classes else "varies", ", ".join(splits), _about(kind))
            if data is not None and classes:
                table.caption = "classes: " + ", ".join(classes)
    return table


def _recipes(data: str | None) -> tuple[Table, list[str]]:
    """The table, and what the notes of its recipes say, by the numbers in its last column."""
    from rich.table import Table

    from nonlocalseg.recipes.catalog import RECIPES

    table = Table("recipe", "data set", "steps", "batch", "crop", "published", "note")
    table.columns[0].no_wrap = True
    notes: dict[str, int] = {}
    for recipe in RECIPES.values():
        phases = recipe.phases
        if data is None or any(phase.data == data for phase in phases):
            columns = (
                [phase.data for phase in phases],
                [f"{phase.steps:,}" for phase in phases],
                [str(phase.batch_size) for phase in phases],
                [f"{phase.crop[0]}x{phase.crop[1]}" for phase in phases],
                [_figure(one) for one in recipe.published],
            )
            number = str(notes.setdefault(recipe.notes, len(notes) + 1)) if recipe.notes else ""
            table.add_row(recipe.name, *("\n".join(column) for column in columns), number)
    return table, [f"note {number}: {text}" for text, number in notes.items()]


def _zoo(own: List) -> tuple[Table, list[str]]:
    """The table, and the terms of its checkpoints' data, by the numbers in its last column."""
    from rich.table import Table

    from nonlocalseg.zoo.entries import PREFIX, TERMS, all_entries
    from nonlocalseg.zoo.official import FILES, OFFICIAL

    models = {entry.model for entry in all_entries()}
    if own.model is not None:
        pick("model of the zoo", own.model, models)
    table = Table("name", "mIoU", "6 scales, flips", "classes", "size", "terms")
    table.columns[0].no_wrap = True
    terms: dict[str, int] = {}

    def number(text: str) -> str:
        return str(terms.setdefault(text, len(terms) + 1))

    found = [entry for entry in all_entries() if own.model in (None, entry.model) and own.data in (None, entry.data)]
    for entry in found:
        several = "-" if entry.miou_flip is None else f"{entry.miou_flip:.2f}"
        size, classes = f"{entry.megabytes} MB", str(entry.num_classes)
        table.add_row(PREFIX + entry.name, f"{entry.miou:.2f}", several, classes, size, number(TERMS[entry.data]))
    official = [
        (name, file)
        for name, file in FILES.items()
        if own.model in (None, name.split("-")[0]) and own.data in (None, file.data)
    ]
    for name, file in official:
        table.add_row(OFFICIAL + name, file.figure, "", "19", "by hand", number(file.terms))
    best = f"{PREFIX}MODEL-BACKBONE-DATA, such as {PREFIX}ann-r101-ade20k, is the best of its kind"
    table.caption = f"{len(found) + len(official)} checkpoints, their figures as published; {best}"
    return table, [f"terms {number}: {text}" for text, number in terms.items()]


def _figure(one: Published) -> str:
    how = "" if one.view == WHOLE else f"; {', '.join(one.view.words())}"
    whose = f", {one.whose}" if one.whose else ""
    return f"{one.metric} {one.value} ({one.table}{whose}{how})"


def _files(data: str) -> str:
    """Where the data set's files are expected, and what is odd about them: the docstring of its class."""
    import inspect

    from nonlocalseg.data.catalog import DATASETS

    return inspect.getdoc(DATASETS[data]) or ""


def _about(kind: type) -> str:
    """What the docstring of the data set's module says of it."""
    import sys

    text = (sys.modules[kind.__module__].__doc__ or "").strip()
    return text.splitlines()[0] if text else ""
