"""Fifty clients at once against a real server on loopback: answered, refused, the slowest answer, the server's memory.

python benchmarks/page_load.py MODEL [--clients 50] [--requests 4] [--size 720 960] [--queue 8] [--patient]

Every client sends `--requests` photographs of its own, one after the other, to POST /predict. Without --patient it takes
"busy" for an answer; with it, it waits as long as Retry-After says and asks again, until it is answered. In between,
other clients send what a server must refuse. Prints one line of figures; exits with 1 where an answer was anything but
the mask, "busy" or the refusal that is due, or the server died.
"""

from __future__ import annotations

import argparse
import io
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

WRONG = {b"not an image": 415, b"": 422, b"x" * 25_000_000: 413}


def photograph(number: int, height: int, width: int) -> bytes:
    generator = np.random.default_rng(number)
    small = generator.integers(0, 256, (height // 24 + 1, width // 24 + 1, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def ask(address: str, content: bytes) -> tuple[int, float, float]:
    """Status, seconds, and the seconds of Retry-After."""
    begun = time.monotonic()
    request = urllib.request.Request(f"{address}/predict", content, {"Content-Type": "image/jpeg"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            good = answer.read().startswith(b"\x89PNG")
            return (200 if good else 0), time.monotonic() - begun, 0
    except urllib.error.HTTPError as error:
        wait = float(error.headers.get("Retry-After", 0))
        error.read()
        return error.code, time.monotonic() - begun, wait
    except OSError:
        return 0, time.monotonic() - begun, 0


def memory(process: int, field: str) -> float:
    """Megabytes of VmRSS or VmHWM (the peak)."""
    text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+)", text)[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(720, 960))
    parser.add_argument("--queue", type=int, default=8)
    parser.add_argument("--patient", action="store_true")
    given = parser.parse_args()
    command = [sys.executable, "-m", "nonlocalseg", "serve", given.model, "--port", "0", "--queue", str(given.queue)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[0]
    photographs = [photograph(number, *given.size) for number in range(given.clients)]
    ask(address, photographs[0])
    one = memory(server.pid, "VmHWM")
    counts: Counter[str] = Counter()
    slowest: dict[str, float] = {}
    lock = threading.Lock()

    def note(kind: str, seconds: float) -> None:
        with lock:
            counts[kind] += 1
            slowest[kind] = max(slowest.get(kind, 0), seconds)

    def client(number: int) -> None:
        for _ in range(given.requests):
            begun = time.monotonic()
            while True:
                status, seconds, wait = ask(address, photographs[number])
                note({200: "answered", 503: "refused as busy"}.get(status, f"status {status}"), seconds)
                if status != 503 or not given.patient:
                    break
                time.sleep(wait)
            if status == 200:
                note("answered, waits included", time.monotonic() - begun)

    def wrong() -> None:
        for content, expected in WRONG.items():
            status, seconds, _ = ask(address, content)
            fine = status in (expected, 503)
            note("refused as wrong" if fine else f"status {status} in place of {expected}", seconds)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(given.clients)]
    threads += [threading.Thread(target=wrong) for _ in range(5)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    status, _, _ = ask(address, photographs[0])
    peak, alive = memory(server.pid, "VmHWM"), server.poll() is None and status == 200
    server.send_signal(signal.SIGTERM)
    code = server.wait(60)
    told = [f"{kind} {counts[kind]} (slowest {slowest[kind]:.1f} s)" for kind in sorted(counts)]
    photographs_of = f"{given.size[1]} x {given.size[0]} pixels"
    print(f"{given.clients} clients, {photographs_of}, queue {given.queue}, {seconds:.0f} s: {'; '.join(told)}")
    print(f"peak memory of the server: {one:.0f} MB after one request, {peak:.0f} MB after all")
    print(f"it answers: {alive}; it ended with {code}")
    bad = [kind for kind in counts if kind.startswith("status")]
    return int(bool(bad) or not alive or code != 0)


if __name__ == "__main__":
    sys.exit(main())
