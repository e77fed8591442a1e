"""Hostile input: whole files of every kind, changed at random by a seed, and read as the verbs read them.

    python -m benchmarks.mutations --cases 10000 --processes 2
    python -m benchmarks.mutations --kinds pictures --from 1234 --cases 1 --keep /tmp/failed

Every case runs in a process that is watched (`benchmarks/hostile/cage.py` says what for). The case of a kind and a
number is always the same. Exit code 1 where one fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.hostile import labels, models, pictures, requests
from benchmarks.hostile.cage import Kind, Tally, run
from nonlocalseg.choices import pick

KINDS: dict[str, Kind] = {kind.name: kind for kind in (*pictures.KINDS, *labels.KINDS, *models.KINDS, *requests.KINDS)}
AT_ONCE = 200
"""Cases in one process."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="of all kinds together")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the files of cases that fail")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun, tallies = time.monotonic(), []
    kinds = [KINDS[pick("kind", name, KINDS)] for name in options.kinds]
    print(f"{'kind':24}{'cases':>8}{'refused':>9}{'failed':>8}{'slowest s':>11}{'most MB':>9}")
    # Threads, each of which waits for one child: what is counted here takes no time.
    with ThreadPoolExecutor(options.processes) as pool:
        for place, kind in enumerate(kinds):
            end = options.first + options.cases // len(kinds) + (place < options.cases % len(kinds))
            parts = [range(first, min(first + AT_ONCE, end)) for first in range(options.first, end, AT_ONCE)]
            tally = Tally(kind.name)
            for found in pool.map(lambda part, kind=kind: run(kind, part, options.keep), parts):
                tally.outcomes += found.outcomes
            tallies.append(tally)
            counts = f"{len(tally.outcomes):8}{tally.refused:9}{len(tally.failures):8}"
            print(f"{tally.kind:24}{counts}{tally.slowest:11.2f}{tally.largest:9.0f}", flush=True)
            tell(tally)
    every, failed = (sum(map(len, found)) for found in zip(*((t.outcomes, t.failures) for t in tallies), strict=True))
    refused, seconds = sum(tally.refused for tally in tallies), time.monotonic() - begun
    print(f"{every} cases in {seconds:.0f} s: {refused} refused in a line, {failed} failed")
    return int(failed > 0)


def tell(tally: Tally) -> None:
    """One case of every kind of failure, in full."""
    shown: set[str] = set()
    for one in tally.failures:
        if one.failed[:60] not in shown:
            shown.add(one.failed[:60])
            print(f"\n{tally.kind}, case {one.number}: {one.failed}\n{one.trace}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
