"""Writing whole files, beside their place and then renamed, so that none is ever left partial; and whether one may."""

from __future__ import annotations

import csv
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = re.compile(r"\..+\.[0-9a-f]{16}(\.\w+)?")


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; renamed to `path` when the block ends without an exception.

    The folder is made where it is missing. The temporary name keeps the suffix of `path`, because many writers choose
    the format by it. Raises `OSError` that names `path` where it cannot be written or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")  # as UNFINISHED
    # Not by tempfile, whose files are the owner's alone; here the process's umask decides, as for any new file.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def append_text(path: Path, text: str) -> None:
    """Add `text` as UTF-8 at the end of a file that exists, whole or not at all. Raises `OSError` that names it."""
    size = path.stat().st_size
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        os.truncate(path, size)
        raise OSError(error.errno, error.strerror, str(path)) from error


def sweep_unfinished(folder: Path) -> None:
    """Remove from `folder` what `writing` left there when its process was killed."""
    for path in folder.iterdir():
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def read_text(path: str | Path) -> str:
    """The whole of a text file in UTF-8, with or without a byte order mark. Raises `ValueError` for other bytes."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is no UTF-8 text; save the file as UTF-8") from None


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_rows(path: str | Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write `rows`, at least one and all of the same names, as CSV with a header to `path`, whole or not at all."""
    return write_table(path, list(rows[0]), rows)


def write_table(path: str | Path, names: Sequence[str], rows: Sequence[Mapping[str, object]]) -> Path:
    """Write `rows`, perhaps none, of these names as CSV with a header to `path`, whole or not at all."""
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def check_folder(path: str | Path, flag: str = "--out") -> Path:
    """`path` as a folder that can be written, or made; nothing is made yet. Raises ValueError otherwise."""
    folder = Path(path).expanduser()
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{flag}: {nearest} is a file, so {folder} cannot be a folder; choose another {flag}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{flag}: {nearest} may not be written; choose another {flag}")
    return folder


def cache_folder() -> Path:
    """Where downloads and what is made once are kept: `$NONLOCALSEG_CACHE`, else `nonlocalseg` in the user's cache folder."""
    given = os.environ.get("NONLOCALSEG_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nonlocalseg"
