"""manifest.csv: every input of a folder of predictions exactly once, what became of it, and how; areas.csv beside it.

A row is appended, with one write, when the files of an input are in place: a call that was killed has lost the inputs it
was at, and no others. What is to be labelled again is taken out of both files before it is begun.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from nonlocalseg.files import writing
from nonlocalseg.inference.batch import DONE, FAILED, Labelled, Way
from nonlocalseg.inference.photographs import AREAS, MANIFEST
from nonlocalseg.inference.predictor import KINDS
from nonlocalseg.inference.sources import Listed

COLUMNS = ("input", "output", "status", "reason", "model", "view", "options", "stamp")
AREA_COLUMNS = ("image", "class", "pixels", "share", "square_metres")
Row = Mapping[str, str]


class Manifest:
    """The rows of the folder `out`: of this call, and of earlier ones whose label images are still there."""

    def __init__(self, out: Path, way: Way, listed: Sequence[Listed], again: bool = False) -> None:
        """`again`: what was done earlier does not count. Raises ValueError where one of the two files is another's."""
        self._out, self._way = out, way
        self._wanted = {item.input: item for item in listed}
        self._names = {item.name for item in listed}
        self.earlier: set[str] = set()
        """The inputs of this call that need not be labelled again."""
        _mend(out / MANIFEST, COLUMNS)
        _mend(out / AREAS, AREA_COLUMNS)
        self._with_areas = {row["image"] for _, row in _rows(out / AREAS, AREA_COLUMNS)}
        last, kept, names = {}, set(), set()
        for number, row in _rows(out / MANIFEST, COLUMNS):
            last[row["input"]] = number
        for number, row in _rows(out / MANIFEST, COLUMNS):
            if last[row["input"]] == number and self._counts(row, again):
                kept.add(number)
                names.add(_name(row["output"]))
                self.earlier |= {row["input"]} & self._wanted.keys()
        _keep(out / MANIFEST, COLUMNS, lambda number, _: number in kept)
        _keep(out / AREAS, AREA_COLUMNS, lambda _, row: row["image"] in names)
        self._told = set(self.earlier)

    def add(self, found: Labelled) -> None:
        """One input of this call, whose files are in place, or which has failed; ValueError for one that was added."""
        if found.item.input in self._told or found.item.input not in self._wanted:
            raise ValueError(f"{found.item.input}: accounted for twice, or never asked for")
        way = {"model": self._way.model, "view": self._way.view, "options": self._way.options}
        said = {"input": found.item.input, "output": found.output, "status": found.status, "reason": found.reason}
        if found.areas:
            _append(self._out / AREAS, AREA_COLUMNS, found.areas)
        _append(self._out / MANIFEST, COLUMNS, [{**said, **way, "stamp": found.item.stamp}])
        self._told.add(found.item.input)

    def _counts(self, row: Row, again: bool) -> bool:
        """Whether an earlier row still holds: of other inputs, those whose label image is there and is not about to be
        replaced, and failures; of this call's, those that were labelled in this way and have not changed since."""
        item = self._wanted.get(row["input"])
        if item is None:
            return row["status"] == FAILED or (self._is_there(row) and _name(row["output"]) not in self._names)
        if again or row["status"] != DONE or (_name(row["output"]), row["stamp"]) != (item.name, item.stamp):
            return False
        return Way(row["model"], row["view"], row["options"]) == self._way and self._is_there(row)

    def _is_there(self, row: Row) -> bool:
        """All pictures of one that has them; of another, as of arrays, its label image."""
        name, output = _name(row["output"]), Path(row["output"])
        pictures = [Path(kind, f"{name}.png") for kind in KINDS] if output.suffix == ".png" else [output]
        return name in self._with_areas and all((self._out / path).is_file() for path in pictures)


def _name(output: str) -> str:
    """Of the pictures of an input, by its label image."""
    return output.removeprefix(f"{KINDS[0]}/").rpartition(".")[0]


def _append(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Rows at the end of a table; with its header where there is none yet."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode("utf-8", "backslashreplace")
        while content:  # a disk that fills up takes a part
            content = content[file.write(content) :]


def _keep(path: Path, columns: Sequence[str], wanted: Callable[[int, Row], bool]) -> None:
    """Leave only the wanted rows in a table; it is written anew where that changes it."""
    if all(wanted(number, row) for number, row in _rows(path, columns)):
        return
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(row for number, row in _rows(path, columns) if wanted(number, row))


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """The whole rows of a table, with numbers; none where there is no table yet."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
        for number, line in enumerate(csv.reader(file)):
            if number and len(line) == len(columns):
                yield number, dict(zip(columns, line, strict=True))


def _mend(path: Path, columns: Sequence[str]) -> None:
    """Take off a last line that was cut short, by a kill or a full disk. Raises ValueError for another table."""
    if not path.is_file() or not path.stat().st_size:
        return
    header = f"{','.join(columns)}\r\n".encode()
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
        if not header.startswith(content[: len(header)]):
            raise ValueError(f"{path} is no table of predictions: move it away, or choose another --out")
    if end < path.stat().st_size:
        os.truncate(path, end)
