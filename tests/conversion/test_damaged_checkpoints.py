"""Damaged checkpoints and configs end in one line: never an error of another kind, never memory for what they ask."""

from __future__ import annotations

import copy
import io
import json
import random
import warnings

import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.mmseg_writing import to_mmseg
from nonlocalseg.conversion.reading import read_checkpoint
from nonlocalseg.models.creation import create_model

WRONG = (None, -1, 0, 10**9, 1e300, float("nan"), "x", "", [], {}, [1, "a"], {"type": 3}, True, [[]] * 3, (1, 2, 4))
CASES = 120


@pytest.fixture(scope="module")
def model():
    small = {"channels": (8, 16, 32, 64), "stem_type": "deep", "stem_width": 4}
    options = {"channels": 8, "key_channels": 4, "value_channels": 4, "auxiliary_channels": 4}
    return create_model("ann", "resnet18", num_classes=2, wiring="mmseg", backbone_options=small, **options).eval()


def one_line(action) -> bool:
    """Whether it was refused; anything but a ValueError or an OSError of one line is an error."""
    message = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except (ValueError, OSError) as error:
        message = str(error)
    assert "\n" not in (message or "")
    return message is not None


def places(given, found=()):
    """The path of every value below."""
    items = given.items() if isinstance(given, dict) else enumerate(given) if isinstance(given, list) else ()
    for name, item in items:
        yield (*found, name)
        yield from places(item, (*found, name))


def replaced(given, path, value):
    changed = copy.deepcopy(given)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


def test_damaged_bytes_of_checkpoints(model, tmp_path):
    chance, file = random.Random(0), io.BytesIO()
    torch.save(to_mmseg(model), file)
    whole, path, refused = file.getvalue(), tmp_path / "damaged.pth", 0
    pickled = whole.index(b"state_dict")
    for number in range(CASES):
        content = bytearray(whole[: chance.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(chance.choice((1, 3, 20)) if number % 3 else 0):
            place = chance.randrange(pickled, pickled + 20_000) if number % 2 else chance.randrange(len(content))
            content[min(place, len(content) - 1)] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        refused += one_line(lambda: convert(read_checkpoint(path), "mmseg"))
    assert refused > CASES // 3


def test_wrong_values_in_checkpoints(model):
    chance, whole = random.Random(0), to_mmseg(model)
    keys = list(whole["state_dict"])
    tensors = [
        torch.ones(()),
        torch.ones(3, 0),
        torch.ones(1, 2, 3, 4, 5),
        torch.ones(2, dtype=torch.complex64),
        7,
        "x",
    ]
    for _ in range(CASES):
        content = {"state_dict": dict(whole["state_dict"]), "meta": copy.deepcopy(whole["meta"])}
        if chance.random() < 0.5:
            content["state_dict"][chance.choice(keys)] = chance.choice(tensors)
        else:
            content["meta"] = replaced(content["meta"], chance.choice([*places(content["meta"])]), chance.choice(WRONG))
        one_line(lambda content=content: convert(content, "mmseg"))


def test_wrong_values_in_the_config_of_a_checkpoint(model):
    from nonlocalseg.conversion.config_text import parse

    chance, whole = random.Random(0), to_mmseg(model)
    config = parse(whole["meta"]["cfg"])
    every = [path for path in places(config) if path[0] == "model"]
    for _ in range(CASES):
        changed = replaced(config, chance.choice(every), chance.choice(WRONG))
        one_line(lambda changed=changed: convert({"state_dict": whole["state_dict"]}, "mmseg", config=changed))


def test_wrong_values_in_the_config_of_a_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    chance, path = random.Random(0), tmp_path / "config.json"
    config = json.loads(path.read_text())
    every = [*places(config)]
    for _ in range(CASES):
        path.write_text(json.dumps(replaced(config, chance.choice(every), chance.choice(WRONG))))
        one_line(lambda: nls.from_pretrained(tmp_path))


@pytest.mark.parametrize("name", ["channels", "key_channels"])
def test_sizes_are_refused_before_memory_is_taken(model, name, tmp_path):
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["options"][name] = 1_000_000
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit its config") as caught:
        nls.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
