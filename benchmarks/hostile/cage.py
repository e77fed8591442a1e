"""Cases run in processes of their own, watched: what they say, write, open, start, take of time and memory.

A case fails where it ends in anything but an answer or one line that the command line would print with "error:", where
its process dies or prints by itself, takes more time or memory than allowed, touches a file outside its folder, starts a
process or connects to anything.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.hostile.changes import CANARY
from nonlocalseg.cli.errors import describe

SECONDS = 10.0
"""Of its own time that a case may take."""
PATIENCE = 90.0
"""Seconds of any clock after which a case that takes no time of its own hangs: others may be using the processor."""
MEGABYTES = 1500
"""That a case may take beyond what its process had: an image of the most pixels that are decoded takes 1,100."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PLACES = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.utime", "os.mkfifo"), (0,)),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink", "shutil.move", "shutil.copyfile"), (1,)),
}
_STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
_CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")


@dataclass(frozen=True)
class Caged:
    """change: writes one case's files. ask: reads them; returns what it says beside its errors, each one line."""

    change: Callable[[random.Random], None]
    ask: Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Kind:
    """prepare: writes whole files into a folder, and tells what is done with them."""

    name: str
    prepare: Callable[[Path], Caged]
    quiet: bool = True
    "Nothing may be printed by libraries; otherwise verbs print."


@dataclass
class Outcome:
    """failed: why, one line; empty where all is well. said: its line where the case was refused."""

    number: int
    failed: str = ""
    said: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0
    trace: str = ""


@dataclass
class Tally:
    """What became of the cases of one kind."""

    kind: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failures(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.failed]

    @property
    def refused(self) -> int:
        return sum(bool(one.said) for one in self.outcomes)

    @property
    def slowest(self) -> float:
        return max((one.seconds for one in self.outcomes), default=0.0)

    @property
    def largest(self) -> float:
        return max((one.megabytes for one in self.outcomes), default=0.0)


def run(kind: Kind, numbers: Sequence[int], keep: Path | None = None) -> Tally:
    """The cases of these numbers, each of which is always the same. keep: a folder for the files of those that fail."""
    tally, left = Tally(kind.name), list(numbers)
    while left:
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            done = [*_in_child(kind, left, Path(folder), keep)]
        tally.outcomes += done
        left = left[len(done) :]
    return tally


