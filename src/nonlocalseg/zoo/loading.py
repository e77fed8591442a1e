"""Models of the zoo as models of ours: fetched, converted, with their classes and the view that they were tested with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.reading import read_checkpoint
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.labels import LabelMap, Palette
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.values import changed
from nonlocalseg.view import View
from nonlocalseg.zoo.download import fetch
from nonlocalseg.zoo.entries import PREFIX, Entry, find_entry
from nonlocalseg.zoo.official import OFFICIAL, find_official, path_of


def load(name: str, mirror: str | None = None) -> Segmenter:
    """The model called `name`, `mmseg:...` or `official:...`, in evaluation mode; its published figure and the terms of its
    training data are printed to stderr, once in a process.

    Its config holds class names, palette, and the published test setting as its view. Raises what `fetch`, `find_entry`
    and `convert` raise.
    """
    if name.startswith(OFFICIAL):
        found = find_official(name)
        classes, palette, labels = classes_of(found.data, {})
        model = convert(read_checkpoint(path_of(name)), found.source, classes, palette)
        _tell(name, found.published, found.terms)
        return _told(model, name, found.view, labels)
    entry = find_entry(name)
    model = converted(entry, mirror)
    _tell(PREFIX + entry.name, entry.published(), entry.terms)
    return model


def converted(entry: Entry, mirror: str | None = None) -> Segmenter:
    """The model of an entry, whose network is the entry's, whatever its file may say."""
    content = read_checkpoint(fetch(entry, mirror))
    classes, palette, labels = classes_of(entry.data, entry.data_options)
    model = convert(content, "mmseg", classes, palette, config={"model": entry.config})
    return _told(model, PREFIX + entry.name, entry.view, labels)


def classes_of(data: str, options: dict[str, object]) -> tuple[Sequence[str], Palette, LabelMap | None]:
    """Names and colours of a data set's classes, in the order of the checkpoints, and what its stored labels mean where
    that does not depend on its files."""
    kind = DATASETS[data]
    chosen = kind.read_options(options)
    names = kind.known_classes(chosen)
    assert names is not None, data
    labels = None if options else getattr(kind, "labels", None)
    return names, kind.known_palette(chosen), labels.meaning if labels else None


def _told(model: Segmenter, name: str, view: View, labels: LabelMap | None) -> Segmenter:
    assert model.config is not None
    model.config = changed(model.config, {"converted_from": name, "view": view, "label_map": labels})
    return model


@cache
def _tell(name: str, published: str, terms: str) -> None:
    print(f"{name}: published {published}; {terms}", file=sys.stderr)
