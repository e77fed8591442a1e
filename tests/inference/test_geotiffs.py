"""GeoTIFFs in and out: at the same place, in the same blocks, read in windows; where nothing is known, nothing is said."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.cli import main
from nonlocalseg.images import MOST_PIXELS, maker_of, write_image
from nonlocalseg.inference import large, maps, rasters
from nonlocalseg.inference.bands import Bands
from nonlocalseg.inference.photographs import find_photographs
from nonlocalseg.inference.rasters import RasterReader, is_raster
from nonlocalseg.inference.windows import Window

rasterio = pytest.importorskip("rasterio", exc_type=ImportError)
from rasterio.control import GroundControlPoint  # noqa: E402  # of the extra, behind the line above
from rasterio.rpc import RPC  # noqa: E402  # the same
from rasterio.transform import Affine  # noqa: E402  # the same

SIZE = (70, 150)
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
ROTATED = Affine(0.4, 0.3, 500_000, 0.3, -0.4, 5_000_000)
CLASSES = ("water", "road", "field")


def pixels(bands: int = 3, kind: str = "uint8", size: tuple[int, int] = SIZE) -> np.ndarray:
    """[bands, H, W], from 1 up, so that 0 can stand for no data."""
    top = 255 if kind == "uint8" else 10_000
    return np.random.default_rng(0).integers(1, top, (bands, *size)).astype(kind)


def draw(path: Path, array: np.ndarray | None = None, **profile) -> Path:
    """A GeoTIFF; where nothing else is said, in UTM zone 32, in tiles of 32 x 16."""
    array = pixels() if array is None else array
    given = {"crs": "EPSG:32632", "transform": NORTH_UP, "tiled": True, "blockysize": 16, **profile}
    if given["tiled"]:
        given = {"blockxsize": 32, **given}
    shape = {"count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **given) as file:
        file.write(array)
    return path


@pytest.fixture(scope="session")
def model() -> nls.Segmenter:
    torch.manual_seed(0)
    small = {"channels": 8, "psp_bins": (1, 3), "auxiliary": False}
    return nls.create_model("psp", "test_resnet.r160_in1k", classes=CLASSES, **small).eval()


@pytest.fixture(scope="session")
def saved(model: nls.Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


def labelled(model: nls.Segmenter, path: Path, **changes) -> Path:
    large.write_classes(model, RasterReader(path), path.parent / "classes.tif", nls.View(**changes))
    return path.parent / "classes.tif"


def shown(array: np.ndarray) -> np.ndarray:
    """[3, H, W] as a photograph."""
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def classes_of(model: nls.Segmenter, array: np.ndarray) -> np.ndarray:
    return nls.predict(model, shown(array)).mask.numpy()


# --- What is kept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"compress": "lzw"}, {"compress": "lzw", "tiled": True, "blockxsize": 32, "blockysize": 16}),
        ({"compress": "zstd", "transform": ROTATED, "crs": "EPSG:25833"}, {"compress": "zstd", "transform": ROTATED}),
        ({"compress": "jpeg", "photometric": "ycbcr"}, {"compress": "deflate"}),
        ({"tiled": False, "blockysize": 5}, {"tiled": False, "blockysize": 5, "compress": None}),
        ({"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 9, 0, -1e-5, 48)}, {"crs": "EPSG:4326"}),
        ({"BIGTIFF": "YES", "interleave": "band"}, {}),
    ],
)
def test_place_blocks_and_compression_are_those_of_the_image(model, tmp_path, given, expected):
    path = draw(tmp_path / "ortho.tif", **given)
    assert is_raster(path)
    with rasterio.open(labelled(model, path)) as answer, rasterio.open(path) as image:
        assert (answer.crs, answer.transform, answer.shape) == (image.crs, image.transform, image.shape)
        found = answer.profile
        for name, value in expected.items():
            assert found.get(name) == value, name
        assert answer.block_shapes[0] == image.block_shapes[0]
        assert (found["dtype"], found["nodata"], found["count"]) == ("uint8", 255, 1)
        colours = answer.colormap(1)
        assert [colours[number][:3] for number in range(3)] == [tuple(colour) for colour in model.palette]
        tags = answer.tags()
        assert [tags[f"CLASS_{number}"] for number in range(3)] == list(CLASSES)
        assert tags["NO_DATA"].startswith("255: no data")
        if given.get("compress") != "jpeg":
            assert (answer.read(1) == classes_of(model, pixels())).mean() >= 0.999
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["classes.tif", "ortho.tif"]  # nothing beside them


def test_points_of_pixels_and_control_points_and_rpcs_are_kept(model, tmp_path):
    path = draw(tmp_path / "point.tif")
    with rasterio.open(path, "r+") as image:
        image.update_tags(AREA_OR_POINT="Point")
    with rasterio.open(labelled(model, path)) as answer, rasterio.open(path) as image:
        assert answer.tags()["AREA_OR_POINT"] == "Point"
        assert answer.transform == image.transform
    corners = [(0, 0, 9.0, 48.0), (0, 150, 9.1, 48.0), (70, 0, 9.0, 47.9), (70, 150, 9.1, 47.8)]
    points = [GroundControlPoint(row, column, x, y, id=str(row + column)) for row, column, x, y in corners]
    path = draw(tmp_path / "points.tif", transform=None, gcps=points, crs="EPSG:4326")
    with rasterio.open(labelled(model, path)) as answer:
        kept, crs = answer.gcps
        assert [(p.row, p.col, p.x, p.y) for p in kept] == corners
        assert crs == rasterio.CRS.from_epsg(4326)
    path = draw(tmp_path / "rpc.tif", transform=None, crs=None)
    factors = [float(number) for number in range(20)]
    with rasterio.open(path, "r+") as image:
        image.rpcs = RPC(1, 2, 3, 4, factors, factors, 5, 6, 7, 8, factors, factors, 9, 10)
    assert is_raster(path)
    with rasterio.open(labelled(model, path)) as answer, rasterio.open(path) as image:
        assert answer.rpcs.to_dict() == image.rpcs.to_dict()


def _with_no_data(path: Path) -> Path:
    array = pixels()
    array[:, :20, :30] = 0
    array[0, 60:, 60:] = 0  # in one band alone: data
    return draw(path, array, nodata=0)


def _with_alpha(path: Path) -> Path:
    array = pixels(4)
    array[3] = 255
    array[3, :20, :30] = 0
    return draw(path, array, photometric="rgb", ALPHA="YES")


def _with_mask(path: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        draw(path)
        with rasterio.open(path, "r+") as file:
            mask = np.full(SIZE, 255, np.uint8)
            mask[:20, :30] = 0
            file.write_mask(mask)
    return path


def _with_a_palette(path: Path) -> Path:
    array = np.tile(np.arange(1, 151, dtype=np.uint8), (1, 70, 1))
    array[:, :20, :30] = 0
    draw(path, array, nodata=0, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {number: (number, 255 - number, 7, 255) for number in range(256)})
    return path


@pytest.mark.parametrize("draw_it", [_with_no_data, _with_alpha, _with_mask, _with_a_palette])
def test_what_holds_no_data_has_no_class(model, tmp_path, draw_it):
    path = draw_it(tmp_path / "ortho.tif")
    with rasterio.open(labelled(model, path)) as answer:
        found = answer.read(1)
        assert (found[:20, :30] == 255).all()
        assert (found == 255).sum() == 600
        assert np.array_equal(answer.dataset_mask() == 0, found == 255)
        array = RasterReader(path).read(Window(0, 70, 0, 150)).numpy()
        rest = found != 255
        assert (found == classes_of(model, array))[rest].mean() >= 0.999
    if draw_it is _with_a_palette:
        assert array[:, 40, 99].tolist() == [100, 155, 7]


def test_more_than_255_classes_take_16_bits(tmp_path):
    assert [maps.no_data(count) for count in (2, 255, 256, 300)] == [255, 255, 256, 300]
    array = pixels()
    array[:, :3] = 0
    reader = RasterReader(draw(tmp_path / "ortho.tif", array, nodata=0))
    np.save(tmp_path / "classes.npy", np.full(SIZE, 255, np.uint8))
    legend = maps.Legend(["name"] * 256, nls.create_model("fcn", "test_resnet.r160_in1k", num_classes=256).palette, {})
    covered = maps.write_map(reader, tmp_path / "classes.npy", tmp_path / "out.tif", 256, legend)
    assert (covered.pixels[255], covered.left_out) == (67 * 150, 3 * 150)
    with rasterio.open(tmp_path / "out.tif") as answer:
        assert (answer.dtypes[0], answer.nodata) == ("uint16", 256)
        assert (answer.read(1)[0] == 256).all()


# --- What is seen -----------------------------------------------------------------------------------------------


def seen(path: Path, **bands) -> list[int]:
    """One pixel, as a model sees it."""
    return RasterReader(path, Bands(**bands)).read(Window(9, 10, 9, 10)).flatten().tolist()


def test_bands_are_the_first_three_or_those_that_are_chosen(tmp_path):
    array = pixels(5)
    path, stored = draw(tmp_path / "five.tif", array), array[:, 9, 9].tolist()
    assert seen(path) == stored[:3]
    assert seen(path, bands=(4, 2, 5)) == [stored[3], stored[1], stored[4]]
    assert "5 bands, of which 1 2 3 are seen" in RasterReader(path).note
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [rasterio.enums.ColorInterp[name] for name in ("blue", "green", "red", "nir", "gray")]
    assert seen(path) == stored[2::-1]
    assert seen(draw(tmp_path / "grey.tif", array[:1])) == stored[:1] * 3


def test_more_bits_are_scaled_as_it_is_said(tmp_path):
    array = pixels(kind="uint16")
    array[:, 9, 9] = [500, 1500, 9000]
    path = draw(tmp_path / "deep.tif", array)
    assert seen(path, value_range=(1000, 3000)) == [0, 64, 255]
    floats = draw(tmp_path / "float.tif", np.where(array == 500, np.nan, array / 1000).astype("float32"))
    assert seen(floats, value_range=(0, 3)) == [0, 128, 255]


@pytest.mark.parametrize(
    ("bands", "kind", "words", "message"),
    [
        (3, "uint16", (), "uint16 values; say which of them are black and white, such as --value-range 0 10000"),
        (3, "float32", (), "float32 values; say which of them"),
        (2, "uint8", (), "2 bands; say which three are red, green and blue: --bands R G B"),
        (3, "uint8", ("--bands", "1", "2", "4"), "--bands: 4, but it has 3"),
        (3, "complex64", (), "complex64 is no picture"),
    ],
)
def test_what_cannot_be_seen_is_said_in_one_line(saved, tmp_path, capsys, bands, kind, words, message):
    path = draw(tmp_path / "ortho.tif", pixels(bands, kind))
    assert main(["predict", str(saved), str(path), "--out", str(tmp_path / "out"), *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {path}: {message}" or line.startswith(f"error: {path}: {message}")
    assert not [entry for entry in (tmp_path / "out").rglob("*") if entry.is_file() and entry.suffix != ".csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--value-range", "5", "1"), "--value-range: 5 1; give a lower and a higher value, such as 0 10000"),
        (("--bands", "1", "2"), "--bands: 1 2 is 2 values; give 3"),
        (("--bands", "0", "1", "2"), "--bands: 0; give 1 or more"),
        (("--bands", "1", "2", "3"), "--bands is for GeoTIFFs, and there is none among PATHS"),
    ],
)
def test_options_that_make_no_sense_are_refused(saved, tmp_path, capsys, words, message):
    write_image(tmp_path / "photo.png", shown(pixels()))
    assert main(["predict", str(saved), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {message}"]


def test_broken_files_are_said_in_one_line_and_leave_nothing(saved, tmp_path, capsys):
    path = draw(tmp_path / "ortho.tif", compress="deflate")
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as image:
        place = int(image.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    shutil.copy(draw(tmp_path / "whole.tif"), tmp_path / "other.tif")
    words = ["predict", str(saved), str(tmp_path), "--out", str(tmp_path / "out"), "--mode", "stream", "--crop", "64"]
    assert main(words) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: {path}: ")
    left = sorted(entry.name for entry in (tmp_path / "out/index").iterdir())
    assert left == ["other.tif.tif", "whole.tif.tif"]


def test_other_formats_of_gdal_are_not_opened(tmp_path):
    """Text that GDAL would take for a virtual raster, which can name any file or address."""
    draw(tmp_path / "secret.tif")
    text = '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand band="1"><SimpleSource><SourceFilename>'
    (tmp_path / "trap.tif").write_text(f"{text}{tmp_path}/secret.tif</SourceFilename></SimpleSource></VRTRasterBand>")
    assert not is_raster(tmp_path / "trap.tif")
    with pytest.raises(ValueError, match=r"trap.tif: .*not recognized as being in a supported file format"):
        RasterReader(tmp_path / "trap.tif")


def test_what_is_stored_in_one_piece_is_refused_by_its_header(tmp_path, monkeypatch):
    path = draw(tmp_path / "ortho.tif", tiled=False, blockysize=60)
    assert RasterReader(path).size == SIZE
    monkeypatch.setattr(rasters, "LARGEST_BLOCK", 60 * 150 * 3 - 1)
    with pytest.raises(ValueError, match=r"stored in pieces of 150x60 pixels.*: gdal_translate -co TILED=YES"):
        RasterReader(path)


def test_an_image_too_large_for_the_disk_is_refused_by_its_header(model, tmp_path):
    """A few kilobytes that claim 2 ** 40 pixels."""
    path, side = tmp_path / "bomb.tif", 2**20
    tiles = {"tiled": True, "blockxsize": 8192, "blockysize": 8192, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", interleave="band", **tiles
    ):
        pass
    assert path.stat().st_size < 2**20
    assert is_raster(path)
    with pytest.raises(ValueError, match=r"the classes of 1048576x1048576 pixels need 2048.0 GiB in"):
        labelled(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bomb.tif"]


# --- How it is read ---------------------------------------------------------------------------------------------


class Counting(RasterReader):
    """Remembers the windows that were read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.windows: list[Window] = []

    def read(self, window: Window) -> torch.Tensor:
        self.windows.append(window)
        return super().read(window)


