"""The peak of memory while a video is labelled, for clips of growing length: it does not grow with them.

python -m benchmarks.video_memory [--frames 10 100 1000] [--size 360 640] [--smooth 0.5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

ONE = """
import json, resource, sys, torch
import nonlocalseg as nls
torch.set_num_threads(1)
torch.manual_seed(0)
model = nls.create_model("fcn", backbone="test_resnet.r160_in1k", num_classes=19, channels=8, auxiliary_channels=8).eval()
found = nls.label_video(model, sys.argv[1], sys.argv[2], smooth=float(sys.argv[3]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"frames": found.frames, "peak": peak}))
"""


def draw(path: Path, frames: int, height: int, width: int) -> None:
    """A clip of moving stripes, with a track of sound."""
    import av

    rows, columns = np.mgrid[:height, :width]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        voice = out.add_stream("aac", rate=16_000, layout="mono")
        for number in range(frames):
            grey = ((rows + columns + 5 * number) % 256).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([grey] * 3, 2), "rgb24")))
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), "fltp", "mono")
            heard.sample_rate, heard.pts, heard.time_base = 16_000, 640 * number, Fraction(1, 16_000)
            out.mux(voice.encode(heard))
        out.mux(stream.encode())
        out.mux(voice.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--size", type=int, nargs=2, default=[360, 640])
    parser.add_argument("--smooth", type=float, default=0.5)
    given = parser.parse_args()
    print(f"{'frames':>8}  {'peak memory':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for frames in given.frames:
            source, out = Path(folder) / "a.mp4", Path(folder) / "b.mp4"
            draw(source, frames, *given.size)
            words = [sys.executable, "-c", ONE, str(source), str(out), str(given.smooth)]
            answer = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
            assert answer["frames"] == frames
            print(f"{frames:8}  {answer['peak'] / 2**20:8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
