"""Which images are read: a data set by name, where it lies, which split of it, and its own options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import yaml
from pydantic import BeforeValidator

from nonlocalseg.choices import pick
from nonlocalseg.values import Metavar, changed, from_plain, is_mapping, is_row, names_of, value

if TYPE_CHECKING:
    from nonlocalseg.data.dataset import DatasetOptions, Labels, SegmentationDataset, Transform
    from nonlocalseg.labels import LabelMap


RECIPE = "recipe.yaml"
"""The file in the folder of a run that says, among much else, what its data are."""
LARGEST = 1 << 20
"""Bytes of it."""


def _absolute(given: object) -> object:
    """A folder as it is found from everywhere, so that what is written down stays true."""
    path: object = os.fspath(cast("os.PathLike[str]", given)) if isinstance(given, os.PathLike) else given
    return os.path.abspath(os.path.expanduser(path)) if isinstance(path, str) else path


def _plain(given: object) -> object:
    """Lists, as YAML and JSON have them, as tuples: what is written and read again stays equal."""
    if not is_mapping(given):
        return given
    return {name: tuple(item) if is_row(item) else item for name, item in given.items()}


@value
class DataSource:
    """Images and labels of a data set; nothing is looked up and no file touched before a method is called."""

    data: Annotated[str, Metavar("NAME")] = ""
    "Name of the data set (`nonlocalseg list datasets`); `folder` for your own images."
    root: Annotated[str, BeforeValidator(_absolute), Metavar("DIR")] | None = None
    "Folder of the data; not needed where the data set is drawn."
    split: str = "val"
    "Split that is read; several are joined with +, as in train+val."
    data_options: Annotated[dict[str, object], BeforeValidator(_plain)] = field(default_factory=dict[str, object])
    "Further options of the data set, such as length=200."

    def describe(self) -> str:
        """For people: the data set, its split, and where it lies."""
        return f"{self.data}, {self.split}" + (f" in {self.root}" if self.root else "")

    def kind(self) -> type[SegmentationDataset]:
        """The data set's class. Raises `ValueError`, nearest named, where there is none of this name."""
        from nonlocalseg.data.catalog import DATASETS

        if not self.data:
            raise ValueError("no data set is given: add --data NAME (see `nonlocalseg list datasets`)")
        return DATASETS[pick("data set", self.data, DATASETS)]

    def read_options(self) -> DatasetOptions:
        """`data_options`, checked. Raises `ValueError` for an option that the data set lacks, and for a wrong value."""
        kind = self.kind()
        try:
            return kind.read_options(self.data_options)
        except ValueError as error:
            raise ValueError(f"data_options: {error}") from None

    def check(self, split: str | None = None, option: str = "split") -> None:
        """Raises `ValueError` for a data set, an option or a split that does not exist; reads no file.

        split: another one than the source's own, which comes from the field `option`.
        """
        splits = self.kind().splits
        self.read_options()
        for part in (self.split if split is None else split).split("+"):
            pick(f"{option} of {self.data}", part, splits)

    def known_classes(self) -> tuple[str, ...] | None:
        """The classes, as far as they are known before any file is read; None where the files name them."""
        return self.kind().known_classes(self.read_options())

    def label_map(self) -> tuple[tuple[str, ...], LabelMap]:
        """The classes, and what stored labels mean; where there is no root, as far as the data set always has both.

        Raises `ValueError` as `check` does, and where only the files say it and there is no root.
        """
        kind = self.kind()
        classes = self.known_classes()
        labels: Labels | None = getattr(kind, "labels", None)
        if self.root is None and kind.needs_root and classes and labels:
            return classes, labels.meaning
        found = self.open()[0]
        return found.classes, found.labels.meaning

    def open(self, transform: Transform | None = None) -> list[SegmentationDataset]:
        """One data set for each of the `+`-joined splits.

        Raises `ValueError` as `check` does, and OSError or ValueError for what is wrong with the files and for a split
        without images.
        """
        self.check()
        return [self.open_split(part, transform) for part in self.split.split("+")]

    def open_split(self, split: str, transform: Transform | None = None, *, strict: bool = True) -> SegmentationDataset:
        """One split of the data set, from its files or its shards; see `SegmentationDataset`."""
        from nonlocalseg.data.shards import Shards, is_sharded

        if self.root is not None and is_sharded(self.root):
            return Shards(self, split, transform)
        kind: Callable[..., SegmentationDataset] = self.kind()
        return kind(self.root, split, transform, strict=strict, **self.data_options)

    def disjoint_splits(self) -> tuple[str, ...]:
        """The splits that together hold every pair once."""
        from nonlocalseg.data.shards import is_sharded, read_index

        if self.root is not None and is_sharded(self.root):
            return read_index(self.root).disjoint
        return self.kind().disjoint_splits(Path(self.root or ".").expanduser(), self.read_options())

    def labelled(self, purpose: str, transform: Transform | None = None) -> list[SegmentationDataset]:
        """`open`, where every image must have a label to `purpose`, as in "train on", and some pixel a class.

        Raises `ValueError` otherwise.
        """
        parts = self.open(transform)
        if any(pair.label is None for part in parts for pair in part.pairs):
            raise ValueError(f"{self.root or self.data}: the split {self.split!r} has no labels to {purpose}")
        if not any(part.shows_classes() for part in parts):
            raise ValueError(
                f"{self.root or self.data}: every pixel of the split {self.split!r} is ignored, none is there to "
                f"{purpose}; give the values of the masks a class (`nonlocalseg check-data` shows them)"
            )
        return parts


def read_recipe(path: str | Path) -> dict[str, Any]:
    """What a recipe.yaml holds, unchecked but for its phases, of which there is at least one: each is a mapping.

    Raises ValueError, one line, for a file that is damaged or that is none.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):  # a few lines of them fill any memory
            raise ValueError("it has aliases (*name); write out what they stand for")
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is no recipe.yaml: {' '.join(str(error).split())}") from error
    phases = content.get("phases") if is_mapping(content) else None
    if not is_row(phases) or not phases:
        raise ValueError(f"{path} is no recipe.yaml: it lists no phases; give the recipe.yaml of a run")
    for phase in phases:
        if not is_mapping(phase):
            raise ValueError(f"{path}: phases: expected names and values, found {type(phase).__name__}")
    return dict(content)


def source_of_run(run: str | Path) -> DataSource | None:
    """What the run in this folder was last validated on, by its recipe.yaml; None where the folder holds none.

    `split` is empty where there was no validation. Raises ValueError for a recipe.yaml that is damaged.
    """
    path = Path(run) / RECIPE
    if not path.is_file():
        return None
    last = read_recipe(path)["phases"][-1]
    found = {name: last[name] for name in names_of(DataSource) if name in last}
    return from_plain(DataSource, {**found, "split": last.get("val_split", "val") or ""}, path)


def settled_source(run: str | Path | None, source: DataSource | None, changes: Mapping[str, object]) -> DataSource:
    """What a model is measured on: `source`, or else what its run was validated on, with `changes` over it.

    Without either it is a folder of images. Nothing of the run counts where `changes` name another data set. Raises
    ValueError where the run was trained without validation and no split is given.
    """
    own = source if source is not None or run is None else source_of_run(run)
    given = {name: item for name, item in changes.items() if item is not None}
    if own is None or given.get("data", own.data) != own.data:
        return changed(DataSource(data="folder"), given)
    options = {**own.data_options, **cast("dict[str, object]", given.get("data_options", {}))}
    found = changed(own, {**given, "data_options": options})
    if not found.split:
        raise ValueError(f"--split: {run} was trained without validation; say what to measure on, such as --split test")
    return found
