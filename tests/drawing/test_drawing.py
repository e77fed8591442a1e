"""Pictures: exact pixels where they are promised, and sizes, texts and files everywhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonlocalseg import drawing
from nonlocalseg.labels import default_palette

CLASSES = ("sky", "road", "car")
PALETTE = ((0, 0, 250), (0, 100, 0), (250, 0, 0))


@pytest.fixture
def mask() -> np.ndarray:
    """Sky above road, a car on the road, a void line."""
    mask = np.zeros((60, 80), np.int64)
    mask[30:] = 1
    mask[35:55, 10:40] = 2
    mask[0] = 255
    return mask


def test_importing_is_cheap_and_nothing_touches_pyplot() -> None:
    code = (
        "import sys, numpy as np, nonlocalseg.drawing as d; assert 'matplotlib' not in sys.modules;"
        "d.curves({'a': ([0, 1], [1, 0])}, 't'); d.legend(['a'], [(1, 2, 3)]);"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_colour_is_exact(mask: np.ndarray) -> None:
    picture = drawing.colour(mask, PALETTE)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[1, 0].tolist() == [0, 0, 250]
    assert picture[40, 20].tolist() == [250, 0, 0]
    assert (drawing.colour(mask.astype(np.uint8), PALETTE) == picture).all()
    with pytest.raises(ValueError, match="mask: class 2 has no colour; the palette has 2"):
        drawing.colour(mask, PALETTE[:2])
    with pytest.raises(ValueError, match="mask: class -1"):
        drawing.colour(np.array([[-1]]), PALETTE)


def test_overlay_is_exact(mask: np.ndarray) -> None:
    image = np.full((60, 80, 3), 201, np.uint8)
    picture = drawing.overlay(image, mask, PALETTE, opacity=0.25)
    assert picture[0, 0].tolist() == [201, 201, 201]  # void shows the image
    assert picture[40, 20].tolist() == [213, 151, 151]  # 0.75 * 201 + 0.25 * (250, 0, 0), rounded
    assert picture[59, 79].tolist() == [151, 176, 151]
    assert (image == 201).all()
    tall = np.random.default_rng(0).integers(0, 256, (1100, 3, 3), dtype=np.uint8)  # more than one strip
    classes = np.arange(3300).reshape(1100, 3) % 3
    expected = np.floor(tall * 0.5 + np.array(PALETTE)[classes] * 0.5 + 0.5)
    assert (drawing.overlay(tall, classes, PALETTE) == expected).all()
    with pytest.raises(ValueError, match=r"mask: \[60, 80\] over an image of \[9, 80\]"):
        drawing.overlay(image[:9], mask, PALETTE)


def holds(picture: np.ndarray, part: np.ndarray, top: int, left: int = 0) -> float:
    """The share of the pixels of `part` found in `picture` at a place."""
    return float((picture[top : top + part.shape[0], left : left + part.shape[1]] == part).all(-1).mean())


def test_overlay_with_legend_lists_the_classes_present(mask: np.ndarray) -> None:
    image = np.full((60, 80, 3), 200, np.uint8)
    mask[mask == 1] = 0  # no road
    picture = drawing.overlay_with_legend(image, mask, CLASSES, PALETTE, opacity=1.0, title="scene")
    plain = drawing.overlay(image, mask, PALETTE, 1.0).repeat(4, 0).repeat(4, 1)  # 80 pixels become 320
    band = len(picture) - len(plain)
    assert band == 2 * drawing.SMALLEST_TEXT
    assert 0.9 < holds(picture, plain, band) < 1  # all but outlines and numbers
    side = picture[band:, 320:]
    shares = {0: "85.8 %", 2: "12.5 %"}
    assert (side == drawing.legend(CLASSES, PALETTE, shares, height=240)).all()
    found = {tuple(c) for c in side.reshape(-1, 3).tolist()}
    assert PALETTE[0] in found
    assert PALETTE[2] in found
    assert PALETTE[1] not in found


def test_numbers_and_outlines_tell_regions_apart_without_colour(mask: np.ndarray) -> None:
    flat = np.full((300, 400, 3), 128, np.uint8)
    big = mask.repeat(5, 0).repeat(5, 1)
    marked = drawing.marked(flat, big)
    assert (marked[149, 300:] == drawing.INK).all()  # between sky and road
    assert (marked[175:275, 49] == drawing.INK).all()  # left of the car
    car = marked[180:270, 60:190]
    assert (car > 200).all(-1).sum() > 20  # its number, in white
    same = drawing.marked(flat, np.zeros((300, 400), int))
    assert (same[:100] == 128).all()
    assert (flat == 128).all()


@pytest.mark.parametrize("size", [(96, 96), (40, 600), (600, 40), (3000, 2000)])
def test_text_grows_with_the_image(size: tuple[int, int]) -> None:
    mask = np.arange(size[0])[:, None] * 3 // size[0] + np.zeros(size, int)
    picture = drawing.overlay_with_legend(np.zeros((*size, 3), np.uint8), mask, CLASSES, PALETTE)
    swatch = (picture == PALETTE[2]).all(-1)
    rows = np.flatnonzero(swatch[:, -round(picture.shape[1] * 0.2) - 120 :].any(1))
    height = rows.max() - rows.min()
    assert height >= max(14, (size[0] * size[1]) ** 0.5 / 50)
    assert height < 3 * max(14, (size[0] * size[1]) ** 0.5 / 40)
    assert picture.shape[0] < 3 * max(size) + 100


def test_a_strip_is_not_drowned_by_its_legend() -> None:
    """An overlay of 16x30000 was 8337x31200: its text grew with the longer side."""
    mask = np.zeros((16, 30000), int) + np.arange(30000) // 10000
    high, wide = drawing.overlay_with_legend(np.zeros((16, 30000, 3), np.uint8), mask, CLASSES, PALETTE).shape[:2]
    assert high < 300
    assert wide < 31000


def test_legends_flow_into_columns() -> None:
    names = [f"class {i}" for i in range(150)]
    palette = default_palette(150)
    one, many = drawing.legend(names[:9], palette[:9], height=400), drawing.legend(names, palette, height=400)
    assert one.shape[0] == many.shape[0] == 400
    assert many.shape[1] > 5 * one.shape[1]
    found = {tuple(c) for c in many.reshape(-1, 3).tolist()}
    assert found.issuperset(palette)
    assert drawing.legend(names, palette, present={}, height=50).ndim == 3
    assert (drawing.legend(["a"], [(1, 2, 3)]) != drawing.legend(["a"], [(1, 2, 3)], numbered=False)).any()
    low = drawing.legend(names, palette, text=14, width=900)
    assert low.shape[1] == 900
    assert {tuple(c) for c in low.reshape(-1, 3).tolist()}.issuperset(palette)
    with pytest.raises(ValueError, match="palette: 3 colours for 2 classes"):
        drawing.legend(["a", "b"], PALETTE)


def test_montage_places_every_picture() -> None:
    def filled(value: int, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
        return np.full((*shape, 3), value, np.uint8)

    rows = [[filled(10), filled(20), filled(30)], [filled(40, (128, 96)), filled(50), filled(60)]]
    titles = [["image", "truth", "ann"], ["image", "truth", "fcn"]]
    width = drawing.table_width(rows)
    picture = drawing.montage(rows, titles, [drawing.legend(CLASSES, PALETTE, width=width)], title="scenes")
    areas = [int((picture == value).all(-1).sum()) for value in (10, 20, 30, 40, 50, 60)]
    assert min(areas) >= 216 * 288  # each enlarged to 288, none covered
    assert max(areas) < 216 * 288 * 1.02
    centres = [np.argwhere((picture == value).all(-1)).mean(0) for value in (10, 20, 30, 50)]
    assert centres[0][1] < centres[1][1] < centres[2][1]
    assert centres[1][0] < centres[3][0]
    assert picture.shape[1] == width < drawing.TABLE_WIDTH
    found = {tuple(c) for c in picture[-100:].reshape(-1, 3).tolist()}
    assert found.issuperset(PALETTE)
    large = drawing.montage([[filled(10, (1500, 2000))] * 2], [["a", "b"]])
    assert large.shape[1] < drawing.TABLE_WIDTH + 50
    with pytest.raises(ValueError, match=r"titles: give one for each picture, 3 \+ 3 in all"):
        drawing.montage(rows, [["image", "truth", "ann"], ["image"]])


def test_error_map_is_exact(mask: np.ndarray) -> None:
    said = mask.copy()
    said[50:] = 0
    said[20, 20] = 255  # void said of a labelled pixel is wrong
    picture = drawing.error_map(said, mask)
    wrong = (said != mask) & (mask != 255)
    assert (picture[wrong] == drawing.WRONG).all()
    assert (picture[~wrong & (mask != 255)] == drawing.RIGHT).all()
    assert {tuple(c) for c in picture[mask == 255].tolist()} == set(drawing.UNSCORED)
    light = [np.dot(c, (0.299, 0.587, 0.114)) for c in (drawing.WRONG, drawing.UNSCORED[0], drawing.RIGHT)]
    assert light[0] + 50 < light[1] < light[2] - 50  # told apart in grey
    with pytest.raises(ValueError, match="sizes must agree"):
        drawing.error_map(said[1:], mask)


def test_curves_differ_without_colour(tmp_path: Path) -> None:
    lines = {f"model {i}": ([0, 1, 2], [i, i + 1, i]) for i in range(8)}
    figure = drawing.curves(lines, "validation", y_label="mIoU")
    axes = figure.axes[0]
    assert axes.get_title() == "validation"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "mIoU")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(lines)
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes.get_lines()}) == 8
    for name in ("a.png", "a.svg", "b.svg"):
        drawing.save(figure, tmp_path / "made" / name)
    assert Image.open(tmp_path / "made" / "a.png").size == (960, 600)
    svg = (tmp_path / "made" / "a.svg").read_bytes()
    assert svg.startswith(b"<?xml")
    assert svg == (tmp_path / "made" / "b.svg").read_bytes()
    assert len(list((tmp_path / "made").iterdir())) == 3
    speeds = {"ann": ([1, 2], [3.0, 3.1])}
    assert drawing.curves(speeds, "speed").axes[0].get_ylim()[0] > 2
    assert drawing.curves(speeds, "speed", from_zero=True).axes[0].get_ylim()[0] == 0
    assert drawing.curves({}, "nothing yet").axes[0].get_legend() is None


def test_confusion_is_divided_by_row() -> None:
    counts = np.array([[6, 2, 0, 2], [0, 0, 0, 0], [1, 0, 199, 0]])
    axes = drawing.confusion_picture(counts, CLASSES).axes[0]
    shown = axes.images[0].get_array()
    assert shown is not None
    np.testing.assert_allclose(shown[[0, 2]], [[0.6, 0.2, 0, 0.2], [0.005, 0, 0.995, 0]])
    assert [text.get_text() for text in axes.texts] == ["60", "20", "20", "0", "100"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["sky", "road", "car", "(void)"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sky", "road (absent)", "car"]
    assert len(drawing.confusion_picture(counts[:, :3], CLASSES).axes[0].get_xticklabels()) == 3
    counts[:, 3] = 0
    assert len(drawing.confusion_picture(counts, CLASSES).axes[0].get_xticklabels()) == 3  # nothing said void
    with pytest.raises(ValueError, match="confusion: "):
        drawing.confusion_picture(counts, CLASSES[:2])


def test_150_classes_stay_readable() -> None:
    figure = drawing.confusion_picture(np.eye(150), [f"class {i}" for i in range(150)])
    axes = figure.axes[0]
    assert not axes.texts
    label = axes.get_xticklabels()[0]
    room = 72 * (figure.get_figwidth() - 4) / 150  # points for each class
    assert 6 <= float(label.get_fontsize()) <= room


def test_pictures_are_saved_exactly(tmp_path: Path, mask: np.ndarray) -> None:
    picture = drawing.colour(mask, PALETTE)
    assert drawing.save(picture, tmp_path / "a.png") == tmp_path / "a.png"
    assert (np.asarray(Image.open(tmp_path / "a.png")) == picture).all()


def test_score_table() -> None:
    table = drawing.score_table({"fcn": [0.5, 0.25, float("nan")], "ann": [1.0, 0.5, 0.0]}, CLASSES)
    assert table.splitlines() == [
        "class   fcn    ann",
        "------------------",
        "sky    50.0  100.0",
        "road   25.0   50.0",
        "car       -    0.0",
        "------------------",
        "mean   37.5   50.0",
    ]
