"""Many inputs by Ray: every one accounted for exactly once, whatever dies on the way."""

from __future__ import annotations

import csv
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nonlocalseg import images
from nonlocalseg.cli import main
from nonlocalseg.inference import many
from nonlocalseg.inference.batch import Labeller, way_of
from nonlocalseg.inference.manifest import Manifest
from nonlocalseg.inference.many import STARTS, Devices, label_many, share_out
from nonlocalseg.inference.sources import Listed, find_inputs
from nonlocalseg.view import WHOLE
from nonlocalseg.zoo import pretrained

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402  # after the line that skips

KILLS_ONCE, KILLS_ALWAYS, BROKEN = 8, 13, 4


class Deadly(nn.Module):
    """Dark or bright; images of one brightness kill the process once, those of another always."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        number = round(float(images.mean()) * 255 / 10)
        with (self.folder / f"{number}-{os.getpid()}").open("a") as file:  # one letter for each time
            file.write("x")
        times = sum(path.stat().st_size for path in self.folder.glob(f"{number}-*"))
        if number == KILLS_ALWAYS or (number == KILLS_ONCE and times == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        bright = images.mean(1, keepdim=True) - 0.5
        return {"out": torch.cat([-bright, bright], 1)}


LIMITS = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture
def ray_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    before = signal.getsignal(signal.SIGTERM)
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)  # which Ray keeps


def patiently(begin: Callable[[], object], tries: int = 3) -> None:
    """A busy machine may be slower than Ray waits."""
    for left in reversed(range(tries)):
        try:
            begin()
            return
        except Exception:
            ray.shutdown()
            if not left:
                raise


@pytest.fixture
def two_cores(ray_home: None) -> None:
    patiently(
        lambda: ray.init(address="local", num_cpus=2, log_to_driver=False, _node_ip_address="127.0.0.1", **LIMITS)
    )


@pytest.fixture
def two_machines(ray_home: None) -> Iterator[Cluster]:
    """Both of them here, with one core each."""
    begun: list[Cluster] = []

    def begin() -> None:
        begun.append(Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **LIMITS}))
        begun[-1].add_node(num_cpus=1, object_store_memory=LIMITS["object_store_memory"])
        ray.init(address=begun[-1].address, log_to_driver=False)

    patiently(begin)
    yield begun[-1]
    ray.shutdown()
    for found in begun:
        found.shutdown()


def draw(folder: Path, count: int) -> Path:
    for number in range(count):
        images.write_image(folder / f"in/{number:02}.png", np.full((16, 20, 3), 10 * number, np.uint8))
    (folder / f"in/{BROKEN:02}.png").write_bytes(b"\x89PNG nothing")
    (folder / "seen").mkdir()
    return folder / "in"


def predict(monkeypatch: pytest.MonkeyPatch, photos: Path, out: Path, *more: str) -> int:
    """The verb with this file's network."""
    monkeypatch.setattr(pretrained, "from_pretrained", lambda name: Deadly(photos.parent / "seen"))
    return main(
        [
            "predict",
            "deadly",
            str(photos),
            "--out",
            str(out),
            *(() if "--device" in more else ("--device", "cpu")),
            *more,
        ]
    )


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check(photos: Path, out: Path, failed: set[int]) -> None:
    """Every image once; of those that are done, and of no others, a right answer."""
    rows = {Path(row["input"]).stem: row for row in rows_of(out)}
    assert len(rows) == len(rows_of(out))
    assert sorted(rows) == [path.stem for path in sorted(photos.iterdir())]
    assert {int(name) for name, row in rows.items() if row["status"] == "failed"} == failed
    done = {row["output"] for row in rows.values() if row["status"] == "done"}
    assert done == {path.relative_to(out).as_posix() for path in (out / "index").rglob("*")}
    for name, row in rows.items():
        if row["status"] == "done":
            assert set(np.unique(images.read_mask(out / row["output"]))) == {int(int(name) > 12)}


def times_seen(photos: Path) -> Counter[int]:
    found: Counter[int] = Counter()
    for path in (photos.parent / "seen").iterdir():
        found[int(path.name.partition("-")[0])] += path.stat().st_size
    return found


def test_two_workers_of_which_one_is_killed_do_what_one_process_does(two_cores, tmp_path, monkeypatch, capsys):
    photos, out = draw(tmp_path, 12), tmp_path / "out"
    assert predict(monkeypatch, photos, out, "--engine", "ray", "--workers", "2") == 1
    assert "11 of 12 images labelled" in capsys.readouterr().out
    check(photos, out, {BROKEN})
    assert times_seen(photos)[KILLS_ONCE] >= 2
    assert predict(monkeypatch, photos, tmp_path / "local") == 1
    files = [path.relative_to(out) for path in sorted(out.rglob("*.png"))]
    assert len(files) == 33
    for path in files:
        assert (out / path).read_bytes() == (tmp_path / "local" / path).read_bytes()
    for name in ("manifest.csv", "areas.csv"):
        assert sorted((out / name).read_text().splitlines()) == sorted(
            (tmp_path / "local" / name).read_text().splitlines()
        )
    seen = times_seen(photos)
    (photos / f"{BROKEN:02}.png").unlink()
    capsys.readouterr()
    assert predict(monkeypatch, photos, out, "--engine", "ray") == 0  # nothing is left, and no actor is started
    assert "11 of 11 were done earlier" in capsys.readouterr().err
    assert times_seen(photos) == seen


