"""Large images that were interrupted: the same call goes on, to the same bits, and to nothing else's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.inference import features, large, tiled
from nonlocalseg.inference.batch import forget
from nonlocalseg.inference.features import FeatureStore
from nonlocalseg.inference.readers import FileReader
from nonlocalseg.inference.sources import Listed
from nonlocalseg.inference.unfinished import Resumed, place_of
from nonlocalseg.lock import Lock
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.view import View

TILES = View(mode="stream", crop=(64, 96))


class Stopped(BaseException):
    """Ends the work as Ctrl-C does."""


@pytest.fixture(scope="session")
def network() -> Segmenter:
    from killed_prediction import model

    return model()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 256, (67, 240, 3), dtype=np.uint8))
    return tmp_path / "image.npy"


def label(network: Segmenter, image: Path, view: View = TILES, source: str = "the same") -> np.ndarray:
    """The classes, in a file beside the image."""
    path = image.parent / "classes.npy"
    large.write_classes(network, FileReader(image), path, view, source=source)
    return np.load(path)


@contextmanager
def counting(network: Segmenter) -> Iterator[list[int]]:
    """How often the network runs on images that have values."""
    seen = [0]

    def look(_part: torch.nn.Module, given: tuple[torch.Tensor, ...], _result: object) -> None:
        seen[0] += not given[0].is_meta

    hook = network.backbone.register_forward_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


def count_passes(network: Segmenter, image: Path, **given) -> tuple[int, np.ndarray]:
    with counting(network) as seen:
        found = label(network, image, **given)
    return seen[0], found


def interrupt(network: Segmenter, image: Path, monkeypatch: pytest.MonkeyPatch, windows: int, **given) -> None:
    """Stop before that many windows and one are written."""
    with monkeypatch.context() as patch:
        original, written = Resumed.write, [0]

        def stopping(self: Resumed, *window) -> None:
            if written[0] == windows:
                raise Stopped
            written[0] += 1
            original(self, *window)

        patch.setattr(Resumed, "write", stopping)
        with pytest.raises(Stopped):
            label(network, image, **given)
    assert not (image.parent / "classes.npy").exists()


def test_processes_that_are_killed_at_any_moment_lose_nothing(image):
    """Of a GeoTIFF, where they can be read."""
    kind = "tif" if find_spec("rasterio") else "npy"
    script = Path(__file__).with_name("killed_prediction.py")
    done = subprocess.run([sys.executable, script, image, kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    *moments, last, warned = done.stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in moments] == ["False", *["True"] * 6]
    assert last == "0 passes"  # all was done
    assert warned == f"classes.{kind}: goes on with what an earlier call has done of it"
    whole, answer = (image.with_name(f"{name}.{kind}") for name in ("whole", "classes"))
    assert answer.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in image.parent.glob(".*")) == []


@pytest.mark.parametrize(
    ("view", "windows"),
    [
        (TILES, 3),
        (View(mode="stream", crop=(64, 96), scales=(0.75, 1.0), flip=True), 1),
        (View(mode="stream", crop=(64, 96), regional=128), 2),
        (View(mode="slide", crop=(40, 64), stride=(0.4, 0.5), flip=True), 4),
    ],
)
def test_what_is_done_is_not_done_again(network, image, monkeypatch, view, windows):
    monkeypatch.setattr(large, "PANEL", 1)
    expected, whole = count_passes(network, image, view=view)
    (image.parent / "classes.npy").unlink()
    interrupt(network, image, monkeypatch, windows, view=view)
    with pytest.warns(UserWarning, match="goes on with what an earlier call has done"):
        passes, found = count_passes(network, image, view=view)
    assert np.array_equal(found, whole)
    assert passes < expected  # none where the maps of all tiles are kept
    assert not place_of(image.parent / "classes.npy").exists()


def test_a_sum_that_is_not_whole_begins_anew(network, image, monkeypatch):
    whole = label(network, image)
    (image.parent / "classes.npy").unlink()
    interrupt(network, image, monkeypatch, 2)
    for path in place_of(image.parent / "classes.npy").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.warns(UserWarning, match="goes on"):
        assert np.array_equal(label(network, image), whole)


def test_what_was_chosen_when_it_began_stays(network, image, monkeypatch):
    """The size of tiles follows the free memory, and the sums of other tiles round otherwise."""
    sizes = iter([(64, 96), (32, 64)])
    for module in (large, tiled):
        monkeypatch.setattr(module, "tile_of", lambda *_: next(sizes))
    interrupt(network, image, monkeypatch, 1, view=View(mode="stream"))
    original, windows = Resumed.write, []
    monkeypatch.setattr(Resumed, "write", lambda *given: windows.append(given[1]) or original(*given))
    with pytest.warns(UserWarning, match="goes on"):
        label(network, image, view=View(mode="stream"))
    assert {(window.top, window.left) for window in windows} == {(0, 96), (0, 192), (64, 0), (64, 96), (64, 192)}


@pytest.mark.parametrize("change", ["view", "source", "weights"])
def test_the_work_on_something_else_is_not_gone_on_with(network, image, monkeypatch, change):
    interrupt(network, image, monkeypatch, 2)
    if change == "weights":
        network = nls.from_pretrained(network.save_pretrained(image.parent / "model"))
        with torch.no_grad():
            next(network.head.parameters()).add_(1)
    given = {"view": View(mode="stream", crop=64)} if change == "view" else {}
    given |= {"source": "another"} if change == "source" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label(network, image, **given)


def test_two_processes_do_not_work_on_one_image(network, image):
    place = place_of(image.parent / "classes.npy")
    place.mkdir()
    lock = Lock(place)
    with pytest.raises(ValueError, match=r"\.classes\.npy\.unfinished is being written by another run"):
        label(network, image)
    lock.release()


def test_again_begins_anew(network, image, monkeypatch):
    out = image.parent / "out"
    place = place_of(out / "index/image.npy.npy")
    place.mkdir(parents=True)
    forget(out, [Listed("image.npy", "image.npy", "image.npy")])
    assert not place.exists()


def test_maps_of_killed_processes_go_with_the_next_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shapes = {5: (2, 3, 4)}
    code = (
        f"import os, tempfile, torch\ntempfile.tempdir = {str(tmp_path)!r}\n"
        "from nonlocalseg.inference.features import FeatureStore\n"
        f"store = FeatureStore({shapes}, torch.float32)\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    (left,) = tmp_path.iterdir()
    (tmp_path / f"{features.PREFIX}foreign").mkdir()
    first = FeatureStore(shapes, torch.float32)
    second = FeatureStore(shapes, torch.float32)
    names = {path.name for path in tmp_path.iterdir()}
    assert left.name not in names
    assert len(names) == 3  # that of somebody else, and of two that live
    del first, second
    assert [path.name for path in tmp_path.iterdir()] == [f"{features.PREFIX}foreign"]
    assert os.path.isdir(tmp_path)
    shutil.rmtree(tmp_path / f"{features.PREFIX}foreign")
