"""Lists of images: text with one path or address a line, CSV with a column of them, Parquet with such or with bytes."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nonlocalseg.choices import pick
from nonlocalseg.extras import needing
from nonlocalseg.inference.addresses import opened

COLUMNS = ("input", "image", "images", "path", "file", "file_name", "filename", "url", "bytes")
"""What the column of a table may be called where none is named, the first before the others."""


@dataclass(frozen=True)
class Cell:
    """The bytes of an image in a Parquet file: column, row group, row in it, row in the file, and a name."""

    column: str
    group: int
    row: int
    number: int
    name: str


def addresses_in(place: str, column: str | None) -> list[str]:
    """What the list in `place` names. In text, empty lines and those that begin with # are not
    read. Raises ValueError for a list without such a column, and for an empty one."""
    with opened(place) as file:
        content: bytes = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: byte {error.start} is no UTF-8 text; save the file as UTF-8") from None
    suffix = PurePosixPath(place).suffix.lower()
    if suffix == ".txt":
        lines = [line.strip() for line in text.splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
    else:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
        chosen = _column(rows.fieldnames or [], place, column)
        found = [row[chosen] for row in rows if row[chosen]]
    if not found:
        raise ValueError(f"{place}: names no image")
    return found


def cells_in(place: str, column: str | None) -> list[str | Cell]:
    """What the rows of a Parquet file hold: paths and addresses, or images, as bytes or as Hugging Face's data sets
    keep them (bytes and path). Raises ValueError for one that is damaged, or without such a column."""
    with needing("ray", place):
        import pyarrow as arrow
        from pyarrow import parquet
    with opened(place) as file, _whole(place):
        source = parquet.ParquetFile(file)
        schema = source.schema_arrow
        chosen = _column(schema.names, place, column)
        kind = schema.field(chosen).type
        if arrow.types.is_string(kind) or arrow.types.is_large_string(kind):
            return [text for text in source.read([chosen])[chosen].to_pylist() if text]
        struct = arrow.types.is_struct(kind)
        if not struct and not (arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind)):
            raise ValueError(
                f"{place}: column {chosen} holds {kind}; name one of paths, addresses or images by --column"
            )
        found: list[str | Cell] = []
        for group in range(source.num_row_groups):
            rows = source.metadata.row_group(group).num_rows
            names = source.read_row_group(group, [f"{chosen}.path"])[chosen].to_pylist() if struct else [None] * rows
            for row, name in enumerate(names):
                number = len(found)
                called = (name or {}).get("path") or f"{number:06}"
                found.append(Cell(chosen, group, row, number, called))
    return found


def read_cell(place: str, stamp: str, cell: Cell) -> bytes:
    """The image in a cell; ValueError where there is none. stamp: changes when the file does."""
    found = _group(place, stamp, cell.column, cell.group)[cell.row].as_py()
    content = found.get("bytes") if isinstance(found, dict) else found
    if not content:
        raise ValueError(f"{place}#{cell.number}: no image in this row")
    return content


@functools.lru_cache(maxsize=1)  # the images of a group follow one another
def _group(place: str, stamp: str, column: str, group: int) -> Any:
    """A column of a row group."""
    from pyarrow import parquet

    with opened(place) as file, _whole(place):
        return parquet.ParquetFile(file).read_row_group(group, [column])[column]


@contextmanager
def _whole(place: str) -> Iterator[None]:
    """What Parquet's reader says of a damaged file, in one line."""
    import pyarrow as arrow

    try:
        yield
    except (arrow.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"{place}: a damaged Parquet file ({str(error).partition(chr(10))[0]})") from None


def _column(names: Sequence[str], place: str, column: str | None) -> str:
    if column is not None:
        return pick(f"column of {place}", column, names)
    for name in COLUMNS:
        if name in names:
            return name
    raise ValueError(f"{place}: which of its columns ({', '.join(names)}) holds the images? Say so with --column")
