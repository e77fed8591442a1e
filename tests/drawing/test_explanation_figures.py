"""Figures of explanations: colours that mean numbers, one scale for what is compared, places where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonlocalseg import drawing
from nonlocalseg.drawing.colours import RGB_TO_XYZ, from_lab
from nonlocalseg.drawing.features import component_colours

CLASSES = ("sky", "road", "car", "tree")
PALETTE = ((0, 0, 250), (0, 100, 0), (250, 0, 0), (0, 200, 200))
PHOTO = np.random.default_rng(0).integers(90, 110, (60, 80, 3), dtype=np.uint8)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0-255 [N, 3] -> CIELAB [N, 3] under D65."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ RGB_TO_XYZ.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def test_shades_darken_evenly_in_one_hue() -> None:
    lab = to_lab(drawing.shades(np.linspace(0, 1, 101)) * 255)
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.min() > 0.9 * steps.max()  # as far apart to the eye everywhere
    assert (np.diff(lab[:, 0]) < -0.6).all()  # and in grey
    assert lab[:, 2].max() < 0
    rgb = np.random.default_rng(0).integers(0, 256, (50, 3)).astype(float)
    np.testing.assert_allclose(from_lab(to_lab(rgb)) * 255, rgb, atol=0.5)


def test_diverging_colours_say_which_side_and_how_far() -> None:
    lab = to_lab(drawing.diverging(np.linspace(-1, 1, 41)) * 255)
    assert (np.diff(lab[:21, 0]) > 0).all()  # lighter towards the middle
    assert (np.diff(lab[20:, 0]) < 0).all()
    assert lab[:12, 2].min() > 12  # yellowish below
    assert lab[29:, 2].max() < -12  # bluish above: what every eye tells apart


def test_grey_shows_the_first_component() -> None:
    parts = np.random.default_rng(0).random((3, 4, 50))
    lab = to_lab(component_colours(parts).reshape(-1, 3) * 255)
    inner = np.abs(parts[1:] - 0.5).max(0).ravel() < 0.2  # colours that no screen shows are clipped
    assert np.corrcoef(lab[inner, 0], parts[0].ravel()[inner])[0, 1] > 0.99
    assert component_colours(np.full((3, 1, 1), 0.5)).std() < 0.01


def anchors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights of 1 + 4 cells of an 80 x 60 image, their boxes and levels."""
    boxes = [[0, 0, 80, 60]] + [[x, y, x + 40, y + 30] for y in (0, 30) for x in (0, 40)]
    return np.array([0.1, 0.2, 0.3, 0.05, 0.35]), np.array(boxes, float), np.array([1, 2, 2, 2, 2])


def test_anchors_are_drawn_where_they_lie(tmp_path: Path) -> None:
    figure = drawing.anchors_picture(
        PHOTO, (10, 50), *anchors(), [(4, "35 %  road"), (2, "30 %  sky")], "attention", "car"
    )
    photograph, listed, one, two, bar = figure.axes
    assert figure.get_suptitle() == "attention"
    assert photograph.get_title() == "pixel x = 10, y = 50: car"
    assert [text.get_text() for text in photograph.texts] == ["1", "2"]
    assert photograph.patches[0].get_xy() == (40, 30)
    for text in photograph.texts:  # in a corner of its cell that is far from the cross and from other labels
        x, y = text.get_position()
        assert abs(x - 10) + abs(y - 50) > 30
    assert "overlap" not in bar.get_xlabel()
    assert listed.texts[0].get_text() == "1  35 %  road\n2  30 %  sky"
    assert one.get_title() == "1 × 1 cells: 10.0 % of the attention"
    assert two.get_title() == "2 × 2 cells: 90.0 % of the attention"
    assert bar.get_xlim() == (0, 35)
    picture = np.asarray(two.images[0].get_array())
    assert len(two.patches) == 4
    quarters = {(y, x): picture[y : y + 30, x : x + 40].mean((0, 1)) for y in (0, 30) for x in (0, 40)}
    for (y, x), weight in zip(quarters, anchors()[0][1:], strict=True):
        shade = drawing.shades(weight / 0.35)
        pale = quarters[y, x][2] / shade[2]
        np.testing.assert_allclose(quarters[y, x], shade * pale, atol=0.01)  # the shade times a pale grey
        assert 0.84 <= pale <= 1
    for suffix in (".png", ".svg"):
        drawing.save(figure, tmp_path / f"a{suffix}")
    assert Image.open(tmp_path / "a.png").size[0] > 600
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")


