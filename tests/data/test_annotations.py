"""What labelling tools import: written, read again by the folder data set, and equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from layouts import label_of, picture, text
from scipy import ndimage

from nonlocalseg.data import label_studio
from nonlocalseg.data.annotations import FORMATS, annotate
from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.folder import Folder
from nonlocalseg.data.source import DataSource
from nonlocalseg.labels import IGNORE

CLASSES = ("road", 'Straße & <Gehweg> "x"', "道路", "empty", "one, two: three")
PALETTE = ((1, 2, 3), (255, 255, 255), (0, 128, 0), (9, 9, 9), (200, 0, 50))


def masks() -> dict[str, np.ndarray]:
    """Holes, islands in them, single pixels, more than 255 regions of a class, one class alone, the smallest images."""
    random = np.random.default_rng(0)
    nested = np.zeros((40, 50), np.int64)
    for step, index in enumerate((1, 2, 1, 4, 0, 1)):
        nested[3 * step : 40 - 3 * step, 4 * step : 50 - 4 * step] = index
    nested[0, 49], nested[39, 0] = 4, 2
    board = np.indices((48, 40)).sum(0) % 2 * 2
    return {
        "nested.png": nested,
        "trip one/zwölf & <drei>.jpg": random.choice([0, 1, 2, 4], (31, 67)),
        "board 100%.jpg": board,
        "deep/er/画像.jpeg": np.full((7, 5), 2),
        "pixel.png": np.full((1, 1), 4),
        "row.png": np.array([[0, 0, 1, 2, 2, 4]]),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_is_read_again(kind: str, tmp_path: Path) -> None:
    written = masks()
    assert ndimage.label(written["board 100%.jpg"] == 2)[1] > 255
    annotate(tmp_path, [kind], written.items(), CLASSES, PALETTE)
    for name, mask in written.items():
        picture(tmp_path / "images" / name, *mask.shape)
    data = Folder(tmp_path, "all")
    assert len(data) == len(written)
    by_name = {Path(name).with_suffix("").as_posix().replace("/", "__"): mask for name, mask in written.items()}
    for index in range(len(data)):
        mask, label = by_name[data.name(index)], label_of(data, index)
        np.testing.assert_array_equal(np.array(data.classes)[label], np.array(CLASSES)[mask])
    colours = dict(zip(data.classes, data.palette, strict=True))
    if kind != "label-studio":  # its tasks hold no colours
        assert data.classes == ("background", *CLASSES)
        assert [colours[name] for name in CLASSES] == list(PALETTE)
    assert check_dataset(DataSource(data="folder", root=str(tmp_path))).problems == []


def test_several_formats_at_once_and_one_mask_at_a_time(tmp_path: Path) -> None:
    waiting = 0

    def one_by_one() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal waiting
        for name, mask in masks().items():
            assert not (tmp_path / "annotations.xml").exists()  # no file is in its place before it is whole
            waiting += 1
            yield name, mask

    annotate(tmp_path, ["cvat", "coco", "cvat", "label-studio", "geojson"], one_by_one(), CLASSES)
    assert waiting == len(masks())
    expected = {"annotations.xml", "cvat-labels.json", "label-studio.json", "label-studio.xml"}
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == expected
    assert [path.name for path in (tmp_path / "annotations").iterdir()] == ["instances_default.json"]
    assert len(list((tmp_path / "geojson").rglob("*.geojson"))) == len(masks())


def test_nothing_stays_of_what_fails(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[str, np.ndarray]]:
        yield "a.png", np.zeros((2, 2), int)
        raise ValueError("out of masks")

    for given, message in (
        (failing(), "out of masks"),
        ([("a.png", np.array([[7]]))], "a.png: class 7 has no name, there are 5"),
        ([("a\x01.png", np.array([[1]]))], r"'a\\x01.png' cannot stand in a file of annotations: rename the image"),
    ):
        with pytest.raises(ValueError, match=message):
            annotate(tmp_path, ["cvat", "coco", "label-studio"], given, CLASSES)
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(ValueError, match="format"):
        annotate(tmp_path, ["cvatt"], [], CLASSES)


# --- As the tools document it -----------------------------------------------------------------------------------

MASK = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]])


def test_cvat_as_documented(tmp_path: Path) -> None:
    annotate(tmp_path, ["cvat"], [("a b.png", MASK)], ("ground", "thing"), ((0, 0, 0), (255, 128, 0)))
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    (image,) = root.findall("image")
    assert image.attrib == {"id": "0", "name": "a b.png", "width": "4", "height": "3"}
    thing = image.findall("mask")[1].attrib
    # rows of its own box, runs of 0 and 1 in turn that begin with 0
    box = {"left": "1", "top": "1", "width": "3", "height": "2", "rle": "0, 2, 1, 1, 1, 1"}
    assert thing == box | {"label": "thing", "source": "auto", "occluded": "0", "z_order": "0"}
    labels = json.loads((tmp_path / "cvat-labels.json").read_text())
    assert labels[1] == {"name": "thing", "color": "#ff8000", "type": "mask", "attributes": []}


def test_coco_as_documented(tmp_path: Path) -> None:
    annotate(tmp_path, ["coco"], [("a b.png", MASK)], ("ground", "thing"))
    content = json.loads((tmp_path / "annotations" / "instances_default.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "a b.png", "height": 3, "width": 4}]
    thing = content["annotations"][1]
    assert (thing["id"], thing["image_id"], thing["category_id"], thing["iscrowd"]) == (2, 1, 2, 0)
    assert (thing["area"], thing["bbox"]) == (4, [1, 1, 3, 2])
    # what pycocotools makes of this mask
    assert thing["segmentation"] == {"size": [3, 4], "counts": "421O20"}


def test_geojson_as_documented(tmp_path: Path) -> None:
    annotate(tmp_path, ["geojson"], [("a b.png", MASK)], ("ground", "thing"))
    content = json.loads((tmp_path / "geojson" / "a b.png.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    thing = content["features"][1]
    assert thing["properties"] == {"class": "thing", "index": 1, "pixels": 4}
    assert thing["geometry"]["type"] == "MultiPolygon"
    for polygon in thing["geometry"]["coordinates"]:
        for ring in polygon:
            assert ring[0] == ring[-1]
    square = [[3, 2], [4, 2], [4, 3], [3, 3], [3, 2]]
    assert sorted(map(len, (polygon[0] for polygon in thing["geometry"]["coordinates"]))) == [5, 7]
    assert any(sorted(polygon[0][1:]) == sorted(square[1:]) for polygon in thing["geometry"]["coordinates"])


def test_label_studio_as_documented(tmp_path: Path) -> None:
    annotate(tmp_path, ["label-studio"], [("sub dir/a#b.png", MASK)], ("ground", "thing"), ((0, 0, 0), (255, 128, 0)))
    (task,) = json.loads((tmp_path / "label-studio.json").read_text())
    assert task["data"] == {"image": "/data/local-files/?d=sub%20dir/a%23b.png"}
    thing = task["predictions"][0]["result"][1]
    assert (thing["type"], thing["from_name"], thing["to_name"]) == ("brushlabels", "label", "image")
    assert (thing["original_width"], thing["original_height"], thing["image_rotation"]) == (4, 3, 0)
    assert thing["value"]["brushlabels"] == ["thing"]
    assert thing["value"]["format"] == "rle"
    interface = ElementTree.parse(tmp_path / "label-studio.xml").getroot()
    brush = interface.find("BrushLabels")
    assert brush is not None
    assert brush.attrib == {"name": "label", "toName": "image"}
    assert [label.attrib for label in brush][1] == {"value": "thing", "background": "#ff8000"}
    # Made by Label Studio's own converter (label-studio-sdk 2.1.2, mask2rle of [[0, 255, 255]]), which packs less tightly
    theirs = [0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128]
    np.testing.assert_array_equal(label_studio.unpack(theirs, (1, 3)), [[False, True, True]])


def test_label_studio_runs_of_every_length() -> None:
    random = np.random.default_rng(0)
    for shape, share in (((1, 1), 1.0), ((300, 400), 0.0), ((300, 400), 1.0), ((20, 30), 0.5), ((300, 400), 0.0005)):
        mask = random.random(shape) < share
        np.testing.assert_array_equal(label_studio.unpack(label_studio.pack(mask), shape), mask)


# --- What people make of it in the tools ------------------------------------------------------------------------


def test_cvat_polygons_layers_and_what_is_left_out(tmp_path: Path) -> None:
    text(
        tmp_path / "annotations.xml",
        """<annotations><meta><job><labels><label><name>low</name><color>#0a0b0c</color></label><label><name>top</name>
        </label></labels></job></meta><image id="4" name="sub/a.jpg" width="6" height="4">
        <polygon label="top" z_order="2" points="2,0;4,0;4,4;2,4"/><box label="low" xtl="0" ytl="0" xbr="1" ybr="1"/>
        <polygon label="low" z_order="1" points="0.00,0.00;3.00,0.00;3.00,2.00;0.00,2.00"/>
        <mask label="ignore" z_order="0" rle="0, 1" left="5" top="3" width="1" height="1"/></image></annotations>""",
    )
    picture(tmp_path / "images" / "a.jpg")
    data = Folder(tmp_path, "all")
    assert data.classes == ("background", "low", "top")
    assert data.palette[:2] == ((0, 0, 0), (10, 11, 12))
    assert data.name(0) == "sub__a"
    assert label_of(data).tolist() == [[1, 1, 2, 2, 0, 0]] * 2 + [[0, 0, 2, 2, 0, 0], [0, 0, 2, 2, 0, IGNORE]]
    assert data.notes == ("1 annotations are neither masks nor polygons: they were left out",)


def test_label_studio_annotations_come_before_predictions(tmp_path: Path) -> None:
    def result(label: str, points: list[Any] | None = None) -> dict[str, Any]:
        value: dict[str, Any] = {"points": points, "polygonlabels": [label]} if points else {"choices": [label]}
        kind = "polygonlabels" if points else "choices"
        return {"type": kind, "value": value, "original_width": 6, "original_height": 4}

    left, right = [[0, 0], [50, 0], [50, 100], [0, 100]], [[50, 0], [100, 0], [100, 100], [50, 100]]
    tasks = [
        {
            "data": {"image": "https://example.org/upload/1/a%20b.png?token=1"},
            "predictions": [{"result": [result("guessed", left)]}],
            "annotations": [
                {"result": [result("corrected", right), result("nice")]},
                {"result": [result("cancelled", left)], "was_cancelled": True},
            ],
        },
        {"data": {"image": "nobody.png"}, "annotations": [], "predictions": []},
        {"data": {"image": "/data/local-files/?d=in/c.png"}, "predictions": [{"result": [result("guessed", left)]}]},
    ]
    text(tmp_path / "project-1-at-2026.json", json.dumps(tasks))
    picture(tmp_path / "images" / "a b.png")
    picture(tmp_path / "images" / "in" / "c.png")
    data = Folder(tmp_path, "all")
    assert data.classes == ("background", "corrected", "guessed")
    assert label_of(data, 0).tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert label_of(data, 1).tolist() == [[2, 2, 2, 0, 0, 0]] * 4
    assert data.notes[0].startswith("1 annotations")


def _xml(image: str) -> str:
    return f"<annotations>{image}</annotations>"


def _mask(rle: str, box: str = 'left="0" top="0" width="6" height="4"') -> str:
    return _xml(f'<image name="a.png" width="6" height="4"><mask label="x" rle="{rle}" {box}/></image>')


def _task(**value: Any) -> str:
    result = {
        "type": "brushlabels",
        "value": {"brushlabels": ["x"], **value},
        "original_width": 6,
        "original_height": 4,
    }
    return json.dumps([{"data": {"image": "a.png"}, "predictions": [{"result": [result]}]}])


def _feature(geometry: dict[str, Any], **properties: str) -> str:
    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
    return json.dumps({"features": [feature], "image": "a.png", "width": 6, "height": 4})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("annotations.xml", "<annotations", "annotations.xml: not CVAT's annotations, or damaged ones"),
        ("annotations.xml", _xml('<image name="a" width="x" height="4"/>'), "a: invalid literal for int"),
        ("annotations.xml", _xml('<image width="1" height="4"/>'), "<image> has no name"),
        ("annotations.xml", _xml('<image name="a" width="99999" height="99999"/>'), "a: 99999x99999 pixels, more than"),
        ("annotations.xml", _xml('<track id="0" label="x"/>'), "is of a video; export the task as CVAT for images"),
        ("annotations.xml", _mask("3, 3"), "a.png: x: a run-length mask of 6 pixels does not fill 4x6"),
        ("annotations.xml", _mask("-3, 27"), "does not fill 4x6"),
        ("annotations.xml", _mask("24", 'left="1" top="0" width="6" height="4"'), "lies outside its image of 6x4"),
        ("annotations.xml", _mask("a"), "a.png: x: invalid literal for int"),
        ("label-studio.json", "[{}]", "label-studio.json: not Label Studio's JSON \\(0.data: Field required"),
        ("label-studio.json", _task(rle=[1, 2]), "a.png: x: a brush's mask does not fill 6x4 pixels"),
        ("label-studio.json", _task(rle=[256]), "a brush's mask is a list of bytes"),
        ("label-studio.json", _task(rle=label_studio.pack(np.zeros((4, 6), bool))[:-1]), "a brush's mask is cut off"),
        ("geojson/a.geojson", '{"features": []}', "a.geojson: not GeoJSON of an image, with its width and height"),
        ("geojson/a.geojson", _feature({"type": "Polygon", "coordinates": [[[0, 0]]]}), "a feature has no class"),
        ("geojson/a.geojson", _feature({"type": "Polygon", "coordinates": [[0]]}, **{"class": "x"}), "are rings of"),
        (
            "geojson/a.geojson",
            _feature({"type": "Polygon", "coordinates": [[[0, 0], [1e300, 1]]]}, **{"class": "x"}),
            "are no pixels of an image",
        ),
    ],
)
def test_mistakes_name_the_file(file: str, content: str, message: str, tmp_path: Path) -> None:
    text(tmp_path / file, content)
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(ValueError, match=message) as caught:
        label_of(Folder(tmp_path, "all"))
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_lead_nowhere_but_to_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png", 1, 1)
    annotate(tmp_path / "root", ["cvat"], [("../secret.png", np.zeros((1, 1), int))], ("x",))
    assert Folder(tmp_path / "root", "all", strict=False).unmatched == (tmp_path / "root" / "images" / "secret.png",)
