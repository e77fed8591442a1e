"""Label Studio's JSON: brushed masks in its own run lengths and polygons, read; masks as predictions, written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NotRequired
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

import numpy as np
from pydantic import FailFast
from typing_extensions import TypedDict

from nonlocalseg.data.layouts import read_json
from nonlocalseg.data.outlines import fill_rings
from nonlocalseg.data.run_lengths import runs_of
from nonlocalseg.data.shapes import Shape, Sheet, SheetFile, regions_of
from nonlocalseg.files import write_text, writing
from nonlocalseg.images import check_size
from nonlocalseg.labels import Colour

TASKS, INTERFACE = "label-studio.json", "label-studio.xml"
"""The tasks with their predictions, and the labelling interface that a project must have to show them."""
LOCAL = "/data/local-files/?d="
"""How Label Studio calls a file below its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
_RUN_BITS = (3, 4, 8, 16)  # of the four lengths of runs; a number takes as few as it can
_HEADER = 32 + 5 + 4 * 4


class _Result(TypedDict):
    type: str
    value: dict[str, Any]
    original_width: NotRequired[int]
    original_height: NotRequired[int]


class _Work(TypedDict):
    result: Annotated[list[_Result], FailFast()]
    was_cancelled: NotRequired[bool]


class _Task(TypedDict):
    data: dict[str, Any]
    annotations: NotRequired[list[_Work]]
    predictions: NotRequired[list[_Work]]


def is_label_studio(path: Path) -> bool:
    """Whether a JSON file is a list, as tasks are."""
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["


def read_label_studio(path: Path) -> SheetFile:
    """The masks and polygons of every task: of its newest annotation, or, where nobody has annotated it, prediction.

    Tasks without either are no images. Raises `ValueError` that names the file and what is wrong in it.
    """
    sheets: list[Sheet] = []
    left = 0
    for number, task in enumerate(read_json(path, list[_Task], "Label Studio's JSON")):
        done = [work for work in task.get("annotations", []) if not work.get("was_cancelled")]
        works = done or task.get("predictions", [])
        if not works:
            continue
        try:
            name = _name_of(task["data"])
            found = [(one, _shape(one)) for one in works[-1]["result"]]
            sized = next((one for one in works[-1]["result"] if "original_width" in one), None)
            if sized is None:
                raise ValueError("no result says how large the image is")
            height, width = int(sized.get("original_height", 0)), int(sized.get("original_width", 0))
            check_size(width, height)
        except ValueError as error:
            raise ValueError(f"{path}: task {number}: {error}") from None
        left += sum(shape is None for _, shape in found)
        sheets.append(Sheet(name, (height, width), [shape for _, shape in found if shape]))
    labels = dict.fromkeys(shape.label for sheet in sheets for shape in sheet.shapes)
    return SheetFile(path, list(labels), {}, sheets, left)


def _name_of(data: dict[str, Any]) -> str:
    """The path of a task's image: below the folder of local files, or the end of its address."""
    address = next((item for item in data.values() if isinstance(item, str) and item), None)
    if address is None:
        raise ValueError("its data name no image")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(PurePosixPath(parts.path).name)


def _shape(result: _Result) -> Shape | None:
    """None for a shape of another kind."""
    kind, value = result["type"], result["value"]
    labels = value.get(kind) or value.get("labels")
    if not isinstance(labels, list) or not labels or not isinstance(labels[0], str):
        return None
    if isinstance(value.get("rle"), list):
        return Shape(labels[0], partial(unpack, value["rle"]))
    if isinstance(value.get("points"), list) and kind.startswith("polygon"):
        return Shape(labels[0], partial(_polygon, value["points"]))
    return None


def _polygon(points: list[Any], size: tuple[int, int]) -> np.ndarray:
    """Corners in per cent of the image."""
    try:
        corners = np.array(points, float).reshape(-1, 2) * (size[1] / 100, size[0] / 100)
    except (ValueError, TypeError):
        raise ValueError("the points of a polygon are [x, y], in per cent") from None
    if not len(corners) or not (abs(corners) < 1e6).all():
        raise ValueError("the points of a polygon lie far outside its image")
    return fill_rings([corners], size)


def pack(mask: np.ndarray) -> list[int]:
    """bool [H, W] as Label Studio's brush has it: the bytes of runs of RGBA pixels, 0 or 255 in all four channels.

    The stream of bits holds how many values follow (32), bits of a value less 1 (5), bits of the four lengths less 1
    (4 each), and blocks: 1 for a run or 0 for single values, which length (2), the length less 1, one value or that many.
    """
    bits = [f"{4 * mask.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    for place, run in enumerate(runs_of(mask)):
        word, length = "1" * 8 if place % 2 else "0" * 8, 4 * run
        while length:
            part = min(length, 1 << _RUN_BITS[-1])
            which = next(number for number, size in enumerate(_RUN_BITS) if part <= 1 << size)
            bits.append(f"1{which:02b}{part - 1:0{_RUN_BITS[which]}b}{word}")
            length -= part
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))


