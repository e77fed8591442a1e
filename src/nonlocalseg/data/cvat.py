"""CVAT's own format, "CVAT for images 1.1": one XML file of masks and polygons, read and written (docs.cvat.ai, XML)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from nonlocalseg.data.outlines import fill_rings
from nonlocalseg.data.run_lengths import filled, runs_of
from nonlocalseg.data.shapes import Shape, Sheet, SheetFile, regions_of
from nonlocalseg.files import write_text, writing
from nonlocalseg.images import check_size
from nonlocalseg.labels import Colour

ANNOTATIONS, LABELS = "annotations.xml", "cvat-labels.json"
"""The annotations, and the labels that a task in CVAT must have before they can be imported."""
_SHAPES = {"mask", "polygon"}


def read_cvat(path: Path) -> SheetFile:
    """Masks and polygons, lower ones first. Raises `ValueError` that names the file and what is wrong in it."""
    colours: dict[str, Colour] = {}
    labels: dict[str, None] = {}
    sheets: list[Sheet] = []
    left = 0
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "label" and (name := element.findtext("name")):
                labels[name] = None
                if colour := re.fullmatch("#([0-9a-fA-F]{6})", element.findtext("color") or ""):
                    red, green, blue = bytes.fromhex(colour[1])
                    colours[name] = red, green, blue
            elif element.tag == "image":
                sheets.append(_sheet(element))
                left += sum(child.tag not in _SHAPES for child in element)
                element.clear()
            elif element.tag == "track":
                raise ValueError("it is of a video; export the task as CVAT for images 1.1")
    except (ValueError, ElementTree.ParseError) as error:
        raise ValueError(f"{path}: not CVAT's annotations, or damaged ones: {' '.join(str(error).split())}") from None
    labels |= dict.fromkeys(shape.label for sheet in sheets for shape in sheet.shapes)
    return SheetFile(path, list(labels), colours, sheets, left)


def _sheet(image: ElementTree.Element) -> Sheet:
    name = _attribute(image, "name")
    try:
        width, height = (int(_attribute(image, side)) for side in ("width", "height"))
        check_size(width, height)
        shapes = sorted((one for one in image if one.tag in _SHAPES), key=lambda one: int(one.get("z_order", 0)))
        return Sheet(name, (height, width), [Shape(_attribute(one, "label"), _drawing(one)) for one in shapes])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _attribute(element: ElementTree.Element, name: str) -> str:
    found = element.get(name)
    if found is None:
        raise ValueError(f"<{element.tag}> has no {name}")
    return found


def _drawing(shape: ElementTree.Element) -> Callable[[tuple[int, int]], np.ndarray]:
    if shape.tag == "polygon":
        return partial(_polygon, _attribute(shape, "points"))
    box = tuple(int(_attribute(shape, side)) for side in ("left", "top", "width", "height"))
    return partial(_mask, _attribute(shape, "rle"), box)


def _polygon(points: str, size: tuple[int, int]) -> np.ndarray:
    corners = np.array([[float(number) for number in point.split(",")] for point in points.split(";")])
    if corners.shape[1] != 2 or not (abs(corners) < 1e6).all():
        raise ValueError("the points of a polygon are x,y;x,y;...")
    return fill_rings([corners], size)


def _mask(runs: str, box: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    left, top, width, height = box
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask at {left}, {top} of {width}x{height} lies outside its image of {size[1]}x{size[0]}")
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = filled([int(run) for run in runs.split(",")], (height, width))
    return mask


@contextmanager
def writing_cvat(
    folder: Path, classes: Sequence[str], palette: Sequence[Colour]
) -> Iterator[Callable[[int, str, np.ndarray], None]]:
    """A function (number, name, class indices [H, W]) that adds an image; the file is in its place when the block ends."""
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette]
    labels = [
        {"name": name, "color": colour, "type": "mask", "attributes": []}
        for name, colour in zip(classes, colours, strict=True)
    ]
    with writing(folder / ANNOTATIONS) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><labels>\n'
        )
        for label in labels:
            colour = f"<color>{label['color']}</color><type>mask</type><attributes></attributes>"
            file.write(f"<label><name>{escape(str(label['name']))}</name>{colour}</label>\n")
        file.write("</labels></task></meta>\n")

        def add(number: int, name: str, mask: np.ndarray) -> None:
            height, width = mask.shape
            file.write(f'<image id="{number}" name={quoteattr(name)} width="{width}" height="{height}">\n')
            for region in regions_of(mask):
                sides = zip(("left", "top", "width", "height"), region.box, strict=True)
                box = " ".join(f'{side}="{length}"' for side, length in sides)
                runs = ", ".join(map(str, runs_of(region.mask)))
                label = quoteattr(classes[region.index])
                file.write(f'<mask label={label} source="auto" occluded="0" rle="{runs}" {box} z_order="0"></mask>\n')
            file.write("</image>\n")

        yield add
        file.write("</annotations>\n")
    write_text(folder / LABELS, json.dumps(labels, ensure_ascii=False, indent=1) + "\n")
