"""Files of the zoo: from the cache, from a mirror or from their address; whole and with the right digest, or not at all."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from filelock import FileLock

from nonlocalseg.files import cache_folder, write_text
from nonlocalseg.zoo.entries import Entry

if TYPE_CHECKING:
    from typing_extensions import Buffer


MIRROR = "NONLOCALSEG_ZOO_MIRROR"
"""The variable of the environment that names a mirror; `--zoo-mirror` sets it."""


def fetch(entry: Entry, mirror: str | None = None) -> Path:
    """The file of `entry`, which is downloaded where the cache does not have it: from `mirror`, else from the one that
    `$NONLOCALSEG_ZOO_MIRROR` names, else from its own address.

    Its SHA-256 must begin as the entry says; the whole digest is kept beside it, and the file must have it from then on.
    An interrupted download goes on where it stopped. A mirror is a folder, or an address, that holds the files under the
    same paths as their server does, or by their bare names.

    Raises FileNotFoundError where there is no file and no network is wanted (`HF_HUB_OFFLINE=1`), ConnectionError where
    the download fails, ValueError for a wrong file, which is not kept.
    """
    mirror = mirror or os.environ.get(MIRROR)
    folder = cache_folder() / "zoo"
    target = folder / entry.file
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{entry.file}.lock"):
        if target.exists():
            return _checked(target, entry)
        part = folder / f".{entry.file}.part"
        if mirror is not None and "://" not in mirror:
            _copy(entry, Path(mirror), part)
        else:
            _download(entry, mirror, part)
        found = digest_of(part)
        if not found.startswith(entry.digest):
            part.unlink()
            raise ValueError(
                f"{entry.file}: its SHA-256 begins with {found[:8]} and not with {entry.digest}: the mirror or the "
                "connection changed it; nothing was kept, try another one"
            )
        write_text(_pin(target), found + "\n")
        part.replace(target)
    return target


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pin(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _checked(target: Path, entry: Entry) -> Path:
    """A file of the cache, whose digest is the one that was pinned."""
    pin, found = _pin(target), digest_of(target)
    pinned = pin.read_text(encoding="utf-8").strip() if pin.is_file() else entry.digest
    if not found.startswith(entry.digest) or not found.startswith(pinned):
        raise ValueError(f"{target} has changed since it was downloaded: delete it, and it is fetched again")
    if not pin.is_file():
        write_text(pin, found + "\n")
    return target


def _copy(entry: Entry, mirror: Path, part: Path) -> None:
    places = (mirror / entry.path, mirror / entry.file)
    source = next((place for place in places if place.is_file()), None)
    if source is None:
        raise FileNotFoundError(f"--zoo-mirror: {mirror} holds neither {entry.file} nor {entry.path}")
    shutil.copyfile(source, part)


def _download(entry: Entry, mirror: str | None, part: Path) -> None:
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.file_download import http_get

    address = entry.address if mirror is None else f"{mirror.rstrip('/')}/{entry.path}"
    cure = f"put the file {entry.file} into {part.parent}, or give --zoo-mirror with a folder or an address that has it"
    if HF_HUB_OFFLINE:
        raise FileNotFoundError(f"{entry.file} is not in {part.parent} and HF_HUB_OFFLINE is set: {cure}")
    limit = 4 * 1_000_000 * entry.megabytes + 64_000_000  # an optimizer's state may be in it
    try:
        with _quiet("huggingface_hub.file_download"), part.open("ab") as file:
            http_get(
                address, cast(BinaryIO, _Limited(file, limit)), resume_size=file.tell(), displayed_filename=entry.file
            )
    except _TooMuchError as error:
        part.unlink()
        raise ValueError(f"{address} {error}: it is not this file, or the server is broken; {cure}") from None
    except Exception as error:
        if "Consistency check failed" in str(error) or not part.stat().st_size:
            part.unlink()
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConnectionError(f"{address} could not be downloaded ({reason}): try again, {cure}") from error


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Without the warnings of every attempt: what comes of them is told in the end."""
    found = logging.getLogger(logger)
    before, found.disabled = found.disabled, True
    try:
        yield
    finally:
        found.disabled = before


class _TooMuchError(Exception):
    """More bytes, or more attempts, than the file is worth."""


class _Limited(io.RawIOBase):
    """A file that takes so many bytes, and is begun anew so many times, and no more: a server that breaks off and cannot go
    on where it stopped would be asked for ever."""

    RESTARTS = 3

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file, self.limit, self.restarts = file, limit, 0

    def write(self, data: Buffer, /) -> int:
        if self.file.tell() + memoryview(data).nbytes > self.limit:
            raise _TooMuchError(f"sends more than {self.limit / 1e6:.0f} MB")
        return self.file.write(data)

    def truncate(self, size: int | None = None, /) -> int:
        self.restarts += 1
        if self.restarts > self.RESTARTS:
            raise _TooMuchError("breaks off again and again")
        return self.file.truncate(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()
