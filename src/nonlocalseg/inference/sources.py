"""Where inputs come from: files, lists, Parquet, tar shards and addresses; one `Listed` for each, fetched when needed."""

from __future__ import annotations

import glob
import io
import os
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from nonlocalseg.images import SUFFIXES
from nonlocalseg.inference.addresses import ADDRESS, opened, reached
from nonlocalseg.inference.photographs import find_photographs
from nonlocalseg.inference.tables import Cell, addresses_in, cells_in, read_cell

LISTS, PARQUET, SHARDS = {".csv", ".tsv", ".txt"}, {".parquet"}, {".tar"}


@dataclass(frozen=True)
class Span:
    """The bytes of a file in a tar archive."""

    start: int
    length: int


@dataclass(frozen=True)
class Listed:
    """One input.

    input: what the manifest calls it, the same from one call to the next. name: what its pictures are called, a
    relative path. place: the file or address that holds it. part: where in there, for one of several. stamp: changes
    when the file does; empty where that is not known.
    """

    input: str
    name: str
    place: str
    stamp: str = ""
    part: Span | Cell | None = None

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """A file on this machine that holds nothing else, as long as the block runs. Raises ValueError, FileNotFoundError
        or ConnectionError for what cannot be had."""
        if self.part is None and not ADDRESS.match(self.place):
            yield Path(self.place)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"image{PurePosixPath(self.name).suffix}"
            path.write_bytes(self._content())
            yield path

    def _content(self) -> bytes:
        if isinstance(self.part, Cell):
            return read_cell(self.place, self.stamp, self.part)
        with opened(self.place) as file:
            if self.part is None:
                return file.read()
            file.seek(self.part.start)
            return file.read(self.part.length)


@dataclass(frozen=True)
class Inputs:
    """listed: in their order, each once, with names of their own. foreign: files that are no images by their names.
    own: pictures that an earlier prediction wrote."""

    listed: list[Listed]
    foreign: list[Path]
    own: list[Path]


def find_inputs(paths: Iterable[str], out: Path, column: str | None = None) -> Inputs:
    """The images among files, folders, patterns, addresses, lists (.csv, .tsv, .txt), Parquet files and tar archives.

    Files, folders and patterns are named as `find_photographs` has it, and addresses of folders and patterns alike.
    What a list names is called by its path below the list, or by its whole path or address; what a shard holds by the
    shard's name and its own. column: of a list or Parquet file; by default the first of `tables.COLUMNS`. Raises
    FileNotFoundError and ValueError where there is nothing, and where a list or archive cannot be read.
    """
    plain, listed = [], []
    for given in paths:
        suffix = PurePosixPath(given).suffix.lower()
        if suffix not in LISTS | PARQUET | SHARDS and not ADDRESS.match(given):
            plain.append(given)
            continue
        base, files = _files(given)
        for place, stamp in files:
            if suffix in LISTS:
                listed += _of_list(place, column)
            elif suffix in PARQUET:
                listed += _of_parquet(place, stamp, column)
            elif suffix in SHARDS:
                listed += _of_shard(place, stamp)
            else:
                listed.append(Listed(place, _below(place, base), place, stamp))
    found = find_photographs(plain, out) if plain else None
    local = {} if found is None else found.names
    files = [Listed(os.path.abspath(path), name, str(path), stamp_of(path)) for path, name in local.items()]
    return Inputs(
        _distinct([*files, *listed]), [] if found is None else found.foreign, [] if found is None else found.own
    )


