"""A signal ends a training after the step, with a checkpoint and its exit code; what follows is bit for bit the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment
from stored_runs import checkpoint, same, weights

from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.runs import train


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_the_step_is_finished_and_saved(run, tmp_path, monkeypatch, name):
    whole = run("whole", ema=0.9)
    number, original = getattr(signal, name), SegmentationTraining.on_train_batch_start
    before = signal.getsignal(number)

    def told(self, batch, index):
        if index == 3:
            signal.raise_signal(number)
        original(self, batch, index)

    monkeypatch.setattr(SegmentationTraining, "on_train_batch_start", told)
    with pytest.raises(SystemExit, match=str(128 + number)):
        run("told", ema=0.9)
    assert signal.getsignal(number) is before
    assert checkpoint(tmp_path / "told")["global_step"] == 4  # val_every is 3
    assert not (tmp_path / "told/running.lock").exists()
    monkeypatch.undo()
    resumed = train(resume=tmp_path / "told", progress=False)
    assert same(weights(whole.folder), weights(resumed.folder))
    assert same(whole.model.state_dict(), resumed.model.state_dict())


SLURM = {"JOB_ID": "7", "JOB_NAME": "segment", "NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0"}
SLURM |= {"NODEID": "0", "NNODES": "1", "NODELIST": "localhost"}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_slurm_takes_the_job_back(run, tmp_path, monkeypatch, capsys, name):
    """Pre-emption sends SIGTERM, `sbatch --signal=USR1@60` that one. Nothing is asked of SLURM, which queues it again."""
    for variable, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{variable}", value)
    assert SLURMEnvironment.detect()
    number, original = getattr(signal, name), SegmentationTraining.on_train_batch_start

    def told(self, batch, index):
        if index == 3:
            signal.raise_signal(number)
        original(self, batch, index)

    monkeypatch.setattr(SegmentationTraining, "on_train_batch_start", told)
    with pytest.raises(SystemExit, match=str(128 + number)):
        run("told", progress=True)
    out, err = capsys.readouterr()
    assert " ".join(out.split()).endswith(f"interrupted; continue with --resume {tmp_path / 'told'}")
    assert err == ""
    assert checkpoint(tmp_path / "told")["global_step"] == 4
    assert not list(tmp_path.rglob("hpc_ckpt*"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_before_the_first_step_nothing_is_left(run, tmp_path, monkeypatch, capsys, name):
    """Neither in the usual case nor under SLURM, where Lightning has its own way with signals."""
    for variable, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{variable}", value)
    number, original = getattr(signal, name), SegmentationTraining.configure_optimizers

    def told(self):
        signal.raise_signal(number)
        return original(self)

    before = signal.getsignal(number)
    monkeypatch.setattr(SegmentationTraining, "configure_optimizers", told)
    with pytest.raises(SystemExit, match=str(128 + number)):
        run("told", progress=True)
    assert capsys.readouterr().out.endswith("interrupted; nothing was saved yet: start again\n")
    assert not (tmp_path / "told").exists()
    assert signal.getsignal(number) is before


def test_a_whole_process_group_is_told(tmp_path):
    """As schedulers do, with a worker that reads images: one line, code 143, something to go on from."""
    options = ["--data", "synthetic", "--data-options", "size=[48, 96]", "--model", "fcn", "--steps", "5000"]
    network = ["--backbone", "mobilenetv2_035", "--model-options", "channels=8", "auxiliary_channels=8"]
    words = [*options, *network, "--crop", "48", "64", "--batch-size", "2", "--workers", "1", "--val-split", "none"]
    command = [sys.executable, "-m", "nonlocalseg", "train", *words, "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/metrics.csv").exists() or (tmp_path / "run/metrics.csv").read_text().count("\n") < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert f"interrupted; continue with --resume {tmp_path / 'run'}" in " ".join(out.split())
    assert "internal error" not in err
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
