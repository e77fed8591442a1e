"""Several processes and those that read images: one that is told to leave, broken, stopped or killed ends all, in one line."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stored_runs import draw_folder

from nonlocalseg.cli import main
from nonlocalseg.data import readers
from nonlocalseg.training import data

NETWORK = ["--model", "fcn", "--backbone", "mobilenetv2_035", "--model-options", "channels=8", "auxiliary_channels=8"]
NETWORK += ["dropout=0", "auxiliary_dropout=0"]
SHORT = ["--crop", "48", "64", "--batch-size", "2", "--logger", "tensorboard"]

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def begin(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """`begin(*words)` starts a training of `tmp_path / "data"` in `tmp_path / "run"`; `by` another program, and with
    `more` in its environment."""
    started: list[subprocess.Popen] = []

    def begin(*words: str, by: tuple[str, ...] = (), **more: str) -> subprocess.Popen:
        start = ["-m", "nonlocalseg", "train", "--data", "folder", "--root", str(tmp_path / "data")]
        command = [sys.executable, *by, *start, *NETWORK, *SHORT, "--out", str(tmp_path / "run"), *words]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, **pipes, text=True, env=environment, start_new_session=True))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def processes_below(parent: int) -> list[int]:
    """Those that `parent` has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == parent:
            found.append(int(path.parent.name))
    return found


def wait_for(true: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def has_begun(folder: Path) -> bool:
    path = folder / "metrics.csv"
    return path.exists() and path.read_text().count("\n") > 1


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1])
def test_one_process_of_two_is_told_to_leave(begin, tmp_path, whom):
    draw_folder(tmp_path / "data")
    process = begin("--devices", "2", "--workers", "0", "--steps", "100000", "--val-every", "7", "--no-pretrained")
    wait_for(lambda: has_begun(tmp_path / "run"), process)
    others = [
        number
        for number in processes_below(process.pid)
        if "nonlocalseg" in Path(f"/proc/{number}/cmdline").read_text()
    ]
    os.kill([process.pid, *others][whom], signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "interrupted; continue with --resume" in " ".join(out.split())
    assert lines(err) == []
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()


def rank_of(process: int) -> str | None:
    words = Path(f"/proc/{process}/environ").read_text().split("\0")
    return next((word.partition("=")[2] for word in words if word.startswith("LOCAL_RANK=")), None)


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1])
@pytest.mark.parametrize("by", ["devices", "torchrun"])
def test_one_process_of_two_is_killed(begin, tmp_path, by, whom):
    """One line says so, at once, nothing is left, and the run goes on alone."""
    draw_folder(tmp_path / "data")
    short = ("--workers", "0", "--val-split", "none", "--val-every", "5", "--no-pretrained", "--steps", "100000")
    if by == "devices":
        process = begin("--devices", "2", *short)
    else:
        process = begin(*short, by=TORCHRUN)
    wait_for((tmp_path / "run/checkpoints/last.ckpt").is_file, process)
    own = processes_below(process.pid)
    ranks = {rank_of(number): number for number in own} | ({"0": process.pid} if by == "devices" else {})
    os.kill(ranks[str(whom)], signal.SIGKILL)
    killed = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert process.returncode not in (0, None)
    (line,) = [line for line in lines(err) if line.startswith("error: ")]
    assert "of this training" in line
    assert "--resume RUN" in line
    assert by == "torchrun" or lines(err) == [line]
    wait_for_all_gone(own)
    assert train_on(tmp_path) == 0


def wait_for_all_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    while [number for number in processes if Path(f"/proc/{number}").exists()]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def train_on(tmp_path: Path) -> int:
    from nonlocalseg.training.checkpoints import read_checkpoint

    done = read_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["global_step"]
    return main(["train", "--resume", str(tmp_path / "run"), "--devices", "1", "--steps", str(done + 1)])