def _in_child(kind: Kind, numbers: Sequence[int], folder: Path, keep: Path | None) -> Iterator[Outcome]:
    """Until all are done, or the process has to be given up: its last outcome says why."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 1
        try:
            with os.fdopen(writing, "w") as told:
                _work(kind, numbers, folder, told, keep)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    current: int | None = None
    try:
        with os.fdopen(reading, "rb") as heard:
            lines = _lines(heard, child)
            for line in lines:
                if "case" in line:
                    current = line["case"]
                elif "whole" in line:
                    raise AssertionError(f"{kind.name}: {line['whole']}")
                elif "why" in line:
                    yield Outcome(numbers[0] if current is None else current, line["why"])
                    return
                else:
                    current = None
                    yield Outcome(**line)
    finally:
        _end(child)
    if current is not None:
        yield Outcome(current, f"its process died: {_fate(_STATUS.pop(child))}")


_STATUS: dict[int, int] = {}


def _end(child: int) -> None:
    for _ in range(100):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _STATUS[child] = status
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    _STATUS[child] = os.waitpid(child, 0)[1]


def _fate(status: int) -> str:
    return signal.Signals(status & 127).name if status & 127 else f"exit status {status >> 8}"


def _lines(heard: IO[bytes], child: int) -> Iterator[dict[str, Any]]:
    """What the child tells; `why` where it is given up."""
    begun, before, busy, rest = time.monotonic(), _used(child), False, b""
    while True:
        ready, _, _ = select.select([heard], [], [], 0.5)
        if ready:
            part = os.read(heard.fileno(), 1 << 16)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                found = json.loads(line)
                busy = "case" in found
                begun, before = time.monotonic(), _used(child)
                yield found
        elif busy:
            used = _used(child) - before
            if used > SECONDS or time.monotonic() - begun > PATIENCE:
                os.kill(child, signal.SIGKILL)
                yield {"why": f"more than {SECONDS:.0f} s" if used > SECONDS else f"nothing for {PATIENCE:.0f} s"}
                return


def _used(child: int) -> float:
    """Seconds of processor time."""
    try:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- In the child -----------------------------------------------------------------------------------------------


def _work(kind: Kind, numbers: Sequence[int], folder: Path, told: IO[str], keep: Path | None) -> None:
    def tell(content: object) -> None:
        told.write(json.dumps(content) + "\n")
        told.flush()

    box, temporary = folder / "box", folder / "box" / "temporary"
    temporary.mkdir(parents=True)
    tempfile.tempdir, os.environ["TMPDIR"] = str(temporary), str(temporary)
    os.environ.update(HF_HUB_OFFLINE="1", NONLOCALSEG_CACHE=str(temporary / "cache"))
    noise = _silenced(box / "temporary" / "noise")
    os.chdir(box)
    files = box / "files"
    files.mkdir()
    try:
        caged = kind.prepare(files)
        list(caged.ask())  # which imports what is needed, too
    except BaseException:
        tell({"whole": f"whole files are not read\n{traceback.format_exc()}"})
        raise
    watch = Watch(box)
    room = _size("VmSize") + MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (2 * room, 2 * room))
    before = sorted(folder.iterdir())
    for number in numbers:
        tell({"case": number})
        try:
            caged.change(random.Random(f"{kind.name} {number}"))
        except BaseException:
            tell({"whole": f"case {number} could not be made\n{traceback.format_exc()}"})
            raise
        noise.truncate(0)
        outcome = _outcome(number, caged, watch)
        noise.seek(0)
        printed = noise.read().decode(errors="replace").strip()
        if not outcome.failed and sorted(folder.iterdir()) != before:
            outcome.failed = f"there is {sorted(set(folder.iterdir()) - set(before))} now"
        if not outcome.failed and kind.quiet and printed:
            outcome.failed = f"printed: {printed.splitlines()[0][:200]}"
        if outcome.failed and keep is not None:
            shutil.copytree(files, keep / f"{kind.name}-{number}", dirs_exist_ok=True, symlinks=True)
        tell(outcome.__dict__)


def _silenced(path: Path) -> IO[bytes]:
    """What is printed from now on, by libraries too."""
    file = path.open("a+b", buffering=0)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), write_through=True)
    return file


def _outcome(number: int, caged: Caged, watch: Watch) -> Outcome:
    found, said = Outcome(number), []
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    held, begun = _size("VmRSS"), time.process_time()
    try:
        with watch, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as the verbs have it
            said += caged.ask()
    except BaseException as error:
        line, _ = describe(error)
        if not line.startswith("error: ") or isinstance(error, (MemoryError, KeyboardInterrupt, SystemExit)):
            found.failed, found.trace = line, traceback.format_exc()
        said.append(str(error) if isinstance(error, ValueError) else line)
    found.seconds, found.megabytes = time.process_time() - begun, (_size("VmHWM") - held) / 2**20
    found.said = next(iter(said), "")[:300]
    several = next((line for line in said if "\n" in line or "Traceback" in line), None)
    if watch.seen:
        found.failed, found.trace = watch.seen[0], watch.where
    elif not found.failed and several is not None:
        found.failed = f"several lines: {several[:200]!r}"
    elif not found.failed and found.seconds > SECONDS:
        found.failed = f"took {found.seconds:.1f} s"
    elif not found.failed and found.megabytes > MEGABYTES:
        found.failed = f"took {found.megabytes:.0f} MB"
    return found


def _size(name: str) -> int:
    """Bytes that this process has."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise AssertionError(name)


class Watch:
    """What Python's own audit events tell, while it is entered: files opened or made, processes, connections."""

    def __init__(self, box: Path) -> None:
        self.box, self._on = os.path.realpath(box), False
        self.seen: list[str] = []
        self.where = ""
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self.seen.clear()
        self.where, self._on = "", True

    def __exit__(self, *_: object) -> None:
        self._on = False

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, _, flags = given
            if isinstance(path, (str, bytes)):
                name = os.fsdecode(path)
                if (CANARY in name or flags & _WRITES) and self._outside(name):
                    self._note(f"opened {name}")
        elif event in _PLACES:
            for place in _PLACES[event]:
                if isinstance(given[place], (str, bytes)) and self._outside(os.fsdecode(given[place])):
                    self._note(f"{event} {os.fsdecode(given[place])}")
        elif event in _STARTS or event in _CONNECTS:
            self._note(f"{event} {str(given)[:200]}")

    def _outside(self, name: str) -> bool:
        self._on = False  # what is asked here is no event
        try:
            place = os.path.realpath(name)
        except (OSError, ValueError):
            return False
        finally:
            self._on = True
        return place != os.devnull and not place.startswith(f"{self.box}{os.sep}")

    def _note(self, text: str) -> None:
        self.seen.append(text)
        self.where = self.where or "".join(traceback.format_stack())
