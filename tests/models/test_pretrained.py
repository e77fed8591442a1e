"""ImageNet weights: from the cache without a connection, and without any in one line, at once."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import nonlocalseg as nls
from nonlocalseg.models import pretrained
from nonlocalseg.models.pretrained import find_weights

NAME = "test_resnet"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and a hub that refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    return tmp_path


def test_without_a_connection_it_is_said_at_once(cache):
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"not in the cache, and 127.0.0.1:\d+ cannot be reached: .*refused"):
        find_weights(NAME)
    with pytest.raises(
        ValueError, match=r"pretrained weights of test_resnet .*--backbone-weights FILE, or --no-pretr"
    ) as error:
        nls.create_model("fcn", NAME, num_classes=2, channels=8, auxiliary=False, pretrained=True)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 20


def test_a_silent_server_is_not_waited_for(cache, monkeypatch):
    monkeypatch.setattr(pretrained, "PATIENCE", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ValueError, match="cannot be reached: "):
            find_weights(NAME)


def test_downloaded_weights_need_no_connection(cache):
    config = timm.get_pretrained_cfg(NAME)
    assert config is not None
    folder = cache / f"models--{str(config.hf_hub_id).replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    weights = timm.create_model(NAME).state_dict()
    save_file(weights, folder / "snapshots" / ("0" * 40) / "model.safetensors")
    model = nls.create_model("fcn", NAME, num_classes=2, channels=8, auxiliary=False, pretrained=True)
    loaded = {name.removeprefix("backbone.body."): value for name, value in model.state_dict().items()}
    assert all(torch.equal(loaded[name], weights[name]) for name in loaded.keys() & weights.keys())
    assert len(loaded.keys() & weights.keys()) > 10


def test_a_network_without_weights():
    with pytest.raises(ValueError, match="timm has no weights of resnet1"):
        find_weights("resnet1")
