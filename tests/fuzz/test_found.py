"""What changed files have found, each kept as a small case; and pickles that would run something, which none does."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import nonlocalseg as nls
from benchmarks.hostile.models import Payload, evaluations, tiny
from benchmarks.hostile.pictures import photograph, whole_pictures
from nonlocalseg.cli import main
from nonlocalseg.conversion.reading import read_checkpoint
from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.exporting import archive
from nonlocalseg.exporting.loading import ExportedModel
from nonlocalseg.exporting.passport import Opened
from nonlocalseg.images import read_image
from nonlocalseg.inference.readers import FileReader
from nonlocalseg.inference.sources import find_inputs


def one_line(match: str, action: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        action()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("colour.avif" not in whole_pictures(), reason="this Pillow reads no AVIF")
def test_avif_whose_parts_are_missing(tmp_path):
    path = tmp_path / "a.avif"
    path.write_bytes(whole_pictures()["colour.avif"].replace(b"pitm", b"xxxx"))
    one_line("a.avif: ", lambda: read_image(path))


def test_array_whose_header_does_not_end(tmp_path):
    path, buffer = tmp_path / "a.npy", io.BytesIO()
    np.save(buffer, photograph())
    path.write_bytes(buffer.getvalue().replace(b"'descr':", b"'descr'(("))
    one_line("a.npy: no .npy file", lambda: FileReader(path))


def test_archive_that_says_to_be_larger_than_memory(tmp_path):
    header = tarfile.TarInfo("a").tobuf(tarfile.PAX_FORMAT)
    header = header[:124] + b"\x80" + b"\xff" * 11 + b"        " + b"x" + header[157:]
    header = header[:136] + b"0" * 11 + b"\0" + b" " * 8 + header[156:]
    header = header[:148] + f"{sum(header):06o}\0 ".encode() + header[156:]
    path = tmp_path / "a.tar"
    path.write_bytes(header + bytes(10_000))
    one_line("a.tar: no whole, plain tar archive", lambda: find_inputs([str(path)], tmp_path))


def test_checkpoint_of_a_sparse_tensor(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2).to_sparse()}}, tmp_path / "a.pth")
    one_line("a is torch.sparse_coo", lambda: read_checkpoint(tmp_path / "a.pth"))


def test_sizes_are_refused_before_memory_is_taken(tmp_path):
    tiny("ann", key_channels=8, value_channels=8).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name in ("channels", "key_channels"):
        options = {**config["options"], name: 1_000_000}
        path.write_text(json.dumps({**config, "options": options}))
        one_line("does not fit its config", lambda: nls.from_pretrained(tmp_path))


def test_name_with_a_line_end(capsys, tmp_path):
    assert main(["predict", "m", "a\nb.jpg", "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- Pickles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """A folder that the payloads would make."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


def test_a_payload_does_run_where_it_is_unpickled(canary):
    pickle.loads(pickle.dumps(Payload(os.mkdir, str(canary))))
    assert canary.exists()


@pytest.mark.parametrize("function", [os.mkdir, os.system, eval, exec], ids=lambda function: function.__name__)
def test_checkpoints_run_nothing(canary, function):
    given = {eval: f"__import__('os').mkdir({str(canary)!r})", os.system: f"mkdir {canary}"}
    payload = Payload(function, given.get(function, given[eval] if function is exec else str(canary)))
    torch.save({"state_dict": {"a": payload}}, "new.pth")
    Path("old.pth").write_bytes(pickle.dumps({"state_dict": {"a": payload}}))
    for name in ("new.pth", "old.pth"):
        one_line("no readable checkpoint of tensors", lambda name=name: read_checkpoint(name))
        assert main(["convert", name, "--source", "mmseg", "--out", "model"]) == 2
    assert not canary.exists()


def test_arrays_and_evaluations_run_nothing(canary):
    held = np.array([Payload(os.mkdir, str(canary))], object)
    np.save("a.npy", held)
    one_line("no .npy file", lambda: FileReader("a.npy"))
    folder = Path("evaluation")
    folder.mkdir()
    evaluations(folder)
    (path,) = folder.glob("*.json")
    (counts,) = folder.glob("*-counts.npz")
    whole = np.load(counts)
    np.savez(counts, names=whole["names"], classes=whole["classes"], counts=held)
    one_line("is no evaluation, or a damaged one", lambda: Evaluation.read(path))
    buffer = io.BytesIO()
    np.save(buffer, whole["counts"])
    with zipfile.ZipFile(counts, "w") as changed:
        changed.writestr("counts.npy", buffer.getvalue().replace(b"'descr':", b"'descr'(("))
    one_line("is no evaluation, or a damaged one", lambda: Evaluation.read(path))
    with open(f"{path.with_suffix('')}-images.csv", newline="") as file:
        assert len([*csv.reader(file)]) == 3
    assert not canary.exists()


# --- Exported files ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return nls.export(tiny(), tmp_path_factory.mktemp("program") / "model.pt2").path


