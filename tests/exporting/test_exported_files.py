"""Exported files: they answer as the model does at every size, are models again, and leave nothing behind when wrong."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_models import small

import nonlocalseg as nls
from nonlocalseg.blocks.basic import resize
from nonlocalseg.exporting import checking, openvino_file, writing
from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.formats import FORMATS
from nonlocalseg.exporting.graph import Graph, trace
from nonlocalseg.exporting.loading import ExportedModel
from nonlocalseg.exporting.passport import ENTRY
from nonlocalseg.zoo.pretrained import pretrained_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

SUFFIXES = [kind.suffix for kind in FORMATS.values()]


@pytest.fixture(scope="module")
def model() -> nls.Segmenter:
    return small("fcn").eval()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory) -> dict[str, writing.Exported]:
    """Traced and converted once for all: what else there is of it is done for each."""
    folder, program = tmp_path_factory.mktemp("files"), trace(Graph.of(model, Form()))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writing, "trace", lambda graph: program)
        found = {".onnx": nls.export(model, folder / "model.onnx")}
        patched.setattr(openvino_file, "write_onnx", lambda _, path: shutil.copy(folder / "model.onnx", path))
        return found | {suffix: nls.export(model, folder / f"model{suffix}") for suffix in (".xml", ".pt2")}


def loaded(file: writing.Exported) -> ExportedModel:
    found = nls.from_pretrained(file.path)
    assert isinstance(found, ExportedModel)
    return found


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_answers_as_its_model_at_any_size(model, files, suffix):
    """Of one session, and of batches."""
    network = loaded(files[suffix])
    for batch, height, width in ((1, 65, 129), (3, 48, 96), (1, 16, 16), (2, 16, 200), (1, 97, 33)):
        images = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            assert relative(network(images)["out"], model(images)["out"]) < 1e-5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_prediction_with_a_file_is_that_of_the_model(model, files, suffix):
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for changes in ({}, {"scales": (0.3, 1.0), "flip": True}):
        found, wanted = nls.predict(files[suffix].path, picture, **changes), nls.predict(model, picture, **changes)
        assert torch.equal(found.mask, wanted.mask)
        torch.testing.assert_close(found.probabilities, wanted.probabilities, rtol=1e-4, atol=1e-5)
        assert (found.classes, found.palette) == (wanted.classes, wanted.palette)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_passport_says_what_was_measured(model, files, suffix):
    passport = files[suffix].passport
    assert passport == loaded(files[suffix]).passport
    assert [(one.batch, one.height, one.width) for one in passport.parity] == list(checking.SIZES)
    assert all(0 <= one.error < 1e-5 for one in passport.parity)
    assert passport.latency.seconds > 0
    assert {"nonlocalseg", "torch", "python", *FORMATS[format_named(suffix)].packages} == passport.versions.keys()
    assert loaded(files[suffix]).config == model.config


def format_named(suffix: str) -> str:
    return next(name for name, kind in FORMATS.items() if kind.suffix == suffix)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.filterwarnings("ignore:Duplicate name")  # a sealed file is sealed again
def test_a_file_that_is_wrong_is_not_left(model, files, tmp_path, monkeypatch, suffix):
    """A writer that gives the weights of another model, as a faulty converter would."""

    parts = {".xml", ".bin"} if suffix == ".xml" else {suffix}

    def faulty(program, path, form):
        for part in parts:
            path.with_suffix(part).write_bytes(files[suffix].path.with_suffix(part).read_bytes())

    name = format_named(suffix)
    kind = dataclasses.replace(FORMATS[name], write=faulty, smallest=lambda program: 16)
    monkeypatch.setitem(FORMATS, name, kind)
    monkeypatch.setattr(writing, "trace", lambda graph: None)
    other = copy.deepcopy(model)
    path = tmp_path / f"model{suffix}"
    nls.export(other, path)
    with torch.no_grad():
        other.head.classifier.bias[0] += 0.01
    written = path.read_bytes()
    with pytest.raises(ValueError, match=r"would not answer as the model does at .*65x129 .* so it was not written"):
        nls.export(other, path)
    assert path.read_bytes() == written
    assert {part.suffix for part in tmp_path.iterdir()} == parts


def test_mistakes_are_told_in_one_line(model, tmp_path):
    (tmp_path / "file").write_text("")
    for path, options, words in (
        ("model.bin", {}, r"model.bin ends in none of .onnx, .xml, .pt2"),
        ("model.onnx", {"format": "openvino"}, "a file of the format openvino ends in .xml"),
        ("model.onnx", {"format": "onx"}, "did you mean 'onnx'"),
        ("file/model.onnx", {}, "is a file, so .* cannot be a folder"),
        ("model.onnx", {"host_size": True}, "host_size: without a size"),
        ("model.onnx", {"size": 8}, "size: 8; give 16 or more"),
        ("model.pt2", {"half": True}, "half: not for .pt2, because torch has no fast float16"),
    ):
        with pytest.raises(ValueError, match=words):
            nls.export(model, tmp_path / path, **options)
    with pytest.raises(ValueError, match=r"call model.eval"):
        nls.export(small("fcn").train(), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_that_cannot_be_read(tmp_path, files):
    for suffix in SUFFIXES:
        (tmp_path / f"torn{suffix}").write_bytes(files[suffix].path.read_bytes()[:1000])
        (tmp_path / "torn.bin").write_bytes(b"")
        with pytest.raises(ValueError, match=rf"torn{suffix}: .* cannot read it .*: export it again"):
            nls.from_pretrained(tmp_path / f"torn{suffix}")
        with pytest.raises(FileNotFoundError, match="does not exist"):
            nls.from_pretrained(tmp_path / f"none{suffix}")
    (tmp_path / "alone.xml").write_bytes(files[".xml"].path.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"alone.bin is missing beside alone.xml: copy both files"):
        nls.from_pretrained(tmp_path / "alone.xml")
    with pytest.raises(ValueError, match="exported file, whose classes are fixed"):
        nls.from_pretrained(files[".onnx"].path, classes=["a"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "holds no passport of this library"),
        ("{", "its passport is damaged"),
        ("[]", "expected names and values"),
        ("{}", "its passport: .* missing"),
    ],
)
def test_passports_that_cannot_be_read(tmp_path, files, text, words):
    proto = onnx.load(files[".onnx"].path)
    del proto.metadata_props[:]
    if text is not None:
        onnx.helper.set_model_props(proto, {ENTRY: text})
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=words):
        nls.from_pretrained(tmp_path / "model.onnx")


def test_what_a_file_cannot_do_is_said(files):
    network = loaded(files[".onnx"])
    with pytest.raises(ValueError, match="at least 16x16 pixels, not 8x40"):
        network(torch.rand(1, 3, 8, 40))
    with pytest.raises(ValueError, match="an exported file is as fast as its runtime"):
        nls.speed_up(network)
    with pytest.raises(ValueError, match="without the network that this needs"):
        pretrained_network(files[".onnx"].path)


def test_free_sides_have_names(files):
    proto = onnx.load(files[".onnx"].path)
    (given,), (answer,) = proto.graph.input, proto.graph.output
    assert given.name == "images"
    assert [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip
    assert answer.name == "answer"


def test_the_lines_of_the_page_work(files, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
    lines = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "onnxruntime" in block)
    assert len(lines.strip().splitlines()) <= 12
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.jpg")
    (tmp_path / "model.onnx").write_bytes(files[".onnx"].path.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    wanted = nls.predict(files[".onnx"].path, "photo.jpg").mask.numpy()
    assert np.array_equal(np.asarray(Image.open("mask.png")), wanted)


def test_classes_at_the_size_of_the_image(model, tmp_path):
    """The resize to a working size and back, and the best class, inside the graph."""
    exported = nls.export(model, tmp_path / "classes.onnx", size=(48, 64), host_size=True, answer="classes")
    network = loaded(exported)
    images = torch.rand(2, 3, 70, 90)
    with torch.no_grad():
        inside = resize(model(resize(images, (48, 64), False))["out"], (70, 90), False)
    answer = network.answer(images)
    assert (answer.dtype, answer.shape) == (torch.uint8, (2, 70, 90))
    assert float((answer == inside.argmax(1)).float().mean()) > 0.999
    picture = images[0].mul(255).byte().permute(1, 2, 0).numpy()
    assert float((nls.predict(network, picture).mask == answer[0]).float().mean()) > 0.98  # 8 bits
    assert exported.passport.view == nls.View()


def test_probabilities_at_a_working_size(model, tmp_path):
    network = loaded(nls.export(model, tmp_path / "small.pt2", size=(48, 64), answer="probabilities"))
    images = torch.rand(1, 3, 70, 90)
    with torch.no_grad():
        inside = model(resize(images, (48, 64), False))["out"].softmax(1)
    torch.testing.assert_close(network.answer(images), inside, rtol=1e-4, atol=1e-6)
    scores = network(images)["out"]
    torch.testing.assert_close(scores.softmax(1), resize(inside, (70, 90), False), rtol=1e-4, atol=1e-5)


def test_a_static_file_sees_images_in_windows(model, tmp_path):
    exported = nls.export(model, tmp_path / "static.xml", static=(48, 64), half=True)
    network, plain = loaded(exported), loaded(exported).passport
    assert [(one.batch, one.height, one.width) for one in plain.parity] == [(1, 48, 64)]
    assert 0 < plain.parity[0].error < plain.tolerance == checking.TOLERANCE["half"]
    with pytest.raises(ValueError, match=r"static.xml takes images of 48x64 pixels only, not 50x70: .* --crop 48 64"):
        network(torch.rand(1, 3, 50, 70))
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    found = nls.predict(network, picture)
    wanted = nls.predict(model, picture, mode="slide", crop=(48, 64), small="pad")
    torch.testing.assert_close(found.probabilities, wanted.probabilities, rtol=0.02, atol=0.01)


def test_sizes_that_the_model_refuses_are_left_out(model):
    def refusing(images):
        if images.shape[2] < 60:
            raise ValueError("too small")
        return images.sum(1, keepdim=True).expand(-1, 5, -1, -1)

    graph = Graph.of(model, Form())
    graph.logits = refusing
    found = [checking.compare(refusing, graph, *size) for size in checking.SIZES]
    assert [one is None for one in found] == [False, True, False, False, True]
    assert {one.error for one in found if one is not None} == {0}
    assert checking.compare(lambda images: images, graph, 1, 65, 129).error == math.inf


def test_classes_that_score_less_are_errors(model):
    graph = Graph.of(model, Form(answer="classes"))
    with torch.no_grad():
        logits = graph.logits(checking.drawn(1, 40, 56))
    right = logits.argmax(1).to(torch.uint8)
    assert checking.compare(lambda _: right, graph, 1, 40, 56).error == 0
    wrong = right.clone()
    wrong[0, 3, 4] = logits[0, :, 3, 4].argmin()
    lost = logits[0, :, 3, 4].max() - logits[0, :, 3, 4].min()
    error = checking.compare(lambda _: wrong, graph, 1, 40, 56).error
    assert error == pytest.approx(float(lost / logits.abs().max()))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "openvino"])
def test_a_missing_extra_is_one_line(model, tmp_path, monkeypatch, package):
    monkeypatch.setattr(writing, "trace", lambda graph: None)
    monkeypatch.setitem(sys.modules, package, None)
    suffix = ".xml" if package == "openvino" else ".onnx"
    with pytest.raises(ValueError, match=r"files needs the extra export: pip install 'nonlocalseg\[export\]'"):
        nls.export(model, tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def test_signals_arrive_when_a_model_has_ended_in_another_thread(files):
    """OpenVINO's stack for signal handlers would have gone with it."""
    code = (
        "import os, signal, sys, threading\nfrom pathlib import Path\n"
        "from nonlocalseg.exporting.openvino_file import open_openvino\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('heard'))\n"
        "held = [open_openvino(Path(sys.argv[1]))]\nender = threading.Thread(target=held.clear)\n"
        "ender.start()\nender.join()\nos.kill(os.getpid(), signal.SIGUSR1)"
    )
    done = subprocess.run([sys.executable, "-c", code, files[".xml"].path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("wiring", ["default", "mmseg"])
@pytest.mark.parametrize("name", nls.MODELS)
def test_every_head_in_every_format(name, wiring, tmp_path):
    network = small(name, wiring=wiring).eval()
    for suffix in SUFFIXES:
        exported = nls.export(network, tmp_path / f"{name}{suffix}")
        assert max(one.error for one in exported.passport.parity) < 1e-5
        images = torch.rand(1, 3, exported.passport.smallest, 40)
        with torch.no_grad():
            assert relative(loaded(exported)(images)["out"], network(images)["out"]) < 1e-5
