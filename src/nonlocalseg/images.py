"""Any image file to an RGB array and back: EXIF rotation, grey, alpha, 16 bit, CMYK and palettes are settled here."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nonlocalseg.extras import needing
from nonlocalseg.files import writing
from nonlocalseg.silence import quietly

if TYPE_CHECKING:
    from torch import Tensor

MOST_PIXELS = 1 << 27
"""The largest picture that is decoded, by its header: 134 million pixels, about 1 GB while it is read."""
HEIC = {".heic", ".heif"}
"""They are read with the package pillow-heif, the extra heic."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".jp2", ".avif", *HEIC}
)
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
"""What is decoded, whatever a file is called: Pillow would start Ghostscript for PostScript."""

_MAKER = "Software"  # PNG's own word for it
_PHOTOMETRIC, _SAMPLES_PER_PIXEL, _EXTRA_SAMPLES = 262, 277, 338  # TIFF tags
_SOFTWARE = 305
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its errors are raised as well
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error)  # RuntimeError: of AVIF


def read_image(path: str | Path, data: bytes | None = None, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """The picture in `path`, or in `data` that came from there, as it should be seen: uint8 [H, W, 3], RGB.

    Applies the EXIF rotation, lays transparent pictures on white, scales 16 bit to 8 (65535 -> 255) and takes the first
    frame of several. Raises `FileNotFoundError`, and `ValueError` for a file that is unreadable, cut off, or has more
    than three channels of which the fourth is no transparency; `TooLarge`, by its header, for more than `most_pixels`.
    """
    with _opened(path, data, most_pixels) as image:
        _check_channels(path, image)
        return rgb(image, path)


def check_image(path: str | Path, data: bytes | None = None, most_pixels: int = MOST_PIXELS) -> None:
    """The errors of `read_image` that a file's header tells; no pixel is decoded."""
    with _opened(path, data, most_pixels, load=False):
        pass


def rgb(image: Image.Image, name: object = "image") -> np.ndarray:
    """A picture of Pillow's as `read_image` gives it: uint8 [H, W, 3]. `name` is what a ValueError calls it."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_eight_bit(name, np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def read_mask(path: str | Path, data: bytes | None = None) -> np.ndarray:
    """The label image in `path`, or in `data` that came from there, untouched: values [H, W] (uint8, or int32 for 16
    bit) or colours uint8 [H, W, 3].

    A palette PNG gives its indices, never its colours. One-bit pictures give 0 and 255, which is what they mean. An
    alpha channel is dropped. Raises `FileNotFoundError`, and `ValueError` for a file that is unreadable or cut off.
    """
    with _opened(path, data) as image:
        _check_channels(path, image)
        if image.mode == "P":
            return np.array(image)
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.int32)
        if image.mode in ("1", "L", "LA"):
            return np.array(image.convert("L"))
        if image.mode in ("RGB", "RGBA"):
            return np.array(image)[..., :3]
        raise ValueError(f"a label image cannot be {image.mode}; save it as a grey, palette or RGB PNG")


def channels_first(image: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> uint8 [3, H, W], of the same memory where that can be."""
    import torch  # here, so that images are read without it

    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in [0, 1]."""
    return channels_first(image).contiguous().float() / 255


def write_image(path: str | Path, image: np.ndarray, maker: str | None = None) -> Path:
    """Write uint8 [H, W, 3] RGB; the suffix of `path` chooses the format. Raises `ValueError` for another array.

    maker: what `maker_of` says of a .png.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{path}: an image is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    with writing(path) as temporary:
        Image.fromarray(image).save(temporary, pnginfo=_made_by(maker))
    return Path(path)


def write_mask(
    path: str | Path, mask: np.ndarray, palette: Sequence[Sequence[int]] | None = None, maker: str | None = None
) -> Path:
    """Write class indices [H, W] as PNG: 8 bit, 16 bit for values above 255, or a palette PNG when `palette` is given.

    Colours past the end of the palette (255 for ignore among them) are black. maker: what `maker_of` says of it. Raises
    `ValueError` for a mask that is not [H, W] of values 0..65535, for a path that is not `.png`, and for a palette with
    a 16-bit mask.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: label images are written as .png (other formats may change the values)")
    try:
        image = mask_picture(mask, palette)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with writing(path) as temporary:
        image.save(temporary, pnginfo=_made_by(maker))
    return Path(path)


def mask_picture(mask: np.ndarray, palette: Sequence[Sequence[int]] | None = None) -> Image.Image:
    """Class indices [H, W] as `write_mask` writes them, with its errors."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype.kind not in "iub" or (mask.size and not 0 <= mask.min() <= mask.max() <= 65535):
        raise ValueError(f"a label image is [H, W] of integers 0..65535, not {mask.dtype} {list(mask.shape)}")
    wide = mask.size > 0 and mask.max() > 255
    if wide and palette is not None:
        raise ValueError(f"a palette PNG holds values up to 255, this mask has {mask.max()}")
    image = Image.fromarray(mask.astype(np.uint16 if wide else np.uint8))
    if palette is not None:
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(palette)] = np.asarray(palette, np.uint8)
        image.putpalette(colours.tobytes())
    return image