def test_overlapping_cells_are_explained_and_the_larger_weight_is_on_top() -> None:
    """Adaptive pooling's cells share positions where a map cannot be divided evenly."""
    boxes = np.array([[0, 0, 48, 60], [32, 0, 80, 60]], float)
    for weights, place in (((0.6, 0.4), 40), ((0.4, 0.6), 40)):
        figure = drawing.anchors_picture(PHOTO, (0, 0), weights, boxes, np.array([2, 2]))
        panel, bar = figure.axes[2:]
        assert "neighbouring cells overlap" in bar.get_xlabel()
        picture = np.asarray(panel.images[0].get_array())
        darkest = picture[:, :20].mean() if weights[0] > weights[1] else picture[:, 60:].mean()
        assert picture[:, place].mean() == pytest.approx(darkest, abs=0.02)


@pytest.mark.parametrize("size", [(60, 80), (96, 512), (512, 96), (16, 3000)])
def test_figures_fit_a_page(size: tuple[int, int], tmp_path: Path) -> None:
    """They were up to 3,000 pixels wide; panels take another row instead, and a wide photograph the whole width."""
    photo = np.full((*size, 3), 100, np.uint8)
    weights, boxes, levels = anchors()
    scaled = boxes * np.array([size[1] / 80, size[0] / 60] * 2)
    parts = {f"stage {n}": np.full((3, 4, 5), 0.5) for n in (2, 3, 4, 5)}
    shares = {name: (0.5, 0.25, 0.1) for name in parts}
    masks = {"a": np.full((4, 5), 0.5), "b": np.full((4, 5), 0.4)}
    for number, figure in enumerate(
        (
            drawing.anchors_picture(photo, (1, 1), weights, scaled, levels, [(1, "20 %  road")]),
            drawing.masks_picture(photo, masks, "masks"),
            drawing.features_picture(photo, {"a": parts}, {"a": shares}, "features"),
            drawing.features_picture(photo, {"a": parts, "b": parts}, {"a": shares, "b": shares}, "features"),
        )
    ):
        drawing.save(figure, tmp_path / f"{number}.png")
        assert Image.open(tmp_path / f"{number}.png").width == 960
    if size == (96, 512):
        panel = drawing.masks_picture(photo, masks, "masks")
        panel.draw_without_rendering()
        assert panel.axes[1].get_position().width > 0.9


def test_all_positions_take_one_panel() -> None:
    boxes = np.array([[x, y, x + 10, y + 10] for y in range(0, 60, 10) for x in range(0, 80, 10)], float)
    weights = np.arange(1, 49) / np.arange(1, 49).sum()
    figure = drawing.anchors_picture(PHOTO, (0, 0), weights, boxes, np.zeros(48, int), [(47, "most")])
    titles = [axes.get_title() for axes in figure.axes]
    assert "all positions: 100.0 % of the attention" in titles
    assert len(titles) == 4
    assert not figure.axes[0].texts  # too small to be numbered
    even = drawing.anchors_picture(PHOTO, (0, 0), np.full(48, 1 / 48), boxes, np.zeros(48, int))
    even.draw_without_rendering()


def test_neighbours_outside_are_hatched() -> None:
    weights = np.arange(9).reshape(3, 3) / 36
    boxes = np.array([[[x, y, x + 8, y + 8] for x in (-16, 0, 16)] for y in (8, 24, 40)], float)
    inside = np.array([[False, True, True]] * 3)
    figure = drawing.local_picture(PHOTO, (3, 27), weights, boxes, inside)
    whole, near, table, bar = figure.axes
    assert [text.get_text() for text in table.texts][-1] == "22.2"
    assert sum(patch.get_hatch() == "///" for patch in table.patches) == 3
    assert "outside the feature map" in table.get_xlabel()
    assert len(near.patches) == 6
    assert whole.patches[0].get_xy() == (0, 0)
    assert bar.get_xlim() == pytest.approx((0, 100 * 8 / 36))
    shades = np.asarray(table.images[0].get_array())
    np.testing.assert_allclose(shades, drawing.diverging((weights - 1 / 9) / (1 / 9)), atol=1e-6)


