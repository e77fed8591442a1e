"""Whole files of every kind, changed at random: answered or refused in one line, and nothing else happens.

`python -m benchmarks.mutations --cases 10000` does the same for more of them, and says more.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from benchmarks.hostile import cage
from benchmarks.hostile.cage import Caged, Kind, run
from benchmarks.hostile.changes import CANARY
from benchmarks.mutations import KINDS

SLOW = {"ONNX", "OpenVINO", "torch.export", "evaluations"}
"""Their files take seconds to make."""
NEEDS = {"ONNX": "onnxruntime", "OpenVINO": "openvino", "endpoint": "fastapi_offline"}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in SLOW])
def test_changed_files(name: str) -> None:
    check(name, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_changed_files_that_take_longer(name: str) -> None:
    check(name, 200)


def check(name: str, cases: int) -> None:
    pytest.importorskip(NEEDS.get(name, "torch"))
    tally = run(KINDS[name], range(cases))
    assert [(one.number, one.failed, one.trace) for one in tally.failures] == []
    assert len(tally.outcomes) == cases
    assert tally.refused > cases // 10


OUTSIDE = Path(tempfile.gettempdir()) / f"{CANARY}-{os.getpid()}"


def said() -> Iterable[str]:
    print("to standard output")
    return ()


def bad(*lines: str) -> Iterable[str]:
    return lines


def ends(error: BaseException) -> Iterable[str]:
    raise error


def writes() -> Iterable[str]:
    OUTSIDE.with_suffix(".txt").write_text("x")
    return ()


FAULTS: dict[str, tuple[Callable[[], Iterable[str]], str]] = {
    "error": (lambda: ends(RuntimeError("x")), "internal error: RuntimeError"),
    "memory": (lambda: ends(MemoryError()), "error: memory is full"),
    "lines": (lambda: bad("a\nb"), "several lines"),
    "print": (said, "printed: to standard output"),
    "bytes": (lambda: bytearray(100 << 20) and (), "MB"),
    "write": (writes, "opened "),
    "folder": (lambda: OUTSIDE.mkdir() or (), "os.mkdir"),
    "process": (lambda: subprocess.run(["true"]) and (), "subprocess.Popen"),
    "system": (lambda: os.system("true") and (), "os.system"),
    "connection": (lambda: __import__("socket").create_connection(("127.0.0.1", 9)), "socket."),
    "read": (lambda: OUTSIDE.read_text() and (), "opened "),
    "death": (lambda: os.kill(os.getpid(), 9) or (), "died: SIGKILL"),
    "hang": (lambda: time.sleep(60) or (), "nothing for 1 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second of three cases; the others are done all the same."""
    monkeypatch.setattr(cage, "PATIENCE", 1.0 if fault == "hang" else 60.0)
    monkeypatch.setattr(cage, "MEGABYTES", 50)
    function, words = FAULTS[fault]
    states, current = [random.Random(f"fault {number}").getstate() for number in range(3)], [0]

    def prepare(folder: Path) -> Caged:
        def change(drawn: random.Random) -> None:
            current[0] = states.index(drawn.getstate())

        return Caged(change, lambda: function() if current[0] == 1 else ())

    try:
        tally = run(Kind("fault", prepare), range(3))
    finally:
        for path in OUTSIDE.parent.glob(f"{OUTSIDE.name}*"):
            path.unlink() if path.is_file() else path.rmdir()
    assert [one.number for one in tally.outcomes] == [0, 1, 2]
    assert [bool(one.failed) for one in tally.outcomes] == [False, True, False]
    assert words in tally.failures[0].failed


def test_whole_files_must_be_read() -> None:
    with pytest.raises(AssertionError, match="whole files are not read"):
        run(Kind("fault", lambda folder: Caged(lambda drawn: None, lambda: ends(ValueError("x")))), range(2))


def test_the_script_tells_what_it_did() -> None:
    words = [sys.executable, "-m", "benchmarks.mutations", "--cases", "20", "--kinds", "masks", "recipes"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("20 cases in ")
    assert "0 failed" in done.stdout.splitlines()[-1]
