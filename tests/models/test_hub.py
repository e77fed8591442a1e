"""Models on disk: refused when assembled by hand, new classes, corrupt and foreign files."""

from __future__ import annotations

import json

import pytest
import torch
from test_models import small

import nonlocalseg as nls
from nonlocalseg.models import hub
from nonlocalseg.values import changed
from nonlocalseg.view import View


@pytest.fixture
def saved(tmp_path):
    small("ann").save_pretrained(tmp_path / "run/best")
    return tmp_path / "run/best"


def test_a_run_folder_is_its_model(saved):
    assert nls.from_pretrained(saved.parent).num_classes == 5


def test_new_classes_keep_everything_but_the_classifiers(saved):
    old = nls.from_pretrained(saved)
    new = nls.from_pretrained(saved, classes=["cat", "dog"], palette=[(1, 2, 3), (4, 5, 6)])
    assert (new.classes, new.palette) == (("cat", "dog"), ((1, 2, 3), (4, 5, 6)))
    assert new.config.classes == ("cat", "dog")
    for name, value in new.state_dict().items():
        assert (".classifier." in name) or torch.equal(value, old.state_dict()[name])
    assert new(torch.rand(1, 3, 32, 32))["out"].shape == (1, 2, 32, 32)


def test_a_hand_assembled_segmenter_is_refused(saved):
    model = nls.from_pretrained(saved)
    by_hand = nls.Segmenter(model.backbone, model.head, None, model.classes, model.palette)
    with pytest.raises(ValueError, match="assembled by hand"):
        by_hand.save_pretrained(saved.parent / "other")
    assert not (saved.parent / "other").exists()


def test_config_tells_what_the_model_predicts(saved):
    config = json.loads((saved / "config.json").read_text())
    assert config["classes"] == [f"class {n}" for n in range(5)]
    assert config["format_version"] == 1
    assert config["options"]["align_corners"] is False
    assert config["options"]["sampling"] == "pyramid_average"
    assert config["output_stride"] == 8
    assert config["mean"] == [0.5, 0.5, 0.5]  # this network's own


def _break_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _break_json(folder):
    (folder / "config.json").write_text("{")


def _foreign(folder):
    (folder / "config.json").write_text('{"architectures": ["X"]}')


def _newer(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 99}))


def _other_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    config["options"]["channels"] = 24
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_break_weights, "is corrupt"),
        (_break_json, "not valid JSON"),
        (_foreign, "not written by this library"),
        (_newer, "upgrade nonlocalseg"),
        (_other_shape, "does not fit its config .wrong shape: "),
        (lambda folder: (folder / "model.safetensors").unlink(), "copy the whole model folder"),
        (lambda folder: (folder / "config.json").unlink(), "holds no model"),
    ],
)
def test_damage_is_named_in_one_line(saved, damage, message):
    damage(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        nls.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_a_mistyped_folder_is_not_asked_of_the_hub(saved, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch_model", lambda *given: asked.append(given) or saved)
    monkeypatch.chdir(saved.parent.parent)
    with pytest.raises(FileNotFoundError, match="run/missing holds no model"):
        nls.from_pretrained("run/missing")
    assert not asked
    assert nls.from_pretrained("hf:run/missing", revision="v1").num_classes == 5
    assert nls.from_pretrained("somebody/some-model@v2").num_classes == 5
    assert asked == [("run/missing", "v1"), ("somebody/some-model@v2", None)]


def test_folders_and_the_zoo_have_no_revisions(saved):
    with pytest.raises(ValueError, match=r"revision: .* is a folder, which has no revisions; put hf: before"):
        nls.from_pretrained(saved, revision="v1")
    with pytest.raises(ValueError, match="revision: mmseg:ann-r50-ade20k is of the zoo"):
        nls.from_pretrained("mmseg:ann-r50-ade20k", revision="v1")


def test_a_config_cannot_reach_other_keywords_of_timm(saved):
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["backbone_options"] = {"checkpoint_path": "weights.pth"}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="backbone_options: unknown option 'checkpoint_path'"):
        nls.from_pretrained(saved)


def test_a_saved_model_keeps_how_it_sees_images(tmp_path):
    model = small("fcn")
    view = View(mode="slide", crop=(65, 97), stride=(0.5, 0.5), scales=(0.75, 1.0), flip=True)
    model.config = changed(model.config, {"view": view, "trained_crop": (65, 97)})
    again = nls.from_pretrained(model.save_pretrained(tmp_path))
    assert (again.view, again.config.trained_crop) == (view, (65, 97))
    assert nls.fold(again).view == nls.speed_up(again).view == view
    by_hand = nls.Segmenter(model.backbone, model.head, None, model.classes, model.palette)
    assert by_hand.view == View()


def test_the_config_is_one_line(saved):
    assert repr(nls.from_pretrained(saved).config).startswith("ModelConfig(ann on ")
    assert len(repr(small("ann", classes=150).config)) < 100


def test_a_run_before_its_first_validation_is_its_last_model(tmp_path):
    model = small("fcn")
    model.save_pretrained(tmp_path / "run" / "last")
    assert nls.from_pretrained(tmp_path / "run").config == model.config