def unpack(packed: list[Any], size: tuple[int, int]) -> np.ndarray:
    """What `pack`, or Label Studio's own brush, made of an image of `size`, bool [H, W]: where it is not transparent.

    Raises `ValueError` for what is no such thing, or of another size.
    """
    try:
        bits = np.unpackbits(np.frombuffer(bytes(packed), np.uint8))
    except (ValueError, TypeError):
        raise ValueError("a brush's mask is a list of bytes") from None
    total, text = size[0] * size[1] * 4, (bits + 48).tobytes()
    if len(text) < _HEADER or int(text[:32], 2) != total:
        raise ValueError(f"a brush's mask does not fill {size[1]}x{size[0]} pixels")
    word = int(text[32:37], 2) + 1
    lengths = [int(text[place : place + 4], 2) + 1 for place in range(37, _HEADER, 4)]
    values = np.zeros(total, bool)
    place, done = _HEADER, 0
    while done < total:
        wide = lengths[int(text[place + 1 : place + 3] or b"0", 2)]
        first = place + 3 + wide
        if first + word > len(text):
            raise ValueError("a brush's mask is cut off")
        count, repeated = int(text[place + 3 : first], 2) + 1, text[place] == 49
        place = first + word * (1 if repeated else count)
        if place > len(text) or done + count > total:
            raise ValueError("a brush's mask is cut off, or holds too much")
        words = bits[first:place].reshape(-1, word).any(axis=1)
        values[done : done + count] = words
        done += count
    return values[3::4].reshape(size)


@contextmanager
def writing_label_studio(
    folder: Path, classes: Sequence[str], palette: Sequence[Colour]
) -> Iterator[Callable[[int, str, np.ndarray], None]]:
    """A function (number, name, class indices [H, W]) that adds an image; the file is in its place when the block ends."""
    with writing(folder / TASKS) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        between = "\n"

        def add(number: int, name: str, mask: np.ndarray) -> None:
            nonlocal between
            height, width = mask.shape
            results = [
                {
                    "id": f"{number}-{region.index}",
                    "type": "brushlabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": {
                        "format": "rle",
                        "rle": pack(mask == region.index),
                        "brushlabels": [classes[region.index]],
                    },
                }
                for region in regions_of(mask)
            ]
            prediction = {"model_version": "nonlocalseg", "result": results}
            task = {"data": {"image": LOCAL + quote(name)}, "predictions": [prediction]}
            file.write(between + json.dumps(task, ensure_ascii=False, separators=(",", ":")))
            between = ",\n"

        yield add
        file.write("\n]\n")
    write_text(folder / INTERFACE, _interface(classes, palette))


def _interface(classes: Sequence[str], palette: Sequence[Colour]) -> str:
    """The labelling interface of a project: one brush for each class."""
    labels = [
        f'    <Label value={quoteattr(name)} background="#{red:02x}{green:02x}{blue:02x}"/>'
        for name, (red, green, blue) in zip(classes, palette, strict=True)
    ]
    before = ["<View>", '  <Image name="image" value="$image"/>', '  <BrushLabels name="label" toName="image">']
    return "\n".join([*before, *labels, "  </BrushLabels>", "</View>", ""])
