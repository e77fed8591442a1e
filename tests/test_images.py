"""Every kind of image file becomes the RGB that a viewer shows, and every broken one a line that names it."""

from __future__ import annotations

import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonlocalseg import images


def picture(height: int = 5, width: int = 7, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def tiff(path: Path, channels: int, bits: int = 8, declared: bool = False) -> Path:
    """A little-endian, uncompressed, chunky TIFF of 2 x 2 pixels, written by hand: Pillow writes no such thing.

    declared: says that the channels after three are extra samples, as it should; Pillow then opens five of them as RGB.
    """
    data = bytes(range(4 * channels * bits // 8))
    entries = [(256, 3, 1, 2), (257, 3, 1, 2), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, channels)]
    entries += [(278, 3, 1, 2), (279, 4, 1, len(data))]
    entries += [(338, 3, channels - 3, 0)] if declared else []  # one or two values fit into the entry itself
    extra = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(258, 3, channels, extra), (273, 4, 1, extra + 2 * channels)]
    entries.sort()
    content = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        content += struct.pack("<HHII", tag, kind, count, value)
    path.write_bytes(content + struct.pack("<I", 0) + struct.pack(f"<{channels}H", *[bits] * channels) + data)
    return path


def test_rgb_round_trip(tmp_path: Path) -> None:
    written = images.write_image(tmp_path / "new" / "a.png", picture())
    np.testing.assert_array_equal(images.read_image(written), picture())
    assert images.channels_first(picture()[:, ::-1]).shape == (3, 5, 7)
    assert images.to_tensor(picture()).shape == (3, 5, 7)
    assert images.to_tensor(np.full((2, 2, 3), 255, np.uint8)).max() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 255  # white at the top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored[orientation])).save(tmp_path / "a.jpg", exif=exif, quality=100)
    np.testing.assert_allclose(images.read_image(tmp_path / "a.jpg"), upright, atol=3)


def test_grey_alpha_and_palette(tmp_path: Path) -> None:
    grey = picture(channels=1)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(images.read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, 2))

    alpha = picture(channels=4)
    alpha[..., 3] = 0
    alpha[0, 0, 3] = 255
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    shown = images.read_image(tmp_path / "alpha.png")
    assert (shown[1:] == 255).all()
    np.testing.assert_array_equal(shown[0, 0], alpha[0, 0, :3])

    Image.fromarray(np.array([[[10, 0], [200, 255]]], np.uint8)).save(tmp_path / "la.png")
    assert images.read_image(tmp_path / "la.png")[0, :, 0].tolist() == [255, 200]

    indexed = Image.fromarray(np.array([[0, 1]], np.uint8))
    indexed.putpalette([255, 0, 0, 0, 0, 255])
    indexed.save(tmp_path / "palette.png")
    assert images.read_image(tmp_path / "palette.png").tolist() == [[[255, 0, 0], [0, 0, 255]]]
    indexed.save(tmp_path / "clear.png", transparency=1)
    assert images.read_image(tmp_path / "clear.png").tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert images.read_image(tmp_path / name)[0, :, 1].tolist() == [0, 1, 128, 255]
    rgb = tiff(tmp_path / "rgb16.tif", channels=3, bits=16)  # samples are 0x0100, 0x0302, ...: high bytes 1, 3, 5
    assert images.read_image(rgb)[0, 0].tolist() == [1, 3, 5]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(images.read_image(tmp_path / "a.jpg")[0, 0].astype(int) - [255, 0, 0]).max() < 4


@pytest.mark.parametrize(
    ("channels", "declared"), [(5, False), (6, False), (8, False), (5, True), (4, False), (4, True)]
)
def test_many_bands_are_refused(tmp_path: Path, channels: int, declared: bool) -> None:
    path = tiff(tmp_path / "bands.tif", channels, declared=declared)
    with pytest.raises(ValueError, match=f"bands.tif: {channels} channels") as error:
        images.read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["RGBA", "CMYK"])