def maker_of(path: str | Path) -> str | None:
    """The `maker` of a PNG, or of a TIFF in `Software`, that was written here, however it is called now; None for any
    other file."""
    try:
        if Path(path).is_file():
            if tags := tiff_tags(path):
                return str(tags.get(_SOFTWARE))
            with Image.open(path, formats=["PNG"]) as image:  # no pixel is decoded
                return image.info.get(_MAKER)
    except _BROKEN:
        pass
    return None


def _made_by(maker: str | None) -> PngInfo | None:
    if maker is None:
        return None
    note = PngInfo()
    note.add_text(_MAKER, maker)
    return note


def images_below(folder: Path) -> list[Path]:
    """The image files in `folder` and the folders in it, sorted; hidden ones are left out."""
    inside = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts))


class TooLarge(ValueError):
    """A picture of more pixels than are decoded."""


def check_size(width: int, height: int, most_pixels: int = MOST_PIXELS) -> None:
    """ValueError where a picture would be empty, or larger than `most_pixels`; to be asked before memory is taken."""
    if min(width, height) < 1:
        raise ValueError(f"{width}x{height} pixels; a picture has at least one")
    if width * height > most_pixels:
        raise TooLarge(f"{width}x{height} pixels, {_too_large(most_pixels)}")


def _too_large(most_pixels: int) -> str:
    return f"more than {most_pixels / 10**6:.3g} million: cut it into parts or scale it down"


@contextmanager
def _opened(
    path: str | Path, data: bytes | None = None, most_pixels: int = MOST_PIXELS, load: bool = True
) -> Iterator[Image.Image]:
    """The decoded picture; every way in which a file can be broken becomes one line that names it.

    data: what came from there, to be read instead of the file.
    """
    if data is None and Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path}: not a regular file; give an image")  # a pipe would wait for ever
    try:
        # Pillow warns about large pictures (> 89 Mpx) and odd metadata; what it cannot read it raises.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = path if data is None else BytesIO(data)
            with Image.open(source, formats=_formats(Path(path), data is not None)) as image:
                check_size(*image.size, most_pixels)
                if load:
                    with quietly() if image.format == "TIFF" else nullcontext():
                        image.load()
                yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        channels = _tiff_channels(path, data)
        if channels > 4:
            raise _too_many_channels(path, channels) from None
        raise ValueError(f"{path}: not an image, or a damaged one; replace or remove it") from None
    except Image.DecompressionBombError:  # Pillow's own limit, a little above ours
        raise TooLarge(f"{path}: the pixels are {_too_large(most_pixels)}") from None
    except TooLarge as error:
        raise TooLarge(f"{path}: {error}") from None
    except _BROKEN as error:
        reason = str(error).removeprefix(f"{path}: ").splitlines() or [type(error).__name__]
        raise ValueError(f"{path}: {reason[0]}") from None


def _formats(path: Path, read: bool) -> tuple[str, ...]:
    """What may be in a file of this name: HEIC as well where it says so, which takes a package of its own."""
    if path.suffix.lower() not in HEIC or not (read or path.is_file()):
        return FORMATS
    with needing("heic", f"{path}: a HEIC picture"):
        import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _check_channels(path: str | Path, image: Image.Image) -> None:
    """Pillow reads TIFFs of more than three bands, and drops the rest or takes it for transparency without a word."""
    tags = getattr(image, "tag_v2", {})
    channels = tags.get(_SAMPLES_PER_PIXEL, 0)
    transparent = tags.get(_EXTRA_SAMPLES) in ((1,), (2,))
    if channels > 4 or (channels == 4 and tags.get(_PHOTOMETRIC) == 2 and not transparent):  # 2: red, green, blue
        raise _too_many_channels(path, channels)


def _too_many_channels(path: str | Path, channels: int) -> ValueError:
    return ValueError(f"{path}: {channels} channels; export the three that show red, green and blue as one RGB file")


def _tiff_channels(path: str | Path, data: bytes | None) -> int:
    """The number of channels that a TIFF declares, 0 where the file is no readable TIFF."""
    found = tiff_tags(path, data).get(_SAMPLES_PER_PIXEL, 0)
    return found if isinstance(found, int) else 0


def tiff_tags(path: str | Path, data: bytes | None = None) -> dict[int, object]:
    """The tags of the first image in a TIFF, by number; none where the file is no readable TIFF."""
    try:
        with open(path, "rb") if data is None else BytesIO(data) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = file.read(8)
            if header[:4] not in _TIFF:
                return {}
            directory = ImageFileDirectory_v2(header + (file.read(8) if 43 in header[2:4] else b""))
            file.seek(directory.next)
            directory.load(file)
            return dict(directory)
    except (*_BROKEN, TypeError, KeyError, OverflowError, MemoryError):
        return {}


def _eight_bit(path: object, grey: np.ndarray) -> np.ndarray:
    """16-bit grey [H, W] -> uint8 [H, W]; 65535 becomes 255."""
    if grey.dtype.kind == "f" or (grey.size and (grey.min() < 0 or grey.max() > 65535)):
        raise ValueError(f"{path}: pixels are 32 bit, whose black and white are unknown; save it with 8 or 16 bit")
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
