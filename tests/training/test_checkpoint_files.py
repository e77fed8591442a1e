"""Checkpoints and models on disk: where they are staged, what is noticed of damage, and a full disk."""

from __future__ import annotations

import random
import resource
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from small_run import SMALL
from stored_runs import one_line, rows_of, same, weights

import nonlocalseg as nls
from nonlocalseg.cli.errors import describe
from nonlocalseg.training.checkpoints import WrittenBeside, read_checkpoint
from nonlocalseg.training.runs import train


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    return train(out=tmp_path_factory.mktemp("done") / "run", **{**SMALL, "steps": 2, "val_every": 1}).folder


def equal(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(equal(first[n], second[n]) for n in first)
        )
    if isinstance(first, (list, tuple)):
        return isinstance(second, (list, tuple)) and len(first) == len(second) and all(map(equal, first, second))
    return first == second


def flipped(path: Path, bit: int, to: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    to.write_bytes(content)
    return to


def test_a_flipped_bit_of_a_checkpoint_is_noticed_or_changes_nothing(done, tmp_path):
    path, drawn = done / "checkpoints/last.ckpt", random.Random(0)
    whole, refused = torch.load(path, weights_only=True), []
    for _ in range(120):
        broken = flipped(path, drawn.randrange(8 * path.stat().st_size), tmp_path / "last.ckpt")
        try:
            assert equal(read_checkpoint(broken), whole)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 90  # the rest is padding
    assert all("is corrupt or not ours" in line and "\n" not in line for line in refused)


def test_a_flipped_bit_of_a_model_is_noticed(done, tmp_path):
    folder, drawn = shutil.copytree(done / "best", tmp_path / "best"), random.Random(0)
    path = done / "best/model.safetensors"
    for _ in range(10):
        flipped(path, drawn.randrange(8 * path.stat().st_size), folder / "model.safetensors")
        with pytest.raises(ValueError, match=r"model\.safetensors is corrupt") as error:
            nls.from_pretrained(folder)
        one_line(error)


def test_nothing_is_staged_in_the_folder_of_temporary_files(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert (run(steps=1).folder / "checkpoints/last.ckpt").is_file()


@pytest.fixture
def small_files():
    """No file may grow beyond 64 KiB, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line(tmp_path, small_files):
    model = nls.create_model("fcn", "mobilenetv2_035", num_classes=2, channels=8, auxiliary=False)
    with pytest.raises(OSError, match="File too large") as error:
        model.save_pretrained(tmp_path / "model")
    assert describe(error.value)[0].startswith(f"error: {tmp_path / 'model/model.safetensors'}: ")
    with pytest.raises(OSError, match="File too large") as error:
        WrittenBeside().save_checkpoint(model.state_dict(), tmp_path / "last.ckpt")
    assert describe(error.value)[0].startswith(f"error: {tmp_path / 'last.ckpt'}: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_a_killed_run_left_half_written_is_swept(done, tmp_path):
    folder = shutil.copytree(done, tmp_path / "run")
    left = [folder / "checkpoints/.last.0123456789abcdef.ckpt", folder / "best/.model.0123456789abcdef.safetensors"]
    for path in (*left, folder / ".notes.txt"):
        path.touch()
    train(resume=folder, steps=3, progress=False)
    assert not any(path.exists() for path in left)
    assert (folder / ".notes.txt").exists()


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "of somebody else"])
def test_the_checkpoint_before_a_damaged_one_is_gone_on_from(run, tmp_path, capsys, damage):
    whole = run("whole", val_every=2)
    run("broken", val_every=2, steps=6)
    path = tmp_path / "broken/checkpoints/last.ckpt"
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 1
    changed = {"truncated": content[: len(content) // 2], "altered": content, "empty": b"", "of somebody else": b"PK"}
    path.write_bytes(changed[damage])
    resumed = train(resume=tmp_path / "broken")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "corrupt" in line]
    assert line.startswith(f"{path} is corrupt or not ours (")
    assert line.endswith(f": going on from {path.with_name('previous.ckpt')}, of step 4")
    assert same(weights(whole.folder), weights(resumed.folder))
    assert rows_of(whole.folder) == rows_of(resumed.folder)
    assert same(weights(whole.folder, "previous"), weights(resumed.folder, "previous"))
    assert path.with_name("damaged.ckpt").read_bytes() == changed[damage]
    path.write_bytes(b"")
    path.with_name("previous.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.ckpt is corrupt .*: train anew, or put back a whole copy") as error:
        train(resume=tmp_path / "broken", progress=False)
    one_line(error)
