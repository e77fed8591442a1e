"""How a picture is best stored for training, and whether libraries of shards go on in the middle of a pass.

    python benchmarks/shards.py                 # forms of a picture: milliseconds and megabytes, drawn 2048x1024
    python benchmarks/shards.py --libraries     # needs webdataset and litdata

The second part reads 40 samples through each library's own shuffled loader, stops after 13, goes on from the state that
the library keeps, and compares what comes with what would have come.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from nonlocalseg.data.synthetic import draw_scene

COUNT, SEEN = 40, 13


def encoded(picture: np.ndarray, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, kind, **options)
    return content.getvalue()


def forms(size: tuple[int, int], repeat: int) -> None:
    """Every form in turn, `repeat` times: the whole picture to an array, and a crop of 769x769 of the plain pixels."""
    picture = draw_scene(np.random.default_rng(0), *size)[0]
    noisy = np.random.default_rng(1).integers(-8, 9, picture.shape) + picture  # photographs are never flat
    picture = noisy.clip(0, 255).astype(np.uint8)
    stored = {
        "PNG": encoded(picture, "PNG"),
        "PNG, not compressed": encoded(picture, "PNG", compress_level=0),
        "WebP, lossless": encoded(picture, "WEBP", lossless=True, method=2),
        "TIFF, LZW": encoded(picture, "TIFF", compression="tiff_lzw"),
        "PPM through Pillow": encoded(picture, "PPM"),
        "JPEG (not the same pixels)": encoded(picture, "JPEG", quality=90),
    }
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        plain.write_bytes(picture.tobytes())

        def mapped() -> np.ndarray:
            return np.memmap(plain, np.uint8, mode="c", shape=picture.shape)

        readers: dict[str, Callable[[], object]] = {
            name: (lambda data=data: np.array(Image.open(io.BytesIO(data)))) for name, data in stored.items()
        }
        readers["plain pixels, all"] = lambda: np.array(mapped())
        readers["plain pixels, a crop"] = lambda: np.array(mapped()[100:869, 300:1069])
        sizes = {**{name: len(data) for name, data in stored.items()}, "plain pixels, all": picture.nbytes}
        spent: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(repeat):
            for name, read in readers.items():
                start = time.perf_counter()
                read()
                spent[name].append(time.perf_counter() - start)
    for name, seconds in spent.items():
        space = f"{sizes[name] / 1e6:6.2f} MB" if name in sizes else ""
        print(f"{name:28} {1000 * statistics.median(seconds):8.2f} ms {space}")


def by_webdataset(folder: Path) -> Iterator[tuple[str, list[int], list[int]]]:
    import webdataset

    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard * 10, shard * 10 + 10):
                member = tarfile.TarInfo(f"{number:04d}.txt")
                member.size = 4
                tar.addfile(member, io.BytesIO(b"%04d" % number))
    places = [str(folder / f"{shard}.tar") for shard in range(4)]

    def made() -> webdataset.WebDataset:
        return webdataset.WebDataset(places, shardshuffle=4, seed=0).shuffle(20, seed=0).map(lambda x: int(x["txt"]))

    whole, stopped = list(made()), made()
    reader = iter(stopped)
    seen = [next(reader) for _ in range(SEEN)]
    assert seen == whole[:SEEN]
    keeps = [name for name in ("state_dict", "load_state_dict") if hasattr(stopped, name)]
    yield f"webdataset, state: {keeps or 'none is kept'}; begun again", whole[SEEN:], list(made())[: COUNT - SEEN]
    yield "webdataset, begun again and the seen ones read and dropped", whole[SEEN:], list(made())[SEEN:]


def by_litdata(folder: Path) -> Iterator[tuple[str, list[int], list[int]]]:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=10)
    for number in range(COUNT):
        writer[number] = number
    writer.done()
    writer.merge(1)

    def made(batch: int, workers: int) -> StreamingDataLoader:
        return StreamingDataLoader(
            StreamingDataset(str(folder), shuffle=True, seed=0), batch_size=batch, num_workers=workers
        )

    for first, second in ((0, 0), (2, 2), (2, 1)):
        whole = [int(number) for number in made(1, first)]
        loader = made(1, first)
        reader = iter(loader)
        seen = [int(next(reader)) for _ in range(SEEN)]
        state = loader.state_dict()
        again = made(1, second)
        again.load_state_dict(state)
        follow = "" if seen == whole[:SEEN] else " (already the first ones differ)"
        yield f"litdata, {first} workers, goes on with {second}{follow}", whole[SEEN:], [int(n) for n in again]


def libraries() -> None:
    for read in (by_webdataset, by_litdata):
        with tempfile.TemporaryDirectory() as folder:
            try:
                for name, expected, found in read(Path(folder)):
                    print(f"{name}: {'the same samples follow' if found == expected else 'others follow'}")
                    if found != expected:
                        print(f"  {len(set(expected) - set(found))} of {len(expected)} never come; {len(found)} come")
            except Exception as error:
                print(f"{read.__name__[3:]}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", action="store_true")
    parser.add_argument("--repeat", type=int, default=7)
    given = parser.parse_args()
    libraries() if given.libraries else forms((1024, 2048), given.repeat)
