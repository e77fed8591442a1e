"""Pushed to a hub on loopback, and loaded from it, by huggingface_hub itself: as its environment variables say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from stub_hub import READ_ONLY, TOKEN, Hub, Repository, serving
from test_models import small

STEPS = """
import json, os, sys
import huggingface_hub
import nonlocalseg as nls
from nonlocalseg.cli import main

def tried(name, action):
    try:
        said[name] = str(action())
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}"

def loaded(*given, **more):
    return nls.from_pretrained(*given, **more).classes[0]

def become(token):
    os.environ["HF_TOKEN"] = token

said, model = {}, sys.argv[1]
"""
ONLINE = """
tried("verb", lambda: main(["push", model, "somebody/by-verb", "--private"]))
tried("pushed", lambda: nls.push_to_hub(model, "somebody/some-model"))
tried("public already", lambda: nls.push_to_hub(model, "somebody/some-model", private=True))
tried("loaded", lambda: loaded("hf:somebody/some-model"))
tried("owner/name", lambda: loaded("somebody/some-model"))
tried("first", lambda: loaded("hf:somebody/versions", revision="v1"))
tried("second", lambda: loaded("hf:somebody/versions@main"))
tried("no revision", lambda: loaded("hf:somebody/versions", revision="v9"))
tried("two revisions", lambda: loaded("hf:somebody/versions@main", revision="v1"))
tried("missing", lambda: loaded("hf:somebody/other"))
tried("no name", lambda: loaded("hf:some body/model"))
tried("foreign", lambda: loaded("hf:somebody/foreign"))
tried("empty", lambda: loaded("hf:somebody/empty"))
tried("private", lambda: loaded("hf:somebody/by-verb"))
become(os.environ["READ_ONLY"])
tried("read only", lambda: nls.push_to_hub(model, "somebody/some-model"))
tried("not mine", lambda: nls.push_to_hub(model, "somebody/new-model"))
become("")
tried("nobody", lambda: nls.push_to_hub(model, "somebody/some-model"))
tried("private to nobody", lambda: loaded("hf:somebody/secret"))
huggingface_hub.constants.ENDPOINT = "http://127.0.0.1:9"  # where nobody listens
tried("cached without network", lambda: loaded("hf:somebody/some-model"))
tried("new without network", lambda: loaded("hf:somebody/new"))
tried("push without network", lambda: nls.push_to_hub(model, "somebody/new"))
print(json.dumps(said))
"""
OFFLINE = """
tried("cached", lambda: loaded("hf:somebody/some-model"))
tried("cached revision", lambda: loaded("hf:somebody/versions", revision="v1"))
tried("new", lambda: loaded("hf:somebody/new"))
tried("push", lambda: nls.push_to_hub(model, "somebody/new"))
print(json.dumps(said))
"""


@dataclass
class Trip:
    hub: Hub
    online: dict[str, str]
    offline: dict[str, str]
    asked_offline: list[str]


def play(steps: str, model: Path, hub: Hub, home: Path, **more: str) -> dict[str, str]:
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "READ_ONLY": READ_ONLY}
    # Its newer way to upload speaks with servers of its own.
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", STEPS + steps, str(model)]
    done = subprocess.run(command, env={**os.environ, **own, **quiet, **more}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trip]:
    place = tmp_path_factory.mktemp("hub")
    model = small("fcn").save_pretrained(place / "model")
    files = {name: (model / name).read_bytes() for name in ("config.json", "model.safetensors")}
    newer = files["config.json"].replace(b"class 0", b"another")
    with serving() as hub:
        versions = hub.repositories["somebody/versions"] = Repository()
        versions.refs["v1"] = versions.commit(files)
        versions.commit({"config.json": newer})
        hub.repositories["somebody/foreign"] = Repository()
        hub.repositories["somebody/foreign"].commit(
            {"config.json": b'{"architectures": []}', "model.safetensors": b"x" * 99}
        )
        hub.repositories["somebody/secret"] = Repository(private=True)
        hub.repositories["somebody/secret"].commit(files)
        hub.repositories["somebody/empty"] = Repository()
        hub.repositories["somebody/empty"].commit({"notes.txt": b"nothing"})
        online = play(ONLINE, model, hub, place / "home", HF_HUB_OFFLINE="0")
        before = len(hub.asked)
        offline = play(OFFLINE, model, hub, place / "home", HF_HUB_OFFLINE="1")
        yield Trip(hub, online, offline, hub.asked[before:])


def test_what_is_pushed_is_the_model_and_its_card(trip: Trip) -> None:
    assert trip.online["verb"] == "0"
    assert trip.online["pushed"] == f"{trip.hub.address}/somebody/some-model"
    repository = trip.hub.repositories["somebody/some-model"]
    files = repository.commits[repository.refs["main"]]
    assert set(files) == {"config.json", "model.safetensors", "README.md"}
    card = files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "image-segmentation"
    assert 'nls.from_pretrained("hf:somebody/some-model")' in card
    assert len(repository.messages) == 1  # one commit
    assert not repository.private
    assert trip.hub.repositories["somebody/by-verb"].private


def test_what_was_pushed_is_loaded(trip: Trip) -> None:
    assert trip.online["loaded"] == trip.online["owner/name"] == trip.online["private"] == "class 0"


def test_revisions(trip: Trip) -> None:
    assert (trip.online["first"], trip.online["second"]) == ("class 0", "another")
    assert trip.online["no revision"].startswith("FileNotFoundError: somebody/versions: ")
    assert "has no such revision of it; give a branch, a tag or a commit" in trip.online["no revision"]
    assert "main names one already, and v1 is another" in trip.online["two revisions"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("missing", "FileNotFoundError: somebody/other: "),
        ("missing", "has no such model, or it is private, or your token is not valid"),
        ("missing", "log in with `hf auth login` or set HF_TOKEN, or give the path of a model folder"),
        ("private to nobody", "FileNotFoundError: somebody/secret: "),
        ("no name", "ValueError: some body/model cannot be a name on the hub"),
        ("foreign", "it was not written by this library"),
        ("empty", "somebody/empty has no config.json on the hub: it is no model of this library"),
        ("read only", "PermissionError: somebody/some-model: "),
        ("not mine", "does not allow it"),
        ("public already", "ValueError: --private: somebody/some-model exists, and everybody can see it"),
        ("nobody", "log in with `hf auth login` or set HF_TOKEN"),
        (
            "push without network",
            "ConnectionError: somebody/new: nothing was pushed, the hub is not asked or does not answer",
        ),
        ("new without network", "ConnectionError: somebody/new is not in the cache"),
        ("new without network", "fetch it once where there is a network, or give the path of a model folder"),
    ],
)
def test_what_the_hub_answers_is_one_line(trip: Trip, step: str, message: str) -> None:
    assert message in trip.online[step]
    assert "\n" not in trip.online[step]


def test_foreign_weights_are_not_fetched(trip: Trip) -> None:
    assert not [line for line in trip.hub.asked if "foreign" in line and "model.safetensors" in line]


def test_the_cache_needs_no_network(trip: Trip) -> None:
    assert trip.online["cached without network"] == "class 0"
    assert (trip.offline["cached"], trip.offline["cached revision"]) == ("class 0", "class 0")
    assert trip.asked_offline == []
    assert "HF_HUB_OFFLINE is set" in trip.offline["new"]
    assert "nothing was pushed, the hub is not asked or does not answer (HF_HUB_OFFLINE is set)" in trip.offline["push"]