def members(path: Path | io.BytesIO) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as whole:
        return {item: whole.read(item) for item in whole.namelist()}


def loaded(content: dict[str, bytes], **options: int) -> object:
    with zipfile.ZipFile("a.pt2", "w", **options) as changed:
        for name, data in content.items():
            changed.writestr(name, data)
    return nls.from_pretrained("a.pt2")


def test_programs_tell_nothing_of_the_machine_and_hold_no_pickle(program, canary):
    content = members(program)
    assert b"site-packages" not in b"".join(content.values())
    assert str(Path.home()).encode() not in b"".join(content.values())
    assert content["model/data/sample_inputs/model.pt"] == b""
    assert isinstance(loaded(content), ExportedModel)


def pickled(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(os.mkdir, str(canary)), buffer)
    return buffer.getvalue()


def replaced(content: dict[str, bytes], name: str, old: bytes, new: bytes) -> dict[str, bytes]:
    assert old in content[name]
    return {**content, name: content[name].replace(old, new)}


GRAPH, ARRAYS = "model/models/model.json", "model/data/weights/model_weights_config.json"
RUN = b"__import__('os').mkdir('canary')"
CHANGES: dict[str, tuple[Callable[[dict[str, bytes], Path], dict[str, bytes]], str]] = {
    "sample inputs": (lambda c, k: {**c, "model/data/sample_inputs/model.pt": pickled(k)}, "sample inputs"),
    "weights": (
        lambda c, k: replaced(
            {**c, "model/data/weights/weight_0": pickled(k)}, ARRAYS, b'"use_pickle": false', b'"use_pickle": true'
        ),
        "more than an array",
    ),
    "expression": (lambda c, k: replaced(c, GRAPH, b'"expr_str": "', b'"expr_str": "' + RUN + b" + "), "expr_str"),
    "called": (
        lambda c, k: replaced(c, GRAPH, b'"expr_str": "Symbol(', b'"expr_str": "Symbol.__class__('),
        "expr_str",
    ),
    "guards": (lambda c, k: replaced(c, GRAPH, b'"guards_code": null', b'"guards_code": ["' + RUN + b'"]'), "guards"),
    "name": (lambda c, k: replaced(c, GRAPH, b'"name": "relu', b'"name": "' + RUN + b"; relu"), "name"),
    "metadata": (lambda c, k: replaced(c, GRAPH, b'"metadata": {}', b'"metadata": {"a": "b"}'), "metadata"),
    "operation": (
        lambda c, k: replaced(c, GRAPH, b"torch.ops.aten.relu_.default", b"torch.ops.aten.save.default"),
        "target",
    ),
    "function": (lambda c, k: replaced(c, GRAPH, b"torch.ops.aten.relu_.default", b"torch.hub.load"), "target"),
    "tree": (lambda c, k: replaced(c, GRAPH, b"builtins.tuple", b"collections.deque"), "in_spec"),
    "twice": (lambda c, k: {**c, f"{GRAPH[:-5]}.JSON": c[GRAPH]}, "which no export writes"),
    "compiled": (lambda c, k: {**c, "model/data/aotinductor/model/a.so": b"x"}, "which no export writes"),
    "empty": (lambda c, k: {**c, "model/data/weights/weight_0": b""}, "is empty where"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_programs_run_nothing(program, canary, kind):
    change, words = CHANGES[kind]
    one_line(words, lambda: loaded(change(members(program), canary)))
    assert not canary.exists()


def test_packed_programs_are_refused(program, canary):
    """They might unpack to more than memory holds."""
    one_line("which no export writes", lambda: loaded(members(program), compression=zipfile.ZIP_DEFLATED))


def test_torch_reads_what_was_looked_at(program, canary):
    """Not what another reader of zip files finds in the same bytes."""
    buffer = archive.checked(program)
    with zipfile.ZipFile(buffer) as copied:
        names = copied.namelist()
    assert len(names) == len(set(names))
    assert members(program) == members(buffer)


def test_files_that_answer_something_else(program):
    whole = nls.from_pretrained(program)
    assert isinstance(whole, ExportedModel)
    images = torch.zeros(2, 3, 24, 32)
    fails = RuntimeError("first\nsecond")

    def raising(_: torch.Tensor) -> torch.Tensor:
        raise fails

    answers = {
        r"float32 \[2, 4, 24, 32\], which are no logits of 3 classes": lambda given: torch.zeros(2, 4, 24, 32),
        r"\[2, 3, 24, 31\]": lambda given: torch.zeros(2, 3, 24, 31),
        r"\[1, 3, 24, 32\]": lambda given: torch.zeros(1, 3, 24, 32),
        r"\[6\]": lambda given: torch.zeros(6),
        r"fails on images of 24x32 \(first\)": raising,
    }
    for words, run in answers.items():
        one_line(words, lambda run=run: ExportedModel(program, Opened(run, None), whole.passport)(images))
