"""`annotate()`: labels in the formats that labelling tools import, written one image after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np

from nonlocalseg.choices import pick
from nonlocalseg.data.coco_writing import INSTANCES, writing_coco
from nonlocalseg.data.cvat import ANNOTATIONS, LABELS, writing_cvat
from nonlocalseg.data.geojson import FOLDER, writing_geojson
from nonlocalseg.data.label_studio import INTERFACE, TASKS, writing_label_studio
from nonlocalseg.labels import Colour, check_class_names, default_palette

Add = Callable[[int, str, np.ndarray], None]
Writer = Callable[[Path, Sequence[str], Sequence[Colour]], AbstractContextManager[Add]]
FORMATS: Mapping[str, Writer] = {
    "cvat": writing_cvat,
    "label-studio": writing_label_studio,
    "coco": writing_coco,
    "geojson": writing_geojson,
}
WRITTEN = (Path(ANNOTATIONS), Path(LABELS), Path(TASKS), Path(INTERFACE), INSTANCES.parent, Path(FOLDER))
"""What the formats write below their folder: files, and folders of files."""


def check_names(names: Iterable[str]) -> None:
    """ValueError for the name of an image that cannot stand in these files."""
    for name in names:
        if not name.isprintable():
            raise ValueError(f"{name!r} cannot stand in a file of annotations: rename the image")


def annotate(
    folder: str | Path,
    formats: Sequence[str],
    masks: Iterable[tuple[str, np.ndarray]],
    classes: Sequence[str],
    palette: Sequence[Colour] = (),
) -> None:
    """Write the class indices [H, W] of images, each with its name, to `folder` in each of the `formats`.

    One mask is in memory at a time, and no file is in its place before it is whole. palette: by default the usual
    colours. Raises `ValueError` for an unknown format, for a class that has no name among `classes`, and for names that
    cannot be printed.
    """
    writers = [FORMATS[pick("format", name, FORMATS)] for name in dict.fromkeys(formats)]
    check_class_names(classes)
    colours = palette or default_palette(len(classes))
    with ExitStack() as stack:
        adders = [stack.enter_context(writer(Path(folder), classes, colours)) for writer in writers]
        for number, (name, mask) in enumerate(masks):
            check_names([name])
            if mask.size and not 0 <= mask.min() <= mask.max() < len(classes):
                raise ValueError(f"{name}: class {mask.max()} has no name, there are {len(classes)}")
            for add in adders:
                add(number, name, mask)