def stamp_of(path: Path) -> str:
    """Size and time of a file on this machine."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


# --- What there is ----------------------------------------------------------------------------------------------


def _files(given: str) -> tuple[str, list[tuple[str, str]]]:
    """The files that a path, pattern or address stands for, with their stamps, and below what their names begin; of a
    folder the images."""
    if not ADDRESS.match(given):
        path = Path(given).expanduser()
        matches = [path] if path.exists() else sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not matches:
            raise FileNotFoundError(f"{given}: no such file, folder or pattern match")
        return "", [(str(match), stamp_of(match)) for match in matches]
    with reached(given):
        import fsspec

        system, path = fsspec.core.url_to_fs(given)
        if any(sign in path for sign in "*[") or ("?" in path and not given.startswith("http")):
            found: dict[str, Any] = system.glob(path, detail=True)
        elif system.isfile(path):
            found = {path: system.info(path)}
        else:
            every = system.find(path, detail=True)
            found = {name: about for name, about in every.items() if PurePosixPath(name).suffix.lower() in SUFFIXES}
        found = {name: about for name, about in found.items() if about.get("type", "file") == "file"}
        if not found:
            raise FileNotFoundError(
                f"{given}: nothing there, or no images; expected one of {' '.join(sorted(SUFFIXES))}"
            )
        base = _fixed(system.unstrip_protocol(path))
        return base, [(system.unstrip_protocol(name), _stamp(about)) for name, about in sorted(found.items())]


def _stamp(about: dict[str, Any]) -> str:
    """What an object store says of a file: its own mark, or size and time."""
    marks = [about[name] for name in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created") if about.get(name)]
    return "-".join(str(mark) for mark in [about.get("size", ""), *marks[:1]])


def _of_list(place: str, column: str | None) -> Iterator[Listed]:
    for address in addresses_in(place, column):
        yield _named_in(address, place)


def _named_in(address: str, place: str) -> Listed:
    """What a list in `place` names, relative to it."""
    base = posixpath.dirname(place)
    if ADDRESS.match(address):
        return Listed(address, _below(address, base if ADDRESS.match(place) else ""), address)
    if ADDRESS.match(place):
        whole = posixpath.join(base, address)
        return Listed(whole, _below(whole, base), whole)
    path, base = os.path.abspath(os.path.join(base, address)), os.path.abspath(base)
    return Listed(path, _below(path, base), path, stamp_of(Path(path)))


def _of_parquet(place: str, stamp: str, column: str | None) -> Iterator[Listed]:
    for cell in cells_in(place, column):
        if isinstance(cell, str):
            yield _named_in(cell, place)
        else:
            name = f"{PurePosixPath(place).name}/{_safe(cell.name)}"
            yield Listed(f"{_whole(place)}#{cell.number}", name, place, stamp, cell)


def _of_shard(place: str, stamp: str) -> Iterator[Listed]:
    try:
        with opened(place) as file, tarfile.open(fileobj=_Bounded(file), mode="r:") as archive:
            for member in archive:
                if member.isreg() and PurePosixPath(member.name).suffix.lower() in SUFFIXES:
                    name = f"{PurePosixPath(place).name}/{_safe(member.name)}"
                    span = Span(member.offset_data, member.size)
                    yield Listed(f"{_whole(place)}#{member.name}", name, place, stamp, span)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(f"{place}: no whole, plain tar archive ({error})") from None


class _Bounded(io.BufferedIOBase):
    """A file of which nobody reads more than there is: a damaged header asks for more than memory has."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, count: int | None = None, /) -> bytes:
        left = max(0, self._size - self.tell())
        return self._file.read(left if count is None else min(count, left))

    def seek(self, place: int, whence: int = 0, /) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()


# --- What they are called ---------------------------------------------------------------------------------------


def _whole(place: str) -> str:
    return place if ADDRESS.match(place) else os.path.abspath(place)


def _fixed(given: str) -> str:
    """The part of an address below which names begin: a folder, or what stands before the signs of a pattern."""
    parts = given.split("/")
    last = next((place for place, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
    fixed = "/".join(parts[:last]).rstrip("/")
    return posixpath.dirname(fixed) if PurePosixPath(fixed).suffix.lower() in SUFFIXES else fixed


def _below(place: str, base: str) -> str:
    """A relative path for what lies in `place`: below `base` where it does, else all of it."""
    inside = bool(base) and place.startswith(f"{base.rstrip('/')}/")
    return _safe(place[len(base.rstrip("/")) + 1 :] if inside else place.replace("://", "/"))


def _safe(name: str) -> str:
    """`name` as a path that stays where it is put, whatever an archive or list says."""
    parts = [part for part in re.split(r"[/\\\0]", name) if part not in ("", ".", "..")]
    return "/".join(parts) or "image"


def _distinct(listed: Iterable[Listed]) -> list[Listed]:
    """Each input once; of several that would be called the same, the later ones with a number."""
    found: dict[str, Listed] = {}
    taken: set[str] = set()
    for item in listed:
        if item.input in found:
            continue
        name, number = item.name, 1
        while name.casefold() in taken:
            number += 1
            path = PurePosixPath(item.name)
            name = str(path.with_name(f"{path.stem}~{number}{path.suffix}"))
        taken.add(name.casefold())
        found[item.input] = item if name == item.name else replace(item, name=name)
    return list(found.values())
