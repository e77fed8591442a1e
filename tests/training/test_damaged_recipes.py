"""Recipes that were changed at random: refused in one line, or taken; never an internal error."""

from __future__ import annotations

import copy
import datetime
import random
import shutil
from pathlib import Path
from typing import Any

import lightning
import pytest
import yaml
from small_run import SMALL
from test_fields import Stop, Told

from nonlocalseg.data.source import source_of_run
from nonlocalseg.training.plan import resolve, write_plan
from nonlocalseg.training.runs import train

ODD: list[Any] = [
    *(None, True, "", "none", "nowhere", "../..", "\x00", "\x1b[31m", "12", "1e3", b"\xff", datetime.date(2020, 1, 1)),
    *(0, -1, 3, 10**9, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf")),
    *(
        [],
        [1],
        [[]],
        [None, None],
        [10**9, 10**9],
        ["a"] * 5,
        {},
        {"a": 1},
        {1: 2},
        {"a": {"b": [datetime.date(2020, 1, 1)]}},
    ),
]
RECIPES = ("synthetic/ann-resnet10t", "cityscapes/galdv1-resnet101s-coarse", "camvid/ann-resnet18")


def mutated(text: str, drawn: random.Random) -> bytes:
    """The recipe with one or two values, names or characters replaced."""
    if drawn.random() < 0.3:
        content = bytearray(text.encode())
        for _ in range(drawn.randint(1, 3)):
            place = drawn.randrange(len(content))
            content[place : place + drawn.choice((0, 1, 8))] = drawn.choice(
                (b"&", b"*a", b"!", b"\n", b"[", b"\xff", b"9" * 5000)
            )
        return bytes(content)
    content = yaml.safe_load(text)
    for _ in range(drawn.randint(1, 2)):
        holders = list(nodes(content))
        holder = drawn.choice(holders)
        name = drawn.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if isinstance(holder, dict) and drawn.random() < 0.1:
            holder[drawn.choice((None, 3, "unknown", "phases"))] = holder.pop(name)
        else:
            holder[name] = copy.deepcopy(drawn.choice(ODD))
    return yaml.dump(content, sort_keys=False).encode()


def nodes(content: Any) -> Any:
    if isinstance(content, (dict, list)) and content:
        yield content
        for item in content.values() if isinstance(content, dict) else content:
            yield from nodes(item)


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
        path.write_bytes(mutated(content.decode(), drawn) if path.name == "recipe.yaml" else damaged(content, drawn))
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


def test_a_changed_recipe_is_taken_or_refused(tmp_path):
    path, texts = tmp_path / "recipe.yaml", []
    refused: list[str] = []
    for name in RECIPES:
        write_plan(path, resolve(name, {"root": str(tmp_path)}))
        texts.append(path.read_text())
    for seed in range(100):
        path.write_bytes(mutated(texts[seed % len(texts)], random.Random(seed)))
        for read in (lambda: resolve(path, {}), lambda: source_of_run(tmp_path)):
            try:
                read()
            except (ValueError, OSError) as error:
                refused.append(str(error))
    assert all(len(line.splitlines()) == 1 for line in refused)
    assert 40 < len(refused) < 190  # the rest changed nothing that is checked here
