"""Runs of which a file was changed at random: gone on with, or refused in one line; never an internal error."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import lightning
import pytest
from small_run import SMALL
from test_fields import Stop, Told

from benchmarks.hostile.models import changed_recipe
from nonlocalseg.training.plan import resolve
from nonlocalseg.training.runs import train


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(out=tmp_path_factory.mktemp("done") / "run", **{**SMALL, "steps": 2, "val_every": 1}).folder


def damaged(content: bytes, drawn: random.Random) -> bytes:
    place = drawn.randrange(len(content) + 1)
    return drawn.choice((content[:place], b"", content[:place] + b"\xff{[" + content[place + 3 :], b"[1, 2]"))


def test_a_changed_run_goes_on_or_is_refused(done, tmp_path, monkeypatch):
    """Up to where Lightning would begin."""
    monkeypatch.setattr(lightning, "Trainer", Told)
    refused: list[str] = []
    begun: set[str] = set()
    for seed in range(30):
        drawn, run = random.Random(seed), shutil.copytree(done, tmp_path / str(seed))
        path = run / drawn.choice(
            ("recipe.yaml", "checkpoints/last.ckpt", "loggers.json", "running.lock", "metrics.csv")
        )
        content = path.read_bytes() if path.is_file() else b"1 here"
        path.write_bytes(changed_recipe(content, drawn) if path.name == "recipe.yaml" else damaged(content, drawn))
        try:
            train(resume=run, steps=4, progress=False)
        except Stop:
            begun.add(path.name)
        except (ValueError, OSError) as error:
            refused.append(str(error))
    assert all(len(line.splitlines()) == 1 for line in refused)
    assert len(refused) > 5
    assert "metrics.csv" in begun


@pytest.mark.parametrize(("name", "value"), [("batch_size", 10**9), ("crop", [10**9, 10**9])])
def test_numbers_that_no_memory_holds_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: .*give .* or less"):
        resolve("camvid/ann-resnet18", {name: value})
