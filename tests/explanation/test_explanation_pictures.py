"""Pictures of explanations: files of every kind, texts beside them, mistakes in one line; one table of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import nonlocalseg as nls
from nonlocalseg import images
from nonlocalseg.blocks.attended import Attended
from nonlocalseg.cli import main
from nonlocalseg.explanation.collect import explain
from nonlocalseg.explanation.pictures import PICTURES, Drawn, Picture, draw_pictures, write_pictures
from nonlocalseg.explanation.subject import Subject, open_subject, short_names
from nonlocalseg.heads.base import SILENT, Head, HeadOptions, Watch
from nonlocalseg.labels import IGNORE, LabelMap
from nonlocalseg.values import changed

CLASSES = ("sky", "road", "car", "tree")
PALETTE = ((0, 0, 250), (0, 100, 0), (250, 0, 0), (0, 200, 200))
PHOTO = np.random.default_rng(0).integers(90, 110, (60, 80, 3), dtype=np.uint8)
PLOTS = {"photo-anchors-ann-context", "photo-anchors-ann-fusion4", "photo-masks", "photo-features"}
TABLES = {"photo-stages-galdv1", "photo-errors", "photo-compare"}
FILES = {f"{name}{suffix}" for name in PLOTS for suffix in (".png", ".svg")} | {f"{name}.png" for name in TABLES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two saved models, a photograph and its labels."""
    folder = tmp_path_factory.mktemp("explaining")
    options = {"channels": 8, "auxiliary": False, "classes": CLASSES, "palette": PALETTE}
    torch.manual_seed(0)
    for name, model, more in (
        ("ann", "ann", {"key_channels": 8}),
        ("one/galdv1", "galdv1", {"key_channels": 8, "stage_heads": True}),
    ):
        nls.create_model(model, "test_resnet.r160_in1k", **options, **more).save_pretrained(folder / name)
    images.write_image(folder / "photo.png", PHOTO)
    images.write_mask(folder / "truth.png", np.arange(60)[:, None] // 20 + np.zeros((60, 80), int))
    images.write_mask(folder / "wrong.png", np.zeros((9, 9), int))
    images.write_mask(folder / "unknown.png", np.full((60, 80), 9))
    images.write_image(folder / "colours.png", PHOTO)
    return folder


@pytest.fixture(scope="module")
def subject(folder: Path) -> Subject:
    models = [str(folder / "ann"), str(folder / "one" / "galdv1")]
    return open_subject(models, folder / "photo.png", (70, 10), folder / "truth.png", device="cpu")


def test_everything_there_is_becomes_files(subject: Subject, tmp_path: Path) -> None:
    written = write_pictures(subject, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written} >= FILES
    for path in written:
        if path.suffix == ".png":
            Image.open(path).verify()
    assert {path.name for path in write_pictures(subject, tmp_path / "one", "masks")} == {
        "photo-masks.png",
        "photo-masks.svg",
    }


def test_every_picture_is_told_in_words(subject: Subject) -> None:
    found = {drawn.stem: drawn for drawn in draw_pictures(subject)}
    assert all(len(drawn.alt) > 20 for drawn in found.values())
    anchors = found["anchors-ann-fusion4"]
    assert anchors.alt.startswith("Attention of one pixel in the fusion of stage 4, pixel x = 70, y = 10 of photo;")
    assert anchors.caption.startswith("The weights of the fusion of stage 4 over its regions")
    assert len(anchors.lines) == 5
    assert all(picture.help for picture in PICTURES.values())


def test_the_verb_writes_everything_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    words = ["explain", str(folder / "ann"), str(folder / "photo.png"), "--compare", str(folder / "one" / "galdv1")]
    words += ["--truth", str(folder / "truth.png"), "--pixel", "70", "10", "--out", str(out), "--device", "cpu"]
    assert main(words) == 0
    assert {path.name for path in out.iterdir()} >= FILES
    assert set(capsys.readouterr().out.split()) == {str(path) for path in out.iterdir()}


def test_truth_is_read_in_the_coding_of_the_training_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A perfect prediction is without errors however the data set stores its classes: in the README's convention of own
    images (0 is ignored, classes from 1), in colours, and as class numbers where the model does not know."""
    plain = nls.from_pretrained(folder / "ann")
    said = nls.predict(plain, PHOTO).mask.numpy()
    ignored = np.zeros_like(said, bool)
    ignored[:20] = True
    own = LabelMap(values={0: IGNORE, **{index + 1: index for index in range(4)}}, colours={(0, 0, 9): 2, (9, 0, 0): 0})
    assert plain.config is not None
    plain.config = changed(plain.config, {"label_map": own})
    plain.save_pretrained(folder / "own")
    images.write_mask(folder / "stored.png", np.where(ignored, 0, said + 1))
    images.write_mask(folder / "indices.png", np.where(ignored, IGNORE, said))
    for model, truth in (("own", "stored.png"), ("ann", "indices.png")):
        found = open_subject([str(folder / model)], folder / "photo.png", None, folder / truth, device="cpu")
        assert found.truth is not None
        np.testing.assert_array_equal(found.truth, np.where(ignored, IGNORE, said))
    images.write_image(
        folder / "coloured.png", np.where((said == 2)[..., None], np.uint8([0, 0, 9]), np.uint8([9, 0, 0]))
    )
    found = open_subject([str(folder / "own")], folder / "photo.png", None, folder / "coloured.png", device="cpu")
    np.testing.assert_array_equal(found.truth, np.where(said == 2, 2, 0))
    words = [
        "explain",
        str(folder / "ann"),
        str(folder / "photo.png"),
        "--kind",
        "errors",
        "--out",
        str(folder / "told"),
    ]
    assert main([*words, "--truth", str(folder / "indices.png")]) == 0
    assert "ann does not say how labels are stored" in capsys.readouterr().err


def test_another_data_set_says_how_truth_is_stored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--data and --root take the coding of a folder's classes.yaml, of the same classes only."""
    root = folder / "data"
    for name in ("images/val/a.png", "masks/val/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    images.write_image(root / "images/val/a.png", PHOTO)
    images.write_mask(root / "masks/val/a.png", np.full((60, 80), 40))
    words = [
        "explain",
        str(folder / "ann"),
        str(folder / "photo.png"),
        "--kind",
        "errors",
        "--out",
        str(folder / "given"),
    ]
    words += ["--truth", str(root / "masks/val/a.png"), "--data", "folder"]
    (root / "classes.yaml").write_text("masks: {10: sky, 20: road, 30: car, 40: tree}")
    assert main([*words, "--root", str(root)]) == 0
    assert capsys.readouterr().err == ""
    (root / "classes.yaml").write_text("masks: {10: sky, 20: road, 30: tree, 40: car}")
    assert main([*words, "--root", str(root)]) == 2
    assert "the classes of folder in another order" in capsys.readouterr().err
    assert main([*words[:-1], "cityscapes"]) == 2
    assert "predicts 4 classes and cityscapes has 19" in capsys.readouterr().err


def test_a_new_picture_is_one_line(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def grey(subject: Subject) -> Iterator[Drawn]:
        yield Drawn("grey", subject.image.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2), "in grey")

    monkeypatch.setitem(PICTURES, "grey", Picture("the photograph in grey", grey))
    assert [path.name for path in write_pictures(subject, tmp_path, "grey")] == ["photo-grey.png"]
    assert "grey" in [drawn.stem for drawn in draw_pictures(subject)]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, "local", "ann has no LDv2; use a model such as galdv2"),
        ({}, "masks", "ann has no LDv1"),
        ({}, "stages", "train a GALD model with --stage-heads"),
        ({}, "errors", "--truth: errors need the label image"),
        ({}, "anchor", "unknown kind of picture 'anchor': did you mean 'anchors'?"),
        ({"models": ["one/galdv1"]}, "anchors", "galdv1 has no block that attends"),
        ({"pixel": (80, 0)}, None, "pixel: 80 0 is outside the image"),
        ({"truth": "wrong.png"}, None, "wrong.png is 9x9 and the photograph 80x60"),
        (
            {"truth": "colours.png"},
            None,
            "colours.png: label holds RGB colours where the class map expects single values",
        ),
        ({"truth": "unknown.png"}, None, "unknown.png: label has value 9 in 4800 pixels, .* or say with --data"),
        ({"models": ["ann", "ann"]}, None, "--compare: a model is given twice"),
        ({"device": "abacus"}, None, "--device: 'abacus' is unknown"),
    ],
)
def test_mistakes_take_one_line(
    folder: Path, options: dict, kind: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as error:
        write_pictures(open_subject(**{"models": ["ann"], "image": "photo.png", **options}), "nothing", kind)
    assert "\n" not in str(error.value)
    assert not (folder / "nothing").exists()


def test_models_of_other_classes_are_not_compared(folder: Path) -> None:
    other = folder / "other"
    nls.from_pretrained(folder / "ann", classes=["a", "b"]).save_pretrained(other)
    with pytest.raises(ValueError, match="other has other classes than the first model"):
        draw_pictures(open_subject([str(folder / "ann"), str(other)], folder / "photo.png"), "compare")


def test_names_are_as_long_as_it_takes() -> None:
    assert list(short_names(["runs/ann", "runs/fcn/"])) == ["ann", "fcn"]
    assert list(short_names(["a/model", "b/model"])) == ["a-model", "b-model"]


def test_a_backbone_of_other_weights_is_shown_beside(folder: Path, tmp_path: Path) -> None:
    plain = nls.create_model("ann", "test_resnet.r160_in1k", num_classes=4, channels=8, key_channels=8)
    torch.save(plain.backbone.body.state_dict(), tmp_path / "other.pth")
    found = open_subject([str(folder / "ann")], folder / "photo.png", backbone_weights=str(tmp_path / "other.pth"))
    assert list(found.explanations) == ["ann"]
    assert list(found.networks) == ["ann", "other"]
    shown = found.networks["other"].backbone.body.state_dict()
    assert all(torch.equal(weight, shown[name]) for name, weight in plain.backbone.body.state_dict().items())


class Telling(Head[HeadOptions]):
    """Tells of two blocks of neighbours, regions and two masks under names of its own."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = torch.nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Mapping[int, Tensor], watch: Watch = SILENT) -> Tensor:
        x = features[5]
        size = (x.shape[2], x.shape[3])
        for dilation in (1, 2):
            near = Attended.of_neighbours(_even(9), size, 3, dilation)
            watch.attention(f"near{dilation}", f"neighbours {dilation} apart", _told(near))
        watch.attention("odd", "odd attention", _told(Attended.of_regions(_even(size[0] * size[1]), x, x, None)))
        for name in ("one", "two"):
            watch.mask(name, f"mask {name}", lambda: x.sigmoid())
        return self.classifier(x)


def _even(count: int) -> Callable[[Tensor | None], Tensor]:
    """The same weight for everything that one position attends to."""
    return lambda positions: torch.full((1, 1 if positions is None else len(positions), count), 1 / count)


def _told(attended: Attended) -> Callable[[], Attended]:
    return lambda: attended


def test_a_head_needs_no_line_elsewhere(tmp_path: Path) -> None:
    """Whatever a head tells a watch becomes pictures, under the names and titles that it gives."""
    backbone = nls.create_model("fcn", "test_resnet.r160_in1k", num_classes=4, channels=8).backbone
    model = nls.Segmenter(backbone, Telling(backbone.channels[5], 4), None, CLASSES, PALETTE)
    found = explain(model, PHOTO, (40, 30))
    assert list(found.attention) == ["odd"]
    assert list(found.local) == ["near1", "near2"]
    assert [mask.title for mask in found.masks.values()] == ["mask one", "mask two"]
    drawn = {drawn.stem: drawn for drawn in draw_pictures(Subject({"mine": found}, "photo"))}
    assert set(drawn) == {"anchors-mine-odd", "local-mine-near1", "local-mine-near2", "masks", "compare"}
    assert "odd attention" in drawn["anchors-mine-odd"].alt
    assert "mine: mask two from" in drawn["masks"].alt
