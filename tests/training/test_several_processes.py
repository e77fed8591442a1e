"""Two processes are one with the doubled batch: losses, weights, order of the images, scores, and who writes files."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import SMALL
from stored_runs import weights
from trained_together import trained

import nonlocalseg as nls

HERE = Path(__file__).parent
DETAILS = {"dropout": 0.0, "auxiliary_dropout": 0.0, "channels": 8, "auxiliary_channels": 8}
OPTIONS: dict[str, Any] = {
    **{name: SMALL[name] for name in ("data", "data_options", "backbone", "workers")},
    **{"model": "fcn", "model_options": DETAILS, "crop": (64, 64), "batch_size": 8, "accumulate": 2, "rate": 1e-5},
    **{"steps": 4, "val_every": 2, "ema": 0.5, "logger": (), "ohem_threshold": 0.15, "ohem_min_kept": 2000},
}


def as_two(script: str, *words: str) -> tuple[str, str]:
    """What the first of two processes says, and all that both complain about."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place |= {"CUDA_VISIBLE_DEVICES": "", "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), *words],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=500) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], said
    return said[0][0], said[0][1] + said[1][1]


def test_losses_gradients_and_batch_norm_are_those_of_the_whole_batch():
    """In float64, for every way to count pixels: what two processes average is what one computes."""
    found = json.loads(as_two("one_step_together.py")[0])
    assert len(found) > 15
    assert {name: value for name, value in found.items() if not value < 1e-12} == {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """The same training alone and together, and one that goes on with other numbers of processes: 1, 2, 1."""
    folder = tmp_path_factory.mktemp("runs")
    model = nls.create_model("fcn", "mobilenetv2_035", num_classes=9, channels=8, auxiliary_channels=8)
    model.save_pretrained(folder / "model")
    data = {"data": "synthetic", "data_options": {"size": [48, 96], "length": 5}, "split": "val"}
    alone = {"out": str(folder / "alone")}
    found: dict[str, Any] = {"alone": trained({**OPTIONS, **alone, "devices": 1})}
    found["begun"] = trained({**OPTIONS, "out": str(folder / "two/moved"), "devices": 1}, 2)
    jobs = {
        "train": {
            "together": [{**OPTIONS, "out": str(folder / "two/together")}],
            "resumed": [{"resume": str(folder / "two/moved"), "devices": 2}, 4],
        },
        "evaluate": {"model": str(folder / "model"), **data},
    }
    (folder / "jobs.json").write_text(json.dumps(jobs))
    as_two("trained_together.py", str(folder / "jobs.json"), str(folder / "two"))
    found["two"] = [json.loads((folder / f"two-{rank}.json").read_text()) for rank in range(2)]
    found["ended"] = trained({"resume": str(folder / "two/moved"), "devices": 1})
    found["evaluation"] = nls.evaluate(folder / "model", progress=False, workers=0, **data)
    return folder, found


def joined(first: list[Any], second: list[Any]) -> list[Any]:
    """The batches of two processes as one would have seen them; each of them knows the loss of both."""
    assert [loss for loss, _ in first] == [loss for loss, _ in second]
    return [(loss, own + others) for (loss, own), (_, others) in zip(first, second, strict=True)]


def check_equal(found: list[Any], expected: list[Any]) -> None:
    assert [images for _, images in found] == [images for _, images in expected]
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], abs=1e-4)


def check_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_every_loss_and_the_order_of_the_images(runs):
    _, found = runs
    assert len(found["alone"]) == 4 * 2
    check_equal(joined(*(one["together"] for one in found["two"])), found["alone"])


def test_weights_buffers_average_and_logged_losses(runs):
    folder, _ = runs
    check_close(weights(folder / "two/together"), weights(folder / "alone"))
    rows = [
        list(csv.DictReader((place / "metrics.csv").open())) for place in (folder / "alone", folder / "two/together")
    ]
    for one, two in zip(*rows, strict=True):
        for name in ("step", "loss", "rate", "miou", "pixel_accuracy"):
            assert (one[name] == two[name] == "") or float(two[name]) == pytest.approx(float(one[name]), abs=1e-4)


def test_a_run_goes_on_with_other_numbers_of_processes(runs):
    folder, found = runs
    assert [len(found["begun"]), len(found["two"][0]["resumed"]), len(found["ended"])] == [2, 4, 2]
    resumed = joined(*(one["resumed"] for one in found["two"]))
    check_equal([*found["begun"], *resumed, *found["ended"]], found["alone"])
    check_close(weights(folder / "two/moved"), weights(folder / "alone"))


def test_evaluation_counts_every_pixel_once(runs):
    _, found = runs
    for one in found["two"]:
        assert torch.equal(torch.tensor(one["counts"]), found["evaluation"].counts)
        assert torch.equal(torch.tensor(one["confusion"]), found["evaluation"].scores.confusion)


def test_the_first_process_alone_writes(runs):
    folder, found = runs
    assert found["two"][1]["written"] == []
    assert (folder / "two/together/checkpoints/last.ckpt").is_file()
