"""Memory and time of whole images seen in tiles, beside the same images seen whole: ANN on drawn mosaics.

    python -m benchmarks.streaming                                    # 4096 x 4096, MobileNetV2 and ResNet-50
    python -m benchmarks.streaming --size 20000 --backbone mobilenetv2_100 --mode stream --tile 1024

Each case runs in a process of its own, from a mosaic of scenes in a .npy file, of which tiles are read in windows, into
a .npy file of classes. Memory is the most that the process ever held, with the library itself, the weights, the files'
mapped pages and, seen whole, the image. Weights are drawn: they cost what trained ones do. As on the command line,
torch asks for large pages, unless THP_MEM_ALLOC_ENABLE=0 says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import nonlocalseg as nls
from nonlocalseg.cli import LARGE_PAGES
from nonlocalseg.data.synthetic import draw_scene
from nonlocalseg.inference import features
from nonlocalseg.inference.large import predict_into

SCENE = (250, 500)


def mosaic(path: Path, side: int) -> None:
    """A .npy file uint8 [side, side, 3] of drawn scenes, written row by row of scenes."""
    high, wide = SCENE
    scenes = [draw_scene(np.random.default_rng(seed), high, wide)[0] for seed in range(12)]
    np.lib.format.open_memmap(path, "w+", np.uint8, (side, side, 3)).flush()
    order = np.random.default_rng(0)
    for top in range(0, side, high):
        row = np.concatenate([scenes[order.integers(len(scenes))] for _ in range(-(-side // wide))], axis=1)
        opened = np.load(path, mmap_mode="r+")
        opened[top : top + high] = row[: side - top, :side]
        opened.flush()


def measured(arguments: argparse.Namespace) -> dict[str, object]:
    """One case, in this process."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    width = {}
    if arguments.channels is not None:
        narrow = arguments.channels // 2
        width = {"channels": arguments.channels, "key_channels": narrow, "value_channels": narrow}
    model = nls.create_model("ann", arguments.backbone, num_classes=19, auxiliary=False, **width).eval()
    for part in model.head.parameters():  # W_o starts at zero
        if not part.any():
            torch.nn.init.normal_(part, std=0.1)
    model = nls.fold(model)
    if not arguments.keep:
        features.SHARE = 0.0
    start, words = time.monotonic(), ""
    if arguments.mode == "whole":
        image = torch.from_numpy(np.load(arguments.image)).permute(2, 0, 1)[None]
        from nonlocalseg.inference.engine import classify

        np.save(arguments.answer, classify(model, image, average="logits")[0].byte().numpy())
    else:
        crop = {} if arguments.tile is None else {"crop": arguments.tile}
        words = predict_into(model, arguments.image, arguments.answer, **crop)
    seconds = time.monotonic() - start
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(seconds, 1), "GiB": round(most, 2), "how": words or "whole"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", nargs="+", default=["mobilenetv2_100", "resnet50"])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--mode", nargs="+", default=["whole", "stream"])
    parser.add_argument("--tile", type=int, default=None)
    parser.add_argument(
        "--channels", type=int, default=None, help="of ANN's head, keys and values half as many; by default 512"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-keep", dest="keep", action="store_false", help="compute the backbone anew in every pass")
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.image is not None:
        arguments.backbone, arguments.mode = arguments.backbone[0], arguments.mode[0]
        print(json.dumps(measured(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "mosaic.npy"
        mosaic(image, arguments.size)
        for backbone in arguments.backbone:
            answers = {}
            for mode in arguments.mode:
                answer = Path(folder) / f"{mode}.npy"
                given = [word for word in sys.argv[1:] if word == "--no-keep"]
                for name in ("size", "tile", "channels", "threads"):
                    value = getattr(arguments, name)
                    given += [] if value is None else [f"--{name}", str(value)]
                words = [sys.executable, "-m", "benchmarks.streaming", "--backbone", backbone, "--mode", mode, *given]
                words += ["--image", str(image), "--answer", str(answer)]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env={LARGE_PAGES: "1", **os.environ})
                if done.returncode:
                    print(f"{backbone} {arguments.size} {mode}: ended with {done.returncode}", flush=True)
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                answers[mode] = np.load(answer, mmap_mode="r")
                print(
                    f"{backbone} {arguments.size} {mode}: {found['seconds']} s, {found['GiB']} GiB; {found['how']}",
                    flush=True,
                )
            if len(answers) > 1:
                first, second = answers.values()
                print(f"{backbone} {arguments.size}: {np.mean(first == second):.6%} of the classes equal", flush=True)


if __name__ == "__main__":
    main()