def test_local_weights_that_hardly_differ_hardly_show() -> None:
    """The scale is around the even weight 1/k²; it was stretched over whatever range there was."""
    boxes = np.array([[[x, y, x + 8, y + 8] for x in (0, 16, 32)] for y in (8, 24, 40)], float)
    weights = np.full((3, 3), 1 / 9)
    weights[0, 0], weights[2, 2] = 0.109, 0.113
    _, _, table, bar = drawing.local_picture(PHOTO, (20, 27), weights, boxes, np.ones((3, 3), bool)).axes
    assert bar.get_xlim() == pytest.approx((0, 100 * 2 / 9))
    assert np.ptp(np.asarray(table.images[0].get_array()), axis=(0, 1)).max() < 0.05


def test_masks_share_a_scale() -> None:
    low, high = np.full((6, 8), 0.25), np.full((6, 8), 0.5)
    high[0] = 0.75
    figure = drawing.masks_picture(PHOTO, {"gald": low, "ldga": high}, "masks")
    image, one, two, bar = figure.axes
    assert bar.get_xlim() == (0, 1)
    assert one.get_title() == "gald\n0.250 to 0.250"
    np.testing.assert_allclose(np.asarray(one.images[0].get_array())[0, 0], drawing.shades(0.25))
    np.testing.assert_allclose(np.asarray(two.images[0].get_array())[3, 3], drawing.shades(0.5))
    assert two.images[0].get_extent() == list(image.images[0].get_extent())


def test_features_have_a_column_for_each_model() -> None:
    parts = {"stage 4": np.random.default_rng(0).random((3, 6, 8)), "stage 5": np.full((3, 3, 4), 0.5)}
    shares = {"stage 4": (0.5, 0.25, 0.1), "stage 5": (0.7, 0.2, 0.05)}
    figure = drawing.features_picture(
        PHOTO, {"a": parts, "b": parts}, {"a": shares, "b": shares}, "features", "one basis"
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1] == "a\nstage 4, 8 × 6\n50, 25, 10 % of the variance"
    assert [title[:9] for title in titles[1:5]] == ["a\nstage 4", "a\nstage 5", "b\nstage 4", "b\nstage 5"]
    assert any(text.get_text() == "one basis" for axes in figure.axes for text in axes.texts)
    alone = drawing.features_picture(PHOTO, {"a": parts}, {"a": shares}, "features")
    assert alone.axes[1].get_title().startswith("stage 4")


def test_comparisons_list_the_classes_present() -> None:
    truth = np.zeros((60, 80), int)
    truth[30:] = 2
    truth[:5] = 255
    said = truth.copy()
    said[said == 255] = 0
    said[50:] = 0
    picture = drawing.comparison(PHOTO, {"ann": said}, CLASSES, PALETTE, truth, "scene")
    found = {tuple(c) for c in picture[-120:].reshape(-1, 3).tolist()}
    assert found >= {PALETTE[0], PALETTE[2]}
    assert not found & {PALETTE[1], PALETTE[3]}
    alone = drawing.comparison(PHOTO, {"ann": said}, CLASSES, PALETTE)
    assert alone.shape[0] < picture.shape[0] - 200  # one row instead of two
    assert max(alone.shape[1], picture.shape[1]) <= drawing.TABLE_WIDTH
    errors = drawing.error_comparison(PHOTO, {"ann": said, "fcn": truth}, truth, CLASSES, PALETTE)
    wrong = (errors == drawing.WRONG).all(-1).sum()
    assert 216 / 60 * 10 * 288 * 0.9 < wrong < 216 / 60 * 10 * 288 * 1.2 + 2000  # ten rows of sixty, and the legend
    assert (errors == drawing.UNSCORED[1]).all(-1).any()