def test_tiff_whose_fourth_channel_is_known(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.tif")
    assert (images.read_image(tmp_path / "a.tif") == 255).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = images.write_image(tmp_path / f"cut{suffix}", picture(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    for read in (images.read_image, images.read_mask):
        with pytest.raises(ValueError, match=f"cut{suffix}: ") as error:
            read(path)
        assert "\n" not in str(error.value)
        assert str(error.value).count(path.name) == 1


def test_not_an_image_and_missing(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("hello")
    with pytest.raises(ValueError, match=r"notes.png: not an image"):
        images.read_image(tmp_path / "notes.png")
    with pytest.raises(FileNotFoundError, match=r"gone.png: no such file"):
        images.read_image(tmp_path / "gone.png")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float.tif: pixels are 32 bit"):
        images.read_image(tmp_path / "float.tif")


def test_masks_keep_their_values(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [255, 7, 1]], np.uint8)
    palette = [(9, 9, 9), (200, 0, 0), (0, 200, 0)]
    for options in ({}, {"palette": palette}):
        path = images.write_mask(tmp_path / "a.png", indices, **options)
        np.testing.assert_array_equal(images.read_mask(path), indices)
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((1, 0)) == (200, 0, 0)
        assert image.convert("RGB").getpixel((0, 1)) == (0, 0, 0)
    wide = np.array([[0, 300, 40000]])
    found = images.read_mask(images.write_mask(tmp_path / "b.png", wide))
    np.testing.assert_array_equal(found, wide)
    assert found.dtype == np.int32
    images.write_image(tmp_path / "c.png", picture())
    np.testing.assert_array_equal(images.read_mask(tmp_path / "c.png"), picture())
    Image.fromarray(indices > 1).save(tmp_path / "d.png")
    assert images.read_mask(tmp_path / "d.png").tolist() == [[0, 0, 255], [255, 255, 0]]


def test_writing_refuses_what_it_would_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.png"):
        images.write_mask(tmp_path / "a.jpg", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"is .H, W. of integers"):
        images.write_mask(tmp_path / "a.png", np.array([[-1]]))
    with pytest.raises(ValueError, match="holds values up to 255"):
        images.write_mask(tmp_path / "a.png", np.array([[256]]), palette=[(0, 0, 0)])
    with pytest.raises(ValueError, match="an image is uint8"):
        images.write_image(tmp_path / "a.png", np.zeros((2, 2, 3), np.float32))
    assert not list(tmp_path.iterdir())


def test_only_images_are_opened_whatever_a_file_is_called(tmp_path):
    """PostScript would start Ghostscript, and a pipe would wait for ever."""
    (tmp_path / "photo.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (("photo.png", "not an image"), ("pipe.png", "not a regular file")):
        with pytest.raises(ValueError, match=message):
            images.read_image(tmp_path / name)


def test_heic_and_avif(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, 24:] = (200, 40, 40)
    Image.fromarray(picture).save(tmp_path / "a.avif", quality=90)
    pillow_heif.from_pillow(Image.fromarray(picture)).save(tmp_path / "b.HEIC", quality=90)
    for path in images.images_below(tmp_path):
        assert np.abs(images.read_image(path).astype(int) - picture).mean() < 3
    (tmp_path / "c.heic").write_bytes(b"%!PS-Adobe-3.0")
    with pytest.raises(ValueError, match=r"c\.heic: not an image"):
        images.read_image(tmp_path / "c.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ValueError, match=r"b\.HEIC: a HEIC picture needs the extra heic: pip install 'nonlocalseg\[heic\]'"
    ):
        images.read_image(tmp_path / "b.HEIC")


def test_a_picture_says_who_made_it(tmp_path):
    images.write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), maker="us")
    images.write_mask(tmp_path / "b.png", np.zeros((4, 4), np.uint8), maker="us")
    images.write_image(tmp_path / "c.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "d.png").write_bytes(b"nothing")
    assert [images.maker_of(tmp_path / f"{name}.png") for name in "abcde"] == ["us", "us", None, None, None]


def bomb(path: Path, side: int) -> None:
    """A black one-bit PNG of side x side pixels, written row by row: some kilobytes for hundreds of megabytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"".join(rows) + packer.flush()) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [13_300, 40_000])
def test_pictures_too_large_are_refused_by_their_header(tmp_path: Path, side: int) -> None:
    bomb(tmp_path / "bomb.png", side)
    tracemalloc.start()
    for read in (images.read_image, images.read_mask):
        with pytest.raises(ValueError, match=r"bomb.png: .*more than 134 million: cut it into parts"):
            read(tmp_path / "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    with pytest.raises(ValueError, match="cut it into parts or scale it down"):
        images.check_size(50_000, 50_000)
    images.check_size(12_000, 9_000)


def test_a_broken_tiff_says_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(picture(40, 40)).save(tmp_path / "a.tif", compression="tiff_lzw")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[200:260] = b"\xff" * 60
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.tif: "):
        images.read_image(tmp_path / "a.tif")
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"