@pytest.mark.slow
def test_an_image_that_kills_every_worker_fails_and_the_others_are_done_once(two_cores, tmp_path, monkeypatch):
    photos, out = draw(tmp_path, 20), tmp_path / "out"
    assert predict(monkeypatch, photos, out, "--engine", "ray", "--workers", "2") == 1
    check(photos, out, {BROKEN, KILLS_ALWAYS})
    (reason,) = [row["reason"] for row in rows_of(out) if row["input"].endswith(f"{KILLS_ALWAYS}.png")]
    assert "crashed, or was killed for want of memory" in reason
    seen = times_seen(photos)
    assert seen[KILLS_ALWAYS] == STARTS
    assert predict(monkeypatch, photos, out, "--engine", "ray", "--workers", "2") == 1
    check(photos, out, {BROKEN, KILLS_ALWAYS})
    again = times_seen(photos)
    assert {number for number in again if again[number] != seen[number]} == {KILLS_ALWAYS}


@pytest.mark.slow
def test_a_machine_that_is_lost_midway(two_machines, tmp_path):
    photos, out = draw(tmp_path, 12), tmp_path / "out"
    listed = find_inputs([str(photos)], out).listed
    manifest = Manifest(out, way_of(None, WHOLE, {}), listed)
    results = label_many(Labeller(Deadly(tmp_path / "seen"), WHOLE, torch.device("cpu")), listed, out, workers=2)
    for number, result in enumerate(results):
        manifest.add(result)
        if number == 2:
            two_machines.remove_node(two_machines.list_all_nodes()[1], allow_graceful=False)
    check(photos, out, {BROKEN})


def test_ray_that_does_not_start_is_one_line(tmp_path, monkeypatch, capsys):
    def slow(**anything: object) -> None:
        raise RuntimeError("The current node\ntimed out")

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = [monkeypatch, draw(tmp_path, 5), tmp_path / "out", "--engine", "ray"]
    assert predict(*words) == 2
    assert (
        capsys.readouterr().err
        == "error: --engine ray: Ray did not start here (The current node timed out); try again\n"
    )
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert predict(*words) == 2
    assert capsys.readouterr().err.startswith(
        "error: RAY_ADDRESS=127.0.0.1:9: no cluster answers there (The current node"
    )


@pytest.mark.parametrize("somebodys", [False, True])
def test_sigterm_is_taken_back_from_ray(monkeypatch, somebodys):
    told: list[int] = []
    found = (lambda number, frame: told.append(number)) if somebodys else signal.SIG_DFL
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", lambda **_: signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number)))
    before = signal.signal(signal.SIGTERM, found)
    try:
        with nullcontext() if somebodys else pytest.raises(SystemExit, match=r"^143$"), many._cluster():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is found
        assert told == [signal.SIGTERM] * somebodys
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_model_that_cannot_be_sent_is_one_line(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2}}])
    network = nn.Conv2d(3, 2, 1)
    network.lock = threading.Lock()  # as what other runtimes hold
    item = Listed("a", "a", "a")
    with pytest.raises(ValueError, match=r"--engine ray: this model cannot be sent to other processes \(.*lock"):
        list(label_many(Labeller(network, WHOLE, torch.device("cpu")), [item], Path("out")))


def test_what_each_worker_takes_of_the_cluster(monkeypatch):
    def cluster(*machines: dict[str, float]) -> None:
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": machine} for machine in machines])

    cluster({"CPU": 8})
    assert share_out(None, True) == Devices(actors=1, gpus=0, cpus=8)
    assert share_out(3, True) == Devices(actors=3, gpus=0, cpus=2)
    cluster({"CPU": 8}, {"CPU": 4}, {"memory": 1e9})
    assert share_out(None, True) == Devices(actors=2, gpus=0, cpus=4)
    assert share_out(12, True) == Devices(actors=12, gpus=0, cpus=1)
    with pytest.raises(ValueError, match="--workers: 13 models for the 12 CPU cores of the cluster; give 12 or fewer"):
        share_out(13, True)
    cluster({"CPU": 8, "GPU": 2}, {"CPU": 4, "GPU": 1})
    assert share_out(None, True) == Devices(actors=3, gpus=1, cpus=1)
    assert share_out(None, False) == Devices(actors=2, gpus=0, cpus=4)
    with pytest.raises(ValueError, match="--workers: 4 models for the 3 GPUs of the cluster; give 3 or fewer"):
        share_out(4, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2"], "--workers: one model labels one photograph after the other; add --engine ray"),
        (["--engine", "ray", "--device", "cuda:1"], "--device: cuda:1 is of one machine"),
        (["--engine", "rays"], "--engine: 'rays' is unknown; .*ray"),
    ],
)
def test_options_that_do_not_fit(tmp_path, monkeypatch, capsys, words, message):
    photos = draw(tmp_path, 5)
    assert predict(monkeypatch, photos, tmp_path / "out", *words) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
