"""SIGKILL at the worst moments: every file that is written, and before the first of them. One run is killed at each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import killed_run
from stored_runs import raw, rows_of, same, weights

import nonlocalseg as nls
from nonlocalseg.training.runs import train


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(tmp_path):
    script = [sys.executable, str(Path(killed_run.__file__)), str(tmp_path / "killed")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.stdout.splitlines() == list(killed_run.MOMENTS), done.stderr
    resumed = train(resume=tmp_path / "killed", progress=False)
    whole = train(**killed_run.OPTIONS, out=tmp_path / "whole")
    assert rows_of(resumed.folder) == rows_of(whole.folder)
    assert same(raw(resumed.folder), raw(whole.folder))
    for name in ("last", "best", "previous"):
        assert same(weights(resumed.folder, name), weights(whole.folder, name))
    for name in ("last", "best"):
        first, second = (nls.from_pretrained(run.folder / name).state_dict() for run in (resumed, whole))
        assert same(first, second)
    assert not (resumed.folder / "running.lock").exists()