@pytest.mark.parametrize(("mode", "flip"), [("stream", False), ("slide", True)])
def test_only_windows_are_read_and_the_answer_is_that_of_the_photograph(model, tmp_path, monkeypatch, mode, flip):
    path, array = tmp_path / "ortho.tif", pixels(size=(70, 500))
    reader = Counting(draw(path, array))
    monkeypatch.setattr(large, "PANEL", 1)  # as narrow panels as there are
    view = nls.View(mode=mode, crop=(48, 64), flip=flip)
    large.write_classes(model, reader, tmp_path / "classes.tif", view)
    areas = [(w.bottom - w.top) * (w.right - w.left) for w in reader.windows]
    assert len(areas) > 8
    assert max(areas) < 70 * 500 * 0.7  # a tile with its border
    assert maker_of(tmp_path / "classes.tif") == "nonlocalseg predict"
    with rasterio.open(tmp_path / "classes.tif") as answer:
        same = answer.read(1) == nls.predict(model, shown(array), view).mask.numpy()
    assert same.mean() >= 0.9999


def test_the_tag_of_the_pixels_is_not_looked_at_where_nothing_is_known(tmp_path):
    """A photograph in a .tif needs no rasterio, unless it is too large or bands are chosen."""
    write_image(tmp_path / "photo.tif", shown(pixels()))
    assert not is_raster(tmp_path / "photo.tif")
    assert is_raster(tmp_path / "photo.tif", Bands(bands=(3, 2, 1)))
    (tmp_path / "photo.tfw").write_text("0.5\n0\n0\n-0.5\n500000\n5000000\n")
    assert is_raster(tmp_path / "photo.tif")
    side = math.isqrt(MOST_PIXELS) + 512
    with rasterio.open(
        tmp_path / "large.tif", "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", SPARSE_OK=True
    ):
        pass
    assert is_raster(tmp_path / "large.tif")
    assert not is_raster(tmp_path / "photo.png")
    assert not is_raster(tmp_path / "nothing.tif")


