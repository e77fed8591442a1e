"""The best class of every pixel with and without all scores at the image's size: share of mixed pixels, time, memory.

python -m benchmarks.best_class --model RUN --camvid DIR --photos DIR [--images 3] [--rounds 3]

A pixel is mixed where the cells around it do not have the same best class: only there something has to be interpolated
to know it. Contenders are the classes that our way resizes. Times are those of one thread's processor, the least of some
alternated rounds; memory is what the peak of a fresh process grows by. The two results must be equal bit by bit. More
classes than the model has are mixtures of its scores with drawn weights, so that the regions are those of a real image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import nonlocalseg as nls
from nonlocalseg.images import images_below, read_image, to_tensor
from nonlocalseg.inference import best
from nonlocalseg.inference.best import Layer, best_of_layers
from nonlocalseg.inference.resizing import Placement

LARGEST = 3 * 2**30  # bytes of all scores, above which the plain way is not tried
CHILD = "from benchmarks.best_class import grown; import sys; grown(*sys.argv[1:])"


def plain(layer: Layer) -> Tensor:
    return layer.place(layer.scores).argmax(1)


def ours(layer: Layer) -> Tensor:
    return best_of_layers([layer])


WAYS: dict[str, Callable[[Layer], Tensor]] = {"plain": plain, "ours": ours}


def grown(way: str, file: str) -> None:
    """Prints by how many bytes the memory of this process grows at most."""
    torch.set_num_threads(1)
    scores, size = torch.load(file, weights_only=True)
    place = Placement(tuple(size), tuple(size), tuple(size))
    WAYS[way](Layer(scores[:, :2], Placement((64, 64), (64, 64), (64, 64))))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = held("VmRSS")
    WAYS[way](Layer(scores, place))
    print(held("VmHWM") - before)


def held(what: str) -> int:
    """Bytes, as Linux tells them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def mixed(layer: Layer) -> float:
    """The share of pixels between cells of different classes."""
    index = layer.scores.argmax(1, keepdim=True).float()
    reach = layer.place.reach or 2
    differ = F.max_pool2d(index, reach, 1, reach // 2) != -F.max_pool2d(-index, reach, 1, reach // 2)
    return float(F.interpolate(differ.float(), layer.place.size, mode="nearest").mean())


def cases(
    model: nls.Segmenter, camvid: Path, photos: Path, images: int
) -> Iterator[tuple[str, Tensor, tuple[int, int]]]:
    """What it is, scores [1, K, h, w] and the image's size."""
    generator = torch.Generator().manual_seed(0)
    own = model.num_classes
    weights = {count: torch.randn(count, own, generator=generator) / own**0.5 for count in (19, 150)}
    found = [(f"CamVid {path.name}", path) for path in images_below(camvid)[:: 233 // images][:images]]
    found += [(f"photo {path.stem}", path) for path in images_below(photos)[:: 16 // images][:images]]
    for name, path in found:
        image = to_tensor(read_image(path))[None]
        with torch.inference_mode():
            scores = model.coarse(image)[0].float().clone()
        size = (image.shape[2], image.shape[3])
        yield name, scores, size
        for mixture in weights.values():
            yield name, torch.einsum("kc,bchw->bkhw", mixture, scores), size
    for count in (12, 19, 150):
        yield "noise", torch.randn(1, count, 90, 120, generator=generator), (720, 960)
        smooth = F.interpolate(torch.randn(1, count, 12, 18, generator=generator), (500, 750), mode="bilinear")
        yield (
            "smooth, 24 megapixels",
            smooth * 4 + 0.3 * torch.randn(1, count, 500, 750, generator=generator),
            (4000, 6000),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = nls.from_pretrained(given.model).eval()
    columns = f"{'scores':34} {'size':>11} {'K':>4} {'mixed':>6} {'cont.':>5} {'plain':>9} {'ours':>9} {'ratio':>6}"
    print(f"{columns}  memory: plain, ours", flush=True)
    for name, scores, size in cases(model, given.camvid, given.photos, given.images):
        layer, count = Layer(scores, Placement(size, size, size)), scores.shape[1]
        ways = dict(WAYS) if 4 * count * size[0] * size[1] <= LARGEST else {"ours": ours}
        times, results = {way: float("inf") for way in ways}, {}
        for _ in range(given.rounds):
            for way, run in ways.items():
                start = time.process_time()
                results[way] = run(layer)
                times[way] = min(times[way], time.process_time() - start)
        assert "plain" not in results or torch.equal(results["plain"], results["ours"])
        results.clear()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "scores.pt"
            torch.save((scores, list(size)), file)
            words = [sys.executable, "-c", CHILD]
            memory = {
                way: int(subprocess.run([*words, way, str(file)], capture_output=True, text=True, check=True).stdout)
                for way in ways
            }
        tried = len(best._contenders(layer)) if count * size[0] * size[1] > best.FEW else count
        shown = {way: f"{1000 * times[way]:6.0f} ms" if way in times else "-" for way in WAYS}
        ratio = f"{times['plain'] / times['ours']:.2f}" if "plain" in times else "-"
        used = ", ".join(f"{memory[way] / 2**20:.0f} MiB" if way in memory else "-" for way in WAYS)
        extent = f"{size[1]}x{size[0]}"
        print(
            f"{name:34.34} {extent:>11} {count:4} {mixed(layer):6.1%} {tried:5} {shown['plain']:>9} {shown['ours']:>9}"
            f" {ratio:>6}  {used}",
            flush=True,
        )


if __name__ == "__main__":
    main()
