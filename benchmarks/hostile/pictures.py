"""Images, label images and lists of inputs: whole ones of every form, changed, and read."""

from __future__ import annotations

import csv
import io
import random
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from benchmarks.hostile.cage import Caged, Kind
from benchmarks.hostile.changes import (
    CANARY,
    Change,
    changed_bytes,
    changed_header,
    changed_png,
    changed_tar,
    changed_text,
)
from nonlocalseg.images import check_image, read_image, read_mask
from nonlocalseg.inference.readers import FileReader
from nonlocalseg.inference.sources import find_inputs
from nonlocalseg.inference.windows import Window

SIZE = (40, 56)


def photograph(height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """Smooth, so that files are small, with a little noise."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 20, (height, width))
    return np.stack([rows * 4 + noise, columns * 3 + noise, rows + columns], axis=2).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def whole_pictures() -> dict[str, bytes]:
    """File name -> content, of every form that Pillow here can write."""
    colour = Image.fromarray(photograph())
    grey, deep = colour.convert("L"), Image.fromarray(photograph()[..., 0].astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    found = {
        "colour.png": encoded(colour, "PNG"),
        "clear.png": encoded(colour.convert("RGBA"), "PNG"),
        "palette.png": encoded(colour.quantize(16), "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "bit.png": encoded(colour.convert("1"), "PNG"),
        "colour.jpg": encoded(colour, "JPEG", exif=turned),
        "steps.jpg": encoded(colour, "JPEG", progressive=True),
        "ink.jpg": encoded(colour.convert("CMYK"), "JPEG"),
        "plain.tif": encoded(colour, "TIFF"),
        "lzw.tif": encoded(colour, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
        "group4.tif": encoded(colour.convert("1"), "TIFF", compression="group4"),
        "jpeg.tif": encoded(colour, "TIFF", compression="jpeg"),
        "frames.gif": encoded(colour.quantize(16), "GIF", save_all=True, append_images=[grey]),
        "colour.bmp": encoded(colour, "BMP"),
        "colour.ppm": encoded(colour, "PPM"),
        "grey.pgm": encoded(grey, "PPM"),
    }
    found |= {"loss.webp": encoded(colour, "WEBP"), "exact.webp": encoded(colour, "WEBP", lossless=True)}
    if features.check("jpg_2000"):
        found["colour.jp2"] = encoded(colour, "JPEG2000")
    if features.check("avif"):
        found["colour.avif"] = encoded(colour, "AVIF")
    return found


def changed_picture(name: str) -> Change:
    def change(content: bytes, drawn: random.Random) -> bytes:
        kind = drawn.random()
        if name.endswith(".png") and kind < 0.6:
            return changed_png(content, drawn)
        return (changed_header if kind < 0.8 else changed_bytes)(content, drawn)

    return change


def whole_masks() -> dict[str, bytes]:
    """Label images of the values 0 and 1, and of other depths."""
    values = (photograph()[..., 0] > 80).astype(np.uint8)
    palette = Image.fromarray(values, "P")
    palette.putpalette(bytes(range(256)) * 3)
    colours = Image.fromarray(np.repeat(values[..., None] * 255, 3, 2))
    return {
        "grey.png": encoded(Image.fromarray(values), "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "deep.png": encoded(Image.fromarray(values.astype(np.uint16)), "PNG"),
        "bit.png": encoded(Image.fromarray(values * 255).convert("1"), "PNG"),
        "colours.png": encoded(colours, "PNG"),
        "clear.png": encoded(colours.convert("RGBA"), "PNG"),
        "lzw.tif": encoded(Image.fromarray(values), "TIFF", compression="tiff_lzw"),
    }


def several(files: dict[str, bytes], folder: Path, change: Callable[[str], Change]) -> tuple[list[Path], Any]:
    """The files written, as a list whose only item is the file of the case; and the function that writes a case."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    names, current = sorted(files), [folder / min(files)]

    def write(drawn: random.Random) -> None:
        name = drawn.choice(names)
        current[0] = folder / name
        current[0].write_bytes(change(name)(files[name], drawn))

    return current, write


def pictures(folder: Path) -> Caged:
    current, write = several(whole_pictures(), folder, changed_picture)

    def ask() -> Iterable[str]:
        path = current[0]
        found = []
        for read in (check_image, read_image, lambda p: read_image(p, p.read_bytes(), 10**6)):
            try:
                read(path)
            except ValueError as error:
                found.append(str(error))
        return found

    return Caged(write, ask)


def masks(folder: Path) -> Caged:
    current, write = several(whole_masks(), folder, changed_picture)

    def ask() -> Iterable[str]:
        read_mask(current[0])
        return ()

    return Caged(write, ask)


# --- Lists, archives and arrays of inputs -----------------------------------------------------------------------


def whole_lists(folder: Path) -> dict[str, bytes]:
    """Lists of pictures that lie in `folder`."""
    (folder / "trip").mkdir()
    for number in range(3):
        (folder / "trip" / f"{number}.png").write_bytes(whole_pictures()["colour.png"])
    names = [f"trip/{number}.png" for number in range(3)]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerows([("input", "note"), *((name, "a, b") for name in names)])
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in names:
            archive.add(folder / name, name)
    array = io.BytesIO()
    np.save(array, photograph())
    found = {
        "list.txt": "\n".join(names).encode(),
        "list.csv": table.getvalue().encode(),
        "list.tsv": table.getvalue().replace(",", "\t").encode(),
        "shard.tar": tar.getvalue(),
        "array.npy": array.getvalue(),
    }
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return found
    rows, paths = io.BytesIO(), io.BytesIO()
    content = [(folder / name).read_bytes() for name in names]
    structs = [{"bytes": one, "path": f"../{name}"} for one, name in zip(content, names, strict=True)]
    parquet.write_table(pyarrow.table({"image": structs}), rows)
    parquet.write_table(pyarrow.table({"path": names, "other": [1, 2, 3]}), paths)
    return {**found, "bytes.parquet": rows.getvalue(), "paths.parquet": paths.getvalue()}


CHANGES: dict[str, Change] = {"shard.tar": changed_tar, "array.npy": changed_header}


def lists(folder: Path) -> Caged:
    """What is fetched, what its pictures would be called, and that these lie below the folder for them."""
    out = folder / "out"

    def change(name: str) -> Change:
        usual = changed_text if name.startswith("list") else changed_bytes
        return CHANGES.get(name, usual)

    current, write = several(whole_lists(folder), folder, change)

    def ask() -> Iterable[str]:
        path = current[0]
        if path.suffix == ".npy":
            reader = FileReader(path)
            reader.read(Window(0, min(8, reader.size[0]), 0, min(8, reader.size[1])))
            return ()
        found = []
        for item in find_inputs([str(path)], out).listed[:50]:
            place = (out / f"{item.name}.png").resolve()
            assert out.resolve() in place.parents, f"{item.name} leads to {place}"
            if CANARY in item.place or "://" in item.place:
                continue  # a list may name any file, and any address
            try:
                with item.fetched() as file:
                    read_image(file)
            except (ValueError, OSError) as error:
                found.append(str(error))
        return found

    return Caged(write, ask)


KINDS = (Kind("pictures", pictures), Kind("masks", masks), Kind("lists", lists))
