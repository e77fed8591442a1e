"""The folder of a run: whose it may be, its name, and that all processes agree on it."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nonlocalseg.lock import Lock
from nonlocalseg.training.folder import RunFolder
from nonlocalseg.training.runs import train


def test_folder_of_another_run_is_not_touched(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"run is not empty: continue it with --resume .*run, or choose another --out"):
        run()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_output_below_a_file(tmp_path, small):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            ValueError, match=r"file is a file, so .* cannot be a folder; choose another --out"
        ) as error:
            train(out=out, **small)
        assert "\n" not in str(error.value)


def test_unwritable_output(tmp_path, small):
    """In a process of its own, which is not root."""
    (tmp_path / "closed").mkdir(mode=0o500)
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from nonlocalseg.training.plan import resolve\n"
        "from nonlocalseg.training.runs import train\n"
        f"options = {small!r}\n"
        "options.pop('progress')\n"
        "resolve(None, options)  # imports what only root may read, where Python is root's\n"
        "if os.geteuid() == 0:\n"
        "    os.setuid(65534)\n"
        "try:\n"
        f"    train(out={str(tmp_path / 'closed/run')!r}, progress=False, **options)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    shown = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert "may not be written; choose another --out" in shown
    assert len(shown.splitlines()) == 1
    assert not list((tmp_path / "closed").iterdir())


def test_fresh_names(tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.update(steps=1, val_split="none")
    names = [train(**small).folder.as_posix() for _ in range(2)]
    assert names == ["runs/synthetic-ann-mobilenetv2_035", "runs/synthetic-ann-mobilenetv2_035-2"]


def test_runs_that_begin_at_the_same_time_take_different_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [RunFolder(None, None, "camvid-ann/x", 1) for _ in range(2)]
    assert not list(tmp_path.iterdir())
    for folder in folders:
        folder.claim()
    assert [folder.path for folder in folders] == [Path("runs/camvid-ann-x"), Path("runs/camvid-ann-x-2")]


def test_a_failing_run_removes_what_it_made_and_nothing_else(tmp_path, small, monkeypatch):
    def disturb(*_: object) -> None:
        (tmp_path / "run/notes.txt").write_text("mine")
        raise ValueError("broken on purpose")

    monkeypatch.setattr("nonlocalseg.training.module.SegmentationTraining.training_step", disturb)
    with pytest.raises(ValueError, match="broken on purpose"):
        train(out=tmp_path / "run", **small)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_one_run_at_a_time_in_a_folder(tmp_path):
    first, second = (RunFolder(tmp_path / "run", None, "", 1) for _ in range(2))
    first.claim()
    with pytest.raises(ValueError, match=r"run is being written by another run .process \d+ on .*: wait for it"):
        second.claim()
    with pytest.raises(ValueError, match="is being written by another run"):
        RunFolder(None, tmp_path / "run", "", 1).claim()
    first.release()
    second.claim()
    second.release()
    assert not list((tmp_path / "run").iterdir())


def test_a_run_of_another_process_keeps_its_folder(tmp_path):
    """As long as it lives, and no longer: not even while the processes that read its images still do."""
    script = (
        "import os, pathlib, sys, time\n"
        "from nonlocalseg.lock import Lock\n"
        f"lock = Lock(pathlib.Path({str(tmp_path)!r}))\n"
        "child = os.fork()\n"
        "os.write(1, f'{os.getpid() if child else \"child\"}\\n'.encode())\n"  # at once: print may write in two parts
        "time.sleep(100)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert {process.stdout.readline().strip() for _ in range(2)} == {str(process.pid), "child"}
        with pytest.raises(
            ValueError, match=rf"process {process.pid} on {socket.gethostname()}\): wait for it, or"
        ) as error:
            RunFolder(tmp_path, None, "", 1).claim()
        assert "\n" not in str(error.value)
        process.kill()
        process.wait()
        folder = RunFolder(tmp_path, None, "", 1)
        folder.claim()
        folder.release()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_removed_while_another_run_takes_it(tmp_path, monkeypatch):
    """The other would hold a file that nobody finds any more, and a third run would be let in."""
    first, original = Lock(tmp_path), fcntl.flock

    def late(*arguments: int) -> None:
        first.release()
        monkeypatch.setattr(fcntl, "flock", original)
        original(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    second = Lock(tmp_path)
    with pytest.raises(ValueError, match="is being written by another run"):
        Lock(tmp_path)
    second.release()


def test_a_number_that_another_process_has_now_is_no_obstacle(tmp_path):
    """A killed run left its lock, and its number was given away, as it soon is in a container."""
    (tmp_path / "running.lock").write_text(f"{os.getpid()} {socket.gethostname()}\n")
    folder = RunFolder(tmp_path, None, "", 1)
    folder.claim()
    folder.release()


def test_a_run_that_was_killed_at_once_is_in_nobodys_way(tmp_path, small):
    """It left a lock, a recipe and no checkpoint; its process is gone."""
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    (tmp_path / "run/tensorboard").mkdir(parents=True)
    (tmp_path / "run/recipe.yaml").write_text("old")
    (tmp_path / "run/running.lock").write_text(f"{ended.stdout.strip()} {socket.gethostname()}")
    done = train(out=tmp_path / "run", **{**small, "steps": 1, "val_split": "none"})
    assert (done.folder / "recipe.yaml").read_text() != "old"
    assert not (done.folder / "running.lock").exists()


def test_a_failed_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(None, None, "name", 2)
    folder.claim()
    assert not folder.holds_checkpoints()
    (folder.phase(1) / "checkpoints").mkdir(parents=True)
    (folder.phase(1) / "checkpoints/last.ckpt").touch()
    assert folder.holds_checkpoints()
    folder.discard()
    assert not Path("runs/name").exists()
    assert RunFolder(None, tmp_path, "", 1).holds_checkpoints()  # of a resumed run everything is kept


def test_a_further_process_is_told_the_name(tmp_path, monkeypatch):
    """It makes and removes nothing, and does not mind what the first one has written."""
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").touch()
    assert RunFolder(tmp_path / "run", None, "", 1).path == tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(None, None, "name", 1)
    folder.claim()
    assert not folder.named
    assert not Path("runs").exists()
    folder.agree("runs/name")
    folder.discard()
    assert (folder.phase(0), folder.recipe) == (Path("runs/name"), Path("runs/name/recipe.yaml"))