@pytest.mark.slow
@pytest.mark.parametrize("by", ["devices", "torchrun", "two torchruns", "two machines", "SLURM"])
def test_whoever_starts_the_processes(begin, tmp_path, by):
    """Two processes, one folder, one report, by every way to start them."""
    draw_folder(tmp_path / "data")
    short = ("--workers", "0", "--no-pretrained", "--steps", "2")
    port = str(free_port())
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if by == "devices":
        started = [begin(*short, "--devices", "2")]
    elif by == "torchrun":
        started = [begin(*short, by=TORCHRUN)]
    elif by == "two torchruns":
        rendezvous = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port)
        launch = ("-m", "torch.distributed.run", *rendezvous, "--node-rank")
        started = [begin(*short, "--num-nodes", "2", by=(*launch, str(node))) for node in range(2)]
    elif by == "two machines":
        started = [begin(*short, "--num-nodes", "2", **address, NODE_RANK=str(node)) for node in range(2)]
    else:
        job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
        job |= {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1", "SLURM_NODELIST": "localhost", **address}
        started = [begin(*short, **job, SLURM_PROCID=str(n), SLURM_LOCALID=str(n)) for n in range(2)]
    said = [process.communicate(timeout=400) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    scored = [line for out, _ in said for line in out.splitlines() if "validation mIoU" in line]
    assert len(scored) == len(set(scored)), scored
    assert sum(line.startswith("validation mIoU") for line in scored) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "run"]
    (tmp_path / "run").rename(tmp_path / "two")
    assert train_here(tmp_path, "--workers", "0", "--steps", "2") == 0
    first, second = (
        [row["loss"] for row in csv.DictReader((tmp_path / name / "metrics.csv").open()) if row["loss"]]
        for name in ("two", "run")
    )
    assert float(first[0]) == pytest.approx(float(second[0]), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_broken_image_is_one_line_of_two_processes(begin, tmp_path, split):
    draw_folder(tmp_path / "data")
    (tmp_path / f"data/images/{split}/3.png").write_bytes(b"not a picture")
    process = begin("--devices", "2", "--workers", "0", "--steps", "4", "--val-every", "4", "--no-pretrained")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 2, err
    (line,) = lines(err)
    assert line.startswith(f"error: {tmp_path / f'data/images/{split}/3.png'}: ")


@pytest.mark.slow
def test_two_processes_and_one_image(begin, tmp_path):
    draw_folder(tmp_path / "data", count=1)
    process = begin("--devices", "2", "--workers", "0", "--steps", "2", "--no-pretrained")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "validation mIoU" in out


def train_here(tmp_path: Path, *words: str) -> int:
    start = ["train", "--data", "folder", "--root", str(tmp_path / "data"), *NETWORK, *SHORT]
    return main([*start, "--out", str(tmp_path / "run"), "--no-pretrained", *words])


def test_a_set_of_one_image(tmp_path):
    draw_folder(tmp_path / "data", count=1)
    assert train_here(tmp_path, "--workers", "0", "--steps", "2") == 0


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, "was ended by SIGKILL while it read {}, probably for want of memory: lower --workers"),
        (signal.SIGSTOP, "has not answered for 10 s while it read {}: it was stopped, or the disk does not answer"),
    ],
)
def test_a_process_that_reads_images_is_stopped_or_killed(tmp_path, monkeypatch, capsys, number, said):
    """In its third image it does it to itself."""
    draw_folder(tmp_path / "data")
    monkeypatch.setattr(readers, "SILENCE", 10.0 if number == signal.SIGSTOP else 300.0)
    original = data.SeededImages.__getitem__

    def end(self: data.SeededImages, draw: data.Draw | int) -> object:
        if isinstance(draw, data.Draw) and draw.number == 8:
            (tmp_path / "last").write_text(str(tmp_path / f"data/images/train/{draw.index}.png"))
            os.kill(os.getpid(), number)
        return original(self, draw)

    monkeypatch.setattr(data.SeededImages, "__getitem__", end)
    started = time.monotonic()
    assert train_here(tmp_path, "--workers", "1", "--steps", "100", "--val-split", "none") == 1
    (line,) = lines(capsys.readouterr().err)
    expected = said.format((tmp_path / "last").read_text())
    assert line.startswith(f"error: a process that reads images {expected}")
    assert time.monotonic() - started < 60
    assert not processes_below(os.getpid()) or not [
        child for child in processes_below(os.getpid()) if "State:\tT" in Path(f"/proc/{child}/status").read_text()
    ]
