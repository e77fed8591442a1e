"""Whole images that would not fit into memory are seen in tiles, or windows, and it is said."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.inference import memory
from nonlocalseg.inference.memory import bounded, bytes_per_pixel, free_memory
from nonlocalseg.view import View

CPU = torch.device("cpu")
SMALL = {"backbone": "test_resnet.r160_in1k", "num_classes": 3, "channels": 8, "auxiliary_channels": 8}


@pytest.fixture(scope="module")
def model() -> nls.Segmenter:
    return nls.create_model("fcn", **SMALL).eval()


def test_memory_is_counted_from_shapes(model: nls.Segmenter) -> None:
    """At least the largest map and the one it is made of; the model keeps its weights and its mode."""
    before = {name: held.clone() for name, held in model.state_dict().items()}
    largest: list[int] = []
    convolutions = [part for part in model.backbone.modules() if isinstance(part, torch.nn.Conv2d)]
    hooks = [one.register_forward_hook(lambda _, __, out: largest.append(out.numel() * 4)) for one in convolutions]
    with torch.no_grad():
        model(torch.rand(1, 3, 256, 256))
    for hook in hooks:
        hook.remove()
    found = bytes_per_pixel(model)
    assert found is not None
    assert max(largest) / 256**2 <= found <= sum(largest) / 256**2
    assert all(torch.equal(held, before[name]) for name, held in model.state_dict().items())
    assert all(held.device.type == "cpu" for held in model.state_dict().values())


class Scale(torch.nn.Module):
    """As timm's norms with an activation: a map of its own, which its part then changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.act = torch.nn.ReLU(inplace=True)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.act(maps * 2)


def test_maps_that_a_part_of_parts_makes_are_counted() -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.scale = torch.nn.Conv2d(3, 8, 1), Scale()

        def coarse(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
            return self.scale(self.convolution(images)), (images.shape[2], images.shape[3])

    assert bytes_per_pixel(Network()) == 2 * 8 * 4 + memory.IMAGE


@pytest.fixture(scope="module")
def dense() -> nls.Segmenter:
    """A model that cannot be seen in tiles."""
    return nls.create_model("nonlocal", **SMALL, key_channels=4, value_channels=4).eval()


def test_an_image_that_does_not_fit_is_seen_in_tiles(model: nls.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**20)
    view, note = bounded(View(flip=True), model, (2000, 3000), CPU)
    assert view == View(flip=True, mode="stream")
    assert note.endswith("are free: seen in tiles, with the same result (--mode stream)")
    assert bounded(View(score_resize="bicubic"), model, (2000, 3000), CPU)[0].mode == "slide"  # not in tiles


def test_where_tiles_will_not_do_it_is_seen_in_windows(dense: nls.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dense
    assert (free_memory(CPU) or 2**40) > 2**20
    needed = bytes_per_pixel(model)
    assert needed is not None
    monkeypatch.setattr(memory, "free_memory", lambda device: int(needed * 3000 * 2000))
    view, note = bounded(View(flip=True), model, (2000, 3000), CPU)
    assert (view.mode, view.crop, view.flip) == ("slide", (1024, 1024), True)
    assert note.startswith("3000 x 2000 pixels at once would take about")
    assert "--mode slide --crop N" in note
    assert "--short-side N" in note
    assert note.endswith("(tiles would not do: NB and FNB relate every position with every other by a softmax)")
    whole = View(short_side=1000)
    assert bounded(whole, model, (2000, 3000), CPU) == (whole, "")  # 1000 x 1500 fit
    large = View(scales=(0.5, 1.25))
    assert bounded(large, model, (1500, 2000), CPU) == (large, "")
    assert bounded(View(scales=(0.5, 2.0)), model, (1500, 2000), CPU)[0].mode == "slide"
    windows = View(mode="slide", crop=(512, 512))
    assert bounded(windows, model, (20000, 30000), CPU) == (windows, "")
    assert bounded(View(), lambda images: images, (20000, 30000), CPU) == (View(), "")


def test_predict_says_so(model: nls.Segmenter, dense: nls.Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 100)
    monkeypatch.setattr(memory, "SIDE", 32)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole, dense_whole = nls.predict(model, pixels), nls.predict(dense, pixels)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    with pytest.warns(UserWarning, match=r"^image: 64 x 48 pixels at once would take about .* seen in windows of 32"):
        bound = nls.predict(dense, pixels)
    windows = nls.predict(dense, pixels, mode="slide", crop=32)
    assert torch.equal(bound.mask, windows.mask)
    assert not torch.equal(bound.probabilities, dense_whole.probabilities)
    with pytest.warns(
        UserWarning, match=r"^image: 64 x 48 pixels at once would take about .* seen in tiles, with the same"
    ):
        tiles = nls.predict(model, pixels)
    torch.testing.assert_close(tiles.probabilities, whole.probabilities, rtol=1e-5, atol=1e-6)


LIMITED = """
import resource, sys, warnings
import numpy as np, torch
import nonlocalseg as nls
torch.set_num_threads(1)
model = nls.create_model("fcn", "resnet18", num_classes=3, channels=8, auxiliary=False).eval()
nls.predict(model, np.zeros((64, 64, 3), np.uint8))
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 1500 * 2**20, resource.RLIM_INFINITY))
pixels = np.zeros((3000, 4000, 3), np.uint8)
with warnings.catch_warnings(record=True) as noted:
    warnings.simplefilter("always")
    assert nls.predict(model, pixels).mask.shape == (3000, 4000)
print(noted[0].message)
from nonlocalseg.cli.errors import describe
try:
    model(torch.zeros(1, 3, 3000, 4000))
except RuntimeError as error:
    print(describe(error))
"""


@pytest.mark.slow
def test_a_process_with_little_memory_predicts_a_large_photograph() -> None:
    answer = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-2000:]
    note, full = answer.stdout.strip().splitlines()
    assert note.startswith("image: 4000 x 3000 pixels at once would take about")
    assert "error: memory is full" in full
    assert "--mode slide --crop N" in full
