"""What --fast takes: OpenVINO where it is installed, made once; torch elsewhere; always the scores of the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_models import small

import nonlocalseg as nls
from nonlocalseg.exporting import fast_form as module
from nonlocalseg.exporting.fast_form import fastest
from nonlocalseg.exporting.passport import Latency
from nonlocalseg.models import speed

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model() -> nls.Segmenter:
    return small("fcn").eval()


def taking(*seconds: float) -> Callable[..., Latency]:
    """In place of `timed`: what is timed first takes the first of these, and so on."""
    left = iter(seconds)
    return lambda *_: Latency(height=512, width=512, seconds=next(left), threads=1, processor="")


@pytest.fixture(scope="module")
def made(model, tmp_path_factory) -> Path:
    """A cache in which the network is."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NONLOCALSEG_CACHE", str(folder))
        patched.setattr(speed, "cpu_has_bfloat16", lambda: False)
        patched.setattr(module, "timed", taking(1, 2))
        fastest(model)
    return folder


@pytest.fixture
def cache(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path / "cache")
    monkeypatch.setenv("NONLOCALSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(speed, "cpu_has_bfloat16", lambda: False)
    return tmp_path / "cache"


def refused(*_: object) -> None:
    raise ValueError("not exported")


def test_the_network_is_exported_once_and_answers_as_before(model, cache, monkeypatch):
    monkeypatch.setattr(module, "trace", refused)
    fast = fastest(model)
    assert fast.choices[1].startswith("OpenVINO")
    assert (fast.classes, fast.palette, fast.num_classes) == (model.classes, model.palette, 5)
    for size in ((2, 3, 49, 66), (1, 3, 16, 80)):
        images = torch.rand(size)
        with torch.no_grad():
            expected, found = model(images)["out"], fast(images)["out"]
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    found, wanted = (nls.predict(one, picture, scales=(0.5, 1.0), flip=True) for one in (fast, model))
    assert torch.equal(found.mask, wanted.mask)


def test_other_weights_are_another_network(model, cache, monkeypatch):
    monkeypatch.setattr(module, "trace", refused)
    other = nls.fold(model)
    with torch.no_grad():
        other.head.classifier.bias[0] += 1
    fast = fastest(other)
    assert fast.choices[-1] == "in torch, not in OpenVINO: not exported"
    images = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(fast(images)["out"], other(images)["out"])


def test_a_damaged_file_is_made_anew(model, cache, monkeypatch):
    (network,) = cache.rglob("network.xml")
    whole = network.read_bytes()
    network.write_bytes(whole[:100])
    monkeypatch.setattr(module, "_write", lambda _, path: path.write_bytes(whole))
    monkeypatch.setattr(module, "timed", taking(1, 2))
    assert fastest(model).choices[1].startswith("OpenVINO")


def test_torch_where_openvino_is_no_faster(model, cache, monkeypatch):
    """Known from then on, without a file or another trial."""
    (network,) = cache.rglob("network.xml")
    whole = network.read_bytes()
    network.write_bytes(b"")
    monkeypatch.setattr(module, "_write", lambda _, path: path.write_bytes(whole))
    monkeypatch.setattr(module, "timed", taking(2, 1))
    for _ in range(2):
        fast = fastest(model)
        assert fast.choices[-1] == "in torch, not in OpenVINO: 2 s there, 1 s here, for 512x512 pixels"
        assert not list(cache.rglob("network.*"))
    images = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(fast(images)["out"], model(images)["out"])


def test_what_a_killed_process_left_goes(model, tmp_path, monkeypatch):
    left = tmp_path / "making-1" / "network.xml"
    left.parent.mkdir()
    left.touch()
    monkeypatch.setattr(module, "trace", refused)
    with pytest.raises(ValueError, match="not exported"):
        module._write(model, tmp_path / "network.xml")
    assert not list(tmp_path.iterdir())


def test_a_network_that_differs_is_not_kept(model, cache, made, monkeypatch):
    """The file of other weights, as a faulty converter would write."""
    (network,) = made.rglob("network.xml")

    def faulty(program, path, half):
        for suffix in (".xml", ".bin"):
            shutil.copy(network.with_suffix(suffix), path.with_suffix(suffix))

    other = nls.fold(model)
    with torch.no_grad():
        other.head.classifier.bias[0] += 1
    monkeypatch.setattr(module, "trace", lambda graph: None)
    monkeypatch.setattr(module, "write_openvino", faulty)
    assert "not in OpenVINO: it differs by" in fastest(other).choices[-1]
    assert len(list(cache.rglob("network.xml"))) == 1


@pytest.mark.parametrize("why", ["bfloat16", "missing"])
def test_torch_where_it_is_faster_or_alone(model, cache, monkeypatch, why):
    if why == "missing":
        monkeypatch.setattr(module, "NEEDED", ("no_such_package",))
    monkeypatch.setattr(speed, "cpu_has_bfloat16", lambda: why == "bfloat16")
    assert fastest(model).choices == nls.speed_up(model).choices
