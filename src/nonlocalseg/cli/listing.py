"""The verb that says what there is: list models, datasets, recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nonlocalseg.cli.terminal import output, track

if TYPE_CHECKING:
    from rich.table import Table

    from nonlocalseg.training.phases import Published


def list_(
    what: Literal["models", "datasets", "recipes"],
    *,
    data: str | None = None,
    backbone: str = "resnet50c",
    size: tuple[int, int] = (512, 512),
    num_classes: int = 19,
) -> None:
    """List the models, the data sets or the training recipes.

    Models come with their parameters and multiply-adds on one image, computed for the backbone and the size below, in
    evaluation (without the auxiliary head).

    Args:
        what: what to list.
        data: only the recipes for this data set, or only this data set, with its classes and the files it expects.
        backbone: the timm backbone under the models.
        size: height and width of the image; one number for both.
        num_classes: number of classes.

    Examples:
        nonlocalseg list models
        nonlocalseg list models --backbone resnet18 --size 360 480
        nonlocalseg list datasets
        nonlocalseg list recipes --data camvid
    """
    if data is not None:
        from nonlocalseg.data.catalog import DATASETS
        from nonlocalseg.models.presets import known

        known("data set", data, DATASETS)
    console = output()
    if what == "models":
        console.print(_models(backbone, size, num_classes))
    elif what == "recipes":
        table, notes = _recipes(data)
        console.print(table)
        for note in notes:
            console.print(note)
    else:
        console.print(_datasets(data))
        if data is not None:
            console.print(_files(data), highlight=False, markup=False)


def _models(backbone: str, size: tuple[int, int], num_classes: int) -> Table:
    from rich.table import Table

    from nonlocalseg.models.presets import MODELS

    if min(size) < 16:
        raise ValueError(f"--size: {size[0]} {size[1]}; give height and width of 16 pixels or more")
    table = Table(caption=f"on {backbone}, one {size[0]}x{size[1]} image, {num_classes} classes")
    for name, justify in (("model", "left"), ("", "left"), ("parameters", "right"), ("multiply-adds", "right")):
        table.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType]
    for name in track(list(MODELS), "counting"):
        parameters, operations = cost(name, backbone, size, num_classes)
        figures = (f"{parameters / 1e6:.1f} M", f"{operations / 1e9:.1f} G")
        table.add_row(name, MODELS[name].description, *figures)
    return table


def cost(model: str, backbone: str, size: tuple[int, int], num_classes: int, **options: Any) -> tuple[int, int]:
    """Parameters, and multiply-adds on one image, of a model in evaluation; computed without any arithmetic."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nonlocalseg.models.presets import create_model

    with torch.device("meta"):
        network = create_model(model, backbone, num_classes, auxiliary=False, **options).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(1, 3, *size))
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2


def _datasets(data: str | None) -> Table:
    from rich.table import Table

    from nonlocalseg.data.catalog import DATASETS

    table = Table("data set", "classes", "splits", "")
    for name, kind in DATASETS.items():
        if data in (None, name):
            counts = kind.expected_counts
            splits = [f"{split} ({counts[split]})" if split in counts else split for split in kind.splits]
            classes = getattr(kind, "classes", None)
            table.add_row(name, str(len(classes)) if classes else "varies", ", ".join(splits), _about(kind))
            if data is not None and classes:
                table.caption = "classes: " + ", ".join(classes)
    return table


def _recipes(data: str | None) -> tuple[Table, list[str]]:
    """The table, and what the notes of its recipes say, by the numbers in its last column."""
    from rich.table import Table

    from nonlocalseg.training.recipes import RECIPES

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


def _figure(one: Published) -> str:
    how = "" if one.inference == "whole" else f"; {one.inference}"
    return f"{one.metric} {one.value} ({one.table}{how})"


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