def test_without_the_extra_photographs_work_and_maps_name_it(saved, tmp_path, capsys, monkeypatch):
    write_image(tmp_path / "photo.tif", shown(pixels()))
    path = draw(tmp_path / "ortho.tif")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert main(["predict", str(saved), str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    cure = "reading GeoTIFFs needs the extra geo: pip install 'nonlocalseg[geo]'"
    assert capsys.readouterr().err.splitlines() == [f"error: {path}: {cure}"]
    assert (tmp_path / "out/index/photo.tif.png").is_file()


# --- The verb ---------------------------------------------------------------------------------------------------


def areas_in(out: Path) -> list[dict[str, str]]:
    with (out / "areas.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict_labels_maps_and_tells_their_areas(saved, tmp_path, capsys):
    _with_no_data(tmp_path / "in.tif")
    draw(tmp_path / "mercator.tif", crs="EPSG:3857")
    words = ["predict", str(saved), str(tmp_path), "--out", str(tmp_path / "out"), "--format", "geojson", "cvat"]
    assert main([*words, "--mode", "stream", "--crop", "64"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "note: in.tif: of a GeoTIFF there is geojson alone, no cvat" in said
    rows = [row for row in areas_in(tmp_path / "out") if row["image"] == "in.tif"]
    assert sum(int(row["pixels"]) for row in rows) == 70 * 150
    assert [int(row["pixels"]) for row in rows if not row["class"]] == [600]
    named = [row for row in rows if row["class"]]
    assert sum(float(row["share"]) for row in named) == pytest.approx(1)
    assert sum(float(row["square_metres"]) for row in named) == pytest.approx((70 * 150 - 600) * 0.25)
    assert {row["square_metres"] for row in areas_in(tmp_path / "out") if row["image"] == "mercator.tif"} == {""}
    answer = tmp_path / "out/index/in.tif.tif"
    assert maker_of(answer) == "nonlocalseg predict"
    with pytest.raises(ValueError, match="only pictures that an earlier prediction wrote"):
        find_photographs([str(answer)], tmp_path)
    content = json.loads((tmp_path / "out/geojson/in.tif.geojson").read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
    with rasterio.open(answer) as file:
        again = np.full(SIZE, 255, np.uint8)
        for feature in content["features"]:
            assert feature["properties"]["class"] == CLASSES[feature["properties"]["index"]]
            inside = rasterio.features.geometry_mask([feature["geometry"]], SIZE, file.transform, invert=True)
            again[inside] = feature["properties"]["index"]
        assert np.array_equal(again, file.read(1))
    capsys.readouterr()
    assert main([*words, "--mode", "stream", "--crop", "64"]) == 0
    assert "2 of 2 were done earlier" in capsys.readouterr().err


def test_polygons_have_outlines_counterclockwise_and_coordinates_of_their_own(tmp_path):
    from nonlocalseg.inference.polygons import write_polygons

    array = np.zeros((1, 9, 9), np.uint8)
    array[:, 2:7, 2:7], array[:, 4, 4] = 1, 0
    path = draw(tmp_path / "a.tif", array, crs="+proj=laea +lat_0=48 +lon_0=9", transform=Affine(1, 0, 0, 0, 1, 0))
    assert list(write_polygons(path, tmp_path / "a.geojson", "a.tif", ("no", "yes"), [(0, 0, 0), (1, 1, 1)])) == []
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert "crs" not in content
    (shape,) = [each["geometry"] for each in content["features"] if each["properties"]["class"] == "yes"]
    outline, hole = (np.array(ring) for ring in shape["coordinates"])
    assert outline[0] == pytest.approx([9, 48], abs=1e-3)

    def turning(ring: np.ndarray) -> float:
        ring = ring - ring.mean(0)
        return float((ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]).sum())

    assert turning(outline) > 0 > turning(hole)
    points = draw(tmp_path / "b.tif", array, transform=None, gcps=[GroundControlPoint(0, 0, 9, 48)], crs="EPSG:4326")
    (note,) = write_polygons(points, tmp_path / "b.geojson", "b.tif", ("no", "yes"), [])
    assert note.startswith("b.tif: placed by control points or RPCs alone")


def test_whole_images_and_scaled_windows(saved, model, tmp_path, capsys):
    path = draw(tmp_path / "ortho.tif", pixels(4))
    words = ["predict", str(saved), str(path), "--out", str(tmp_path / "out")]
    assert main([*words, "--bands", "4", "1", "2"]) == 0
    with rasterio.open(tmp_path / "out/index/ortho.tif.tif") as answer:
        assert np.array_equal(answer.read(1), classes_of(model, pixels(4)[[3, 0, 1]]))
    assert main([*words, "--mode", "slide", "--crop", "64", "--scales", "0.5", "1"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "windows over a large image are not resized" in said
    assert "note: ortho.tif: 4 bands, of which 1 2 3 are seen (--bands chooses others)" not in said
