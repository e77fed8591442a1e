"""One process at a time in a folder: a lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = "running.lock"


class Lock:
    """Held from the call that makes it until `release`. The file says who holds it; what a killed run left says nothing.

    Raises ValueError where another run holds it, on this machine or, where the disk tells, on another.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        while True:
            self._file = self.path.open("a+", encoding="utf-8", errors="replace")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.seek(0)
                process, host = [*self._file.read().split(), "?", "?"][:2]
                self._file.close()
                raise ValueError(
                    f"{folder} is being written by another run (process {process} on {host}): wait for it, or choose "
                    "another --out"
                ) from None
            except OSError:  # a disk without locks; nothing can be known there
                pass
            if self._is_in_place():
                break
            self._file.close()  # the other run has just removed it
        try:
            self._file.truncate(0)
            self._file.write(f"{os.getpid()} {socket.gethostname()}\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        # A process that reads images inherits the lock, and may outlive a killed training by seconds.
        os.register_at_fork(after_in_child=self._file.close)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self, keep: bool = False) -> None:
        """Let others in. `keep` leaves the file, as a killed run does."""
        if not keep:
            with suppress(OSError):  # the disk has become read-only
                self.path.unlink(missing_ok=True)
        self._file.close()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder for the block; the folder is made where it is missing. Raises as `Lock` does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder)
    try:
        yield
    finally:
        lock.release()
