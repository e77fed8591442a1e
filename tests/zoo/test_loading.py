"""Every network of the zoo takes the keys and shapes that mmsegmentation has for it; a file becomes a model with its view."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli import tiny_runs
from data.layouts import mask, picture
from zoo.mirror import serving

import nonlocalseg as nls
from nonlocalseg.cli import main
from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.config_text import parse
from nonlocalseg.conversion.mmseg_writing import to_mmseg
from nonlocalseg.files import write_text
from nonlocalseg.images import write_image
from nonlocalseg.zoo import entries, loading
from nonlocalseg.zoo.entries import Entry, all_entries
from nonlocalseg.zoo.official import FILES, path_of

KEYS = json.loads(gzip.decompress((Path(__file__).parents[1] / "golden" / "zoo_keys.json.gz").read_bytes()))
BY_NETWORK: dict[str, tuple[Entry, int]] = {}
for _number, _network in enumerate(
    json.loads((Path(entries.__file__).parent / "mmsegmentation.json").read_text(encoding="utf-8"))["networks"]
):
    _entry = next(entry for entry in all_entries() if entry.network == _network)
    BY_NETWORK[_entry.name] = (_entry, _number)


def state_of(entry: Entry, number: int) -> dict[str, torch.Tensor]:
    """mmsegmentation's own keys and shapes."""
    shapes = {
        key: [entry.num_classes if size == "K" else size for size in shape] for key, shape in KEYS[number].items()
    }
    return {
        key: torch.zeros(shape, dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize("name", sorted(BY_NETWORK))
def test_every_network_takes_mmsegmentations_keys(name):
    """Names and shapes alone, strictly: on the meta device, but where tied weights are compared."""
    entry, number = BY_NETWORK[name]
    with torch.device("cpu" if entry.model == "ann" else "meta"):
        state = state_of(entry, number)
        classes, palette, _ = loading.classes_of(entry.data, entry.data_options)
        model = convert({"state_dict": state}, "mmseg", classes, palette, config={"model": entry.config})
    assert model.config is not None
    assert model.config.model == entry.model
    assert len(model.classes) == entry.num_classes


def test_every_entry_has_one_of_these_networks():
    assert len(KEYS) == len(BY_NETWORK) == 119
    known = [entry.network for entry, _ in BY_NETWORK.values()]
    assert all(entry.network in known for entry in all_entries())


# --- A small one, of the same form, from a server ---------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch):
    """An entry of the zoo whose network is narrow, its file, and a folder for the cache."""
    monkeypatch.setenv("NONLOCALSEG_CACHE", str(tmp_path / "cache"))
    source = next(entry for entry in all_entries() if entry.name == "fcn_r18-d8_4xb2-80k_cityscapes-512x1024")
    torch.manual_seed(0)
    model = nls.create_model(
        "fcn", "resnet18", classes=[f"class {n}" for n in range(19)], wiring="mmseg", channels=8, auxiliary_channels=8,
        backbone_options={"channels": [8, 16, 32, 64], "stem_type": "deep", "stem_width": 4},
    )  # fmt: skip
    content = to_mmseg(model.eval())
    file = io.BytesIO()
    torch.save(content, file)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    meta = content["meta"]
    assert isinstance(meta, dict)
    network = parse(meta["cfg"])["model"]
    entry = replace(
        source, network=network, digest=digest[:8], address=f"https://nowhere.invalid/zoo/small-{digest[:8]}.pth"
    )
    monkeypatch.setattr(entries, "all_entries", lambda: (entry,))
    return entry, file.getvalue(), model


def test_a_checkpoint_by_name(small, tmp_path, capsys):
    entry, content, model = small
    loading._tell.cache_clear()
    with serving({f"/{entry.path}": content}) as server:
        found = nls.from_pretrained("mmseg:fcn-r18-cityscapes", zoo_mirror=server.address)
    assert found.config is not None
    assert found.config.converted_from == f"mmseg:{entry.name}"
    assert found.config.view == entry.view
    assert found.classes[0] == "road"
    assert found.palette[0] == (128, 64, 128)
    images = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(found(images)["out"], model(images)["out"])
    shown = capsys.readouterr().err
    assert f"published mIoU {entry.miou}" in shown
    assert "not for commercial use" in shown
    nls.from_pretrained(f"mmseg:{entry.name}")  # from the cache, and silent
    assert "published" not in capsys.readouterr().err


def test_other_classes_keep_every_other_weight(small, tmp_path):
    entry, content, _ = small
    (tmp_path / entry.file).write_bytes(content)
    old = nls.from_pretrained(f"mmseg:{entry.name}", zoo_mirror=str(tmp_path))
    new = nls.from_pretrained(f"mmseg:{entry.name}", classes=["cat", "dog"])
    assert new.classes == ("cat", "dog")
    assert torch.equal(new.state_dict()["head.combine.conv.weight"], old.state_dict()["head.combine.conv.weight"])


def test_predict_by_name_and_again_offline(small, tmp_path, monkeypatch, capsys):
    entry, content, _ = small
    photo = write_image(tmp_path / "photo.png", np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))
    with serving({f"/{entry.path}": content}) as server:
        words = ["predict", "mmseg:fcn-r18-cityscapes", str(photo), "--out", str(tmp_path / "first")]
        assert main(["--zoo-mirror", server.address, *words]) == 0, capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main([*words[:-1], str(tmp_path / "again")]) == 0
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.png")]
    assert files
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_its_published_figure_stands_beside_the_measured_one(small, tmp_path, monkeypatch, capsys):
    entry, content, _ = small
    monkeypatch.setenv("COLUMNS", "200")
    for part in ("leftImg8bit/val/a/a_leftImg8bit", "gtFine/val/a/a_gtFine_labelIds"):
        draw = mask if "gtFine" in part else picture
        draw(tmp_path / f"data/{part}.png", *([[7, 8, 11]] if "gtFine" in part else []), height=16, width=32)
    (tmp_path / entry.file).write_bytes(content)
    here = ["--data", "cityscapes", "--root", str(tmp_path / "data"), "--workers", "0", "--out", str(tmp_path / "out")]
    assert main(["--zoo-mirror", str(tmp_path), "evaluate", "mmseg:fcn-r18-cityscapes", *here]) == 0
    shown = capsys.readouterr().out
    row = next(line.split() for line in shown.splitlines() if "mmsegmentation's zoo" in line and "ms+flip" not in line)
    measured = shown.partition("mIoU            ")[2].split()[0]
    assert row[1:6:2] == ["mIoU", f"{entry.miou:g}", measured]
    assert "as these" in " ".join(row)


def test_fine_tuning_on_own_classes(small, tmp_path, capsys):
    entry, content, _ = small
    (tmp_path / entry.file).write_bytes(content)
    start = ["--init-from", "mmseg:fcn-r18-cityscapes", "--steps", "1", "--batch-size", "2", "--crop", "48", "64"]
    words = ["train", "--data", "folder", "--root", str(tiny_runs.draw(tmp_path / "data")), *start, "--workers", "0"]
    words += ["--out", str(tmp_path / "run"), "--rate", "1e-12", "--head-rate-multiplier", "1", "--frozen-batchnorm"]
    assert main(["--zoo-mirror", str(tmp_path), *words]) == 0, capsys.readouterr().err
    old, new = nls.from_pretrained(f"mmseg:{entry.name}"), nls.from_pretrained(tmp_path / "run")
    assert new.classes == tiny_runs.CLASSES
    assert new.config is not None
    assert new.config.model == "fcn"
    kept = old.state_dict()
    for key, value in new.state_dict().items():
        if "classifier" not in key and value.is_floating_point():
            torch.testing.assert_close(value, kept[key], rtol=0, atol=1e-6)
    assert "init_from: mmseg:fcn-r18-cityscapes" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_checkpoint_with_code_in_it_is_never_run(small, tmp_path, monkeypatch, capsys):
    entry, _, _ = small

    class Harm:
        def __reduce__(self):
            return write_text, (str(tmp_path / "harm"), "done")

    content = pickle.dumps({"state_dict": Harm()})
    digest = hashlib.sha256(content).hexdigest()
    harmful = replace(entry, digest=digest[:8], address=f"https://nowhere.invalid/x-{digest[:8]}.pth")
    (tmp_path / harmful.file).write_bytes(content)
    with pytest.raises(ValueError, match="x-") as raised:
        loading.converted(harmful, str(tmp_path))
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(entries, "all_entries", lambda: (harmful,))
    photo = write_image(tmp_path / "photo.png", np.zeros((40, 56, 3), np.uint8))
    words = ["predict", f"mmseg:{harmful.name}", str(photo), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert main(["--zoo-mirror", str(tmp_path), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "x-" in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "harm").exists()


def test_a_zoo_name_is_never_asked_of_the_hub(tmp_path, monkeypatch, capsys):
    photo = write_image(tmp_path / "photo.png", np.zeros((40, 56, 3), np.uint8))
    monkeypatch.setattr("nonlocalseg.models.hub.fetch_model", lambda name, revision: pytest.fail(f"asked for {name}"))
    assert main(["predict", "mmseg:nobody/nothing", str(photo), "--out", str(tmp_path / "out")]) == 2
    assert "mmseg:nobody/nothing is not in the zoo" in capsys.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_an_official_file_says_where_to_put_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NONLOCALSEG_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"save it as {tmp_path}/official/{name}\.pth"):
        nls.from_pretrained(f"official:{name}")
    target = tmp_path / "official" / f"{name}.pth"
    write_text(target, "")
    assert path_of(f"official:{name}") == target


def test_an_unknown_official_name():
    with pytest.raises(ValueError, match="did you mean 'ann-r101-cityscapes'"):
        nls.from_pretrained("official:ann-r101-cityscape")
