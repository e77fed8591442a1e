"""INT8 files: they name the classes of a trained network, and what stays in float is what damages most."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_models import small
from tiny_photographs import draw_photographs

import nonlocalseg as nls
from nonlocalseg.exporting import loading, onnx_quantisation, openvino_quantisation, quantisation, writing
from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.formats import FORMATS
from nonlocalseg.exporting.graph import Graph, trace
from nonlocalseg.exporting.loading import ExportedModel
from nonlocalseg.exporting.onnx_file import open_onnx, write_onnx
from nonlocalseg.exporting.openvino_file import open_openvino
from nonlocalseg.exporting.passport import Opened, Quantised
from nonlocalseg.images import read_image, to_tensor, write_image

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("nncf")

SUFFIXES = (".onnx", ".xml")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), 6)


@pytest.fixture(scope="module")
def model(photographs) -> nls.Segmenter:
    """Trained to tell the bright squares from the ground."""
    network = small("fcn", classes=2, auxiliary=False).train()
    images = torch.stack([to_tensor(read_image(path)) for path in sorted(photographs.iterdir())])
    labels = (images.mean(1) > 0.45).long()
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images)["out"], labels).backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        assert float((network(images)["out"].argmax(1) == labels).float().mean()) > 0.9
    return network


@pytest.fixture(scope="module")
def source(model, tmp_path_factory) -> Path:
    """In float32, traced and converted once for all."""
    path = tmp_path_factory.mktemp("float") / "float.onnx"
    write_onnx(trace(Graph.of(model, Form())), path)
    return path


@pytest.fixture
def ready(source, monkeypatch) -> None:
    """Exports take what is converted already."""
    monkeypatch.setattr(writing, "trace", lambda graph: None)
    monkeypatch.setattr(writing, "write_onnx", lambda _, path: shutil.copy(source, path))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("ready")
def test_a_file_names_the_classes_of_its_network(model, source, photographs, tmp_path, suffix):
    exported = nls.export(
        model, tmp_path / f"model{suffix}", int8=True, calibrate=nls.calibration_images(photographs, model.view)
    )
    found = exported.passport.quantised
    assert found is not None
    assert (found.calibrated, found.compared, found.least) == (3, 3, quantisation.LEAST)
    assert quantisation.LEAST <= found.agreement <= 1
    assert exported.size < 0.75 * source.stat().st_size
    file = nls.from_pretrained(exported.path)
    assert isinstance(file, ExportedModel)
    assert file.passport == exported.passport
    for path in draw_photographs(tmp_path / "others", 3, seed=50).iterdir():
        same = nls.predict(file, path).mask == nls.predict(model, path).mask
        assert float(same.float().mean()) > 0.95
    size = (1, 3, 65, 129)
    assert file(torch.rand(size))["out"].shape == (1, 2, 65, 129)


@pytest.mark.parametrize(
    ("suffix", "vnni", "ways"),
    [
        (".onnx", True, {"8 bits"}),
        (".onnx", False, {"8 bits", "7 bits"}),
        (".xml", True, {"8 bits"}),
        (".xml", False, {"7 bits", "7 bits in the first layer, 8 in the others"}),
    ],
)
def test_without_vnni_weights_leave_room_for_the_sum(source, photographs, tmp_path, monkeypatch, suffix, vnni, ways):
    for module in (onnx_quantisation, openvino_quantisation):
        monkeypatch.setattr(module, "cpu_has_vnni", lambda: vnni)
    quantiser = FORMATS["onnx" if suffix == ".onnx" else "openvino"].quantiser
    assert quantiser is not None
    assert set(quantiser(source, nls.calibration_images(photographs)[:1]).ways) == ways


@pytest.mark.usefixtures("ready")
def test_a_file_that_was_made_with_vnni_says_so_without(model, photographs, tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(onnx_quantisation, "cpu_has_vnni", lambda: True)
    path = nls.export(model, tmp_path / "model.onnx", int8=True, calibrate=nls.calibration_images(photographs)).path
    monkeypatch.setattr(loading, "cpu_has_vnni", lambda: True)
    recwarn.clear()
    nls.from_pretrained(path)
    assert [str(one.message) for one in recwarn if "VNNI" in str(one.message)] == []
    monkeypatch.setattr(loading, "cpu_has_vnni", lambda: False)
    with pytest.warns(
        UserWarning, match=r"model.onnx was quantised on a CPU with VNNI, and this one has none: .* again"
    ):
        nls.from_pretrained(path)


@pytest.mark.parametrize(("way", "largest"), [("8 bits", 127), ("7 bits", 64)])
def test_weights_are_of_so_many_bits(source, photographs, tmp_path, way, largest):
    """The largest weight of 8 bits is 127, of 7 bits 64."""
    quantiser = onnx_quantisation.ONNXQuantiser(source, nls.calibration_images(photographs)[:1])
    quantiser.write(tmp_path / "model.onnx", way, [])
    stored = [onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "model.onnx").graph.initializer]
    weights = [array for array in stored if array.dtype == np.int8 and array.ndim == 4]
    assert weights
    assert max(int(np.abs(array.astype(int)).max()) for array in weights) in (largest, largest - 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_kept_is_in_float(model, source, photographs, tmp_path, suffix):
    """With every part but the last kept, the file differs less from the network than with none."""
    images = nls.calibration_images(photographs)[:2]
    kind, opened = (
        (onnx_quantisation.ONNXQuantiser, open_onnx)
        if suffix == ".onnx"
        else (openvino_quantisation.OpenVINOQuantiser, open_openvino)
    )
    quantiser = kind(source, images)
    parts = list(quantiser.parts.values())
    errors = []
    for number, kept in enumerate(([], [node for part in parts for node in part])):
        path = tmp_path / f"{number}{suffix}"
        quantiser.write(path, quantiser.ways[0], kept)
        with torch.no_grad():
            wanted = model(images[0])["out"]
        errors.append(float((opened(path).run(images[0]) - wanted).abs().max() / wanted.abs().max()))
    assert errors[1] < 0.02 < errors[0] or errors[1] < errors[0] / 5


def test_parts_are_modules_with_weights(source, monkeypatch):
    parts = onnx_quantisation.parts_of(source)
    assert "head.classifier" in parts
    assert any(name.startswith("backbone.body.layer1") for name in parts)
    assert len(parts) <= onnx_quantisation.MOST_PARTS
    nodes = [node for part in parts.values() for node in part]
    assert len(nodes) == len(set(nodes))
    assert {node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"} <= set(nodes)
    monkeypatch.setattr(onnx_quantisation, "MOST_PARTS", 2)
    assert set(onnx_quantisation.parts_of(source)) == {"backbone", "head"}


# --- What stays in float ------------------------------------------------------------------------------------------


class Damaging:
    """Instead of a file, a share of wrong pixels: of each part that is in INT8 its own, besides that of the way."""

    def __init__(self, damage: dict[str, float], ways: dict[str, float]) -> None:
        self.damage, self.of_way = damage, ways
        self.parts = {name: [f"{name}/1", f"{name}/2"] for name in damage}
        self.wrong: float = 0
        self.written: list[tuple[str, frozenset[str]]] = []

    @property
    def ways(self) -> tuple[str, ...]:
        return tuple(self.of_way)

    def write(self, path: Path, way: str, kept) -> None:
        kept_parts = {node.partition("/")[0] for node in kept}
        assert {node for part in kept_parts for node in self.parts[part]} == set(kept)
        self.wrong = self.of_way[way] + sum(share for name, share in self.damage.items() if name not in kept_parts)
        self.written.append((way, frozenset(kept_parts)))

    def search(self) -> Quantised:
        wanted = torch.zeros(1, 1000, 1, dtype=torch.uint8)

        def run(images: torch.Tensor) -> torch.Tensor:
            return (torch.arange(1000).view(1, -1, 1) < round(1000 * self.wrong)).to(torch.uint8)

        return quantisation.Search(
            self, lambda path: Opened(run, None), lambda images: wanted, [torch.zeros(1)], Path("none")
        ).run(7)


def test_nothing_stays_in_float_where_all_agree():
    damaging = Damaging({"a": 0.01, "b": 0.01}, {"one": 0.001, "other": 0})
    found = damaging.search()
    assert (found.weights, found.parts, found.agreement, found.calibrated) == ("other", (), 0.98, 7)
    assert found.ways == {"one": 0.979, "other": 0.98}
    assert damaging.written[-1] == ("other", frozenset())
    assert len(damaging.written) == 2


def test_what_damages_most_stays_in_float():
    damaging = Damaging({"a": 0.01, "b": 0.3, "c": 0.002, "d": 0.1, "e": 0}, {"one": 0.001})
    found = damaging.search()
    assert [(part.name, part.kept) for part in found.parts] == [
        ("b", True), ("d", True), ("a", False), ("c", False), ("e", False),
    ]  # fmt: skip
    assert [part.gain for part in found.parts] == pytest.approx([0.3, 0.1, 0.01, 0.002, 0])
    assert damaging.written[-1] == ("one", frozenset("bd"))
    assert found.agreement == pytest.approx(1 - 0.013)


@pytest.mark.parametrize("damage", [{"a": 0.1}, {"a": 0.1, "b": 0.1}, {}])
def test_a_file_that_would_be_all_in_float_is_refused(damage):
    with pytest.raises(ValueError, match=r"int8: on these photographs .* keep the class of the model, not 97.5 %"):
        Damaging(damage, {"one": 0.03}).search()


def test_photographs_are_calibrated_on_or_compared():
    images = list(range(64))
    calibrated, compared = quantisation.split(images)
    assert not set(calibrated) & set(compared)
    assert (len(calibrated), len(compared)) == (32, 16)
    assert quantisation.split([1]) == ([1], [1])
    assert quantisation.split([1, 2, 3]) == ([1, 3], [2])


# --- Mistakes -----------------------------------------------------------------------------------------------------


def test_mistakes_are_told_in_one_line(photographs, tmp_path):
    model = small("fcn").eval()
    images = nls.calibration_images(photographs)
    for path, options, words in (
        ("model.pt2", {"int8": True, "calibrate": images}, "int8: not for .pt2, because .*; take .onnx or .xml"),
        ("model.onnx", {"int8": True}, "int8: its ranges are found on photographs: give calibrate"),
        ("model.onnx", {"calibrate": images}, "calibrate: ranges .* add int8, or leave it out"),
        ("model.onnx", {"int8": True, "half": True}, "give one of half and int8"),
    ):
        with pytest.raises(ValueError, match=words):
            nls.export(model, tmp_path / path, **options)
    with pytest.raises(FileNotFoundError, match=r"calibrate: .*none is no folder"):
        nls.calibration_images(tmp_path / "none")
    with pytest.raises(ValueError, match=r"calibrate: .* holds no photographs"):
        nls.calibration_images(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("ready")
def test_a_photograph_that_cannot_be_read_is_named(model, photographs, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    broken = sorted(folder.iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match=broken.name):
        nls.export(model, tmp_path / "model.onnx", int8=True, calibrate=nls.calibration_images(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


@pytest.mark.parametrize(("suffix", "package"), [(".xml", "nncf"), (".onnx", "onnxruntime.quantization")])
def test_a_missing_extra_is_one_line(photographs, tmp_path, monkeypatch, suffix, package):
    model = small("fcn").eval()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"INT8 in .* files needs the extra int8: pip install 'nonlocalseg\[int8\]'"):
        nls.export(model, tmp_path / f"m{suffix}", int8=True, calibrate=nls.calibration_images(photographs))


def test_nothing_is_reported_over_the_network(tmp_path, monkeypatch):
    """A package of NNCF's name that would report, if it could."""
    (tmp_path / "nncf.py").write_text(
        "try:\n    import openvino_telemetry as found\nexcept ImportError:\n    found = None\n"
    )
    (tmp_path / "openvino_telemetry.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("nncf", "openvino_telemetry"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    openvino_quantisation.import_nncf()
    assert sys.modules["nncf"].found is None
    assert "openvino_telemetry" not in sys.modules


# --- Photographs --------------------------------------------------------------------------------------------------


def test_photographs_are_seen_as_the_view_says(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for number in range(3):
        write_image(tmp_path / f"{number}.png", picture)
    (whole, *others) = nls.calibration_images(tmp_path)
    assert torch.equal(whole, to_tensor(picture)[None])
    assert len(others) == 2
    view = nls.View(short_side=20)
    assert nls.calibration_images(tmp_path, view)[0].shape == (1, 3, 20, 30)
    sliding = nls.calibration_images(tmp_path, nls.View(mode="slide", crop=(40, 20), stride=(40, 20)))
    assert [torch.equal(sliding[n][0], to_tensor(picture)[..., 20 * n : 20 * n + 20]) for n in range(3)] == [True] * 3


def test_of_many_photographs_some_are_looked_at(tmp_path):
    for number in range(130):
        (tmp_path / f"{number:03}.png").write_bytes(b"")
    names = [path.stem for path in nls.calibration_images(tmp_path).photographs]
    assert (len(names), names[0]) == (64, "000")
    assert names == sorted(set(names))
    assert int(names[-1]) >= 126
