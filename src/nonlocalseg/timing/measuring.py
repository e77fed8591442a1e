"""Comparing callables in one process: alternated times, counted multiply-adds, measured peak memory, error."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nonlocalseg.models.cost import multiply_adds
from nonlocalseg.runtime import processor
from nonlocalseg.timing.tables import Row

_CLEAR, _STATUS, _MEMORY = Path("/proc/self/clear_refs"), Path("/proc/self/status"), Path("/proc/meminfo")
_MMAP_THRESHOLD = -3  # glibc's number for it
_SETTLED = 3  # runs until what libraries keep for themselves, some MB, no longer grows
_SHORTEST = 0.02  # seconds that one sample takes at least


@dataclass(frozen=True)
class Case:
    """One thing to measure: `run()` returns a tensor, or several in a tuple, list or dict.

    against: the name of an earlier case that its time and its results are compared with; None for none. gradients: run
    with gradients enabled. counted: multiply-adds to print where they cannot be counted, because compiled code runs.
    """

    name: str
    run: Callable[[], Any]
    against: str | None = None
    gradients: bool = False
    counted: bool = True


def compare(cases: Sequence[Case], device: torch.device, repeat: int = 5, overall: str | None = None) -> list[Row]:
    """A row per case: name, seconds, spread, cpu_seconds, ratio, multiply_adds, memory, extra_memory, error.

    seconds are the median of `repeat` rounds in each of which every case runs in turn, after two warm-up runs;
    `spread` is half the distance from the fastest round to the slowest, as a share of the median. ratio is the time
    of `against` divided by this one, both as printed, and `overall_ratio` that of the case `overall`. cpu_seconds
    are processor time, all threads together, which a busy machine disturbs less. memory is the most that the device's
    memory in use grew during a run, in bytes, in that of three runs in which it grew least; extra_memory the same
    without the results; None where the system does not tell. error is the largest difference to the results of
    `against`, relative to their largest element.
    Raises `ValueError` for a `repeat` below 1 and an unknown `against`.
    """
    if repeat < 1:
        raise ValueError(f"--repeat: {repeat} rounds; give 1 or more")
    names = [case.name for case in cases]
    missing = [case.against for case in cases if case.against not in (None, *names)]
    if missing:
        raise ValueError(f"nothing called {missing[0]!r} is measured here")
    rows: dict[str, Row] = {case.name: {"name": case.name} for case in cases}
    _verify(cases, rows)
    for case in cases:
        with torch.set_grad_enabled(case.gradients):
            found = min((peak_memory(case.run, device) for _ in range(_SETTLED)), key=lambda pair: pair[0] or 0)
            rows[case.name] |= dict(zip(("memory", "extra_memory"), found, strict=True))
    _time(cases, rows, device, repeat, overall)
    return [rows[name] for name in names]


def _verify(cases: Sequence[Case], rows: dict[str, Row]) -> None:
    """Multiply-adds and error, from one run of each; only the results that others need are kept meanwhile."""
    results: dict[str, list[Tensor]] = {}
    for index, case in enumerate(cases):
        with torch.set_grad_enabled(case.gradients):
            count, result = multiply_adds(case.run) if case.counted else (None, case.run())
        row = rows[case.name]
        row["multiply_adds"] = count
        row["error"] = None if case.against is None else relative_error(tensors_of(result), results[case.against])
        later = {other.against for other in cases[index + 1 :]}
        results = {name: kept for name, kept in results.items() if name in later}
        if case.name in later:
            results[case.name] = [tensor.detach() for tensor in tensors_of(result)]
        del result


def relative_error(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference over all pairs, each relative to the largest element of its reference."""
    worst = []
    for mine, reference in zip(ours, theirs, strict=True):
        difference = (mine.detach().to(reference.dtype) - reference).abs_().amax()
        worst.append(float(difference / reference.abs().amax().clamp_min(1e-30)))
    return math.nan if any(math.isnan(error) for error in worst) else max(worst)


def _time(cases: Sequence[Case], rows: dict[str, Row], device: torch.device, repeat: int, overall: str | None) -> None:
    inner = {}
    for case in cases:  # the last warm-up run tells how many runs make a sample
        with torch.set_grad_enabled(case.gradients):
            once, _ = elapsed(case.run, device)
        inner[case.name] = max(1, math.ceil(_SHORTEST / max(once, 1e-6)))
    samples: dict[str, list[tuple[float, float]]] = {case.name: [] for case in cases}
    for _ in range(repeat):
        for case in cases:
            with torch.set_grad_enabled(case.gradients):
                samples[case.name].append(elapsed(case.run, device, inner[case.name]))
    walls = {name: [wall for wall, _ in pairs] for name, pairs in samples.items()}
    for case in cases:
        row = rows[case.name]
        rounds = walls[case.name]
        row["seconds"] = statistics.median(rounds)
        row["spread"] = (max(rounds) - min(rounds)) / 2 / row["seconds"]
        row["cpu_seconds"] = statistics.median(cpu for _, cpu in samples[case.name])
    for case in cases:
        row = rows[case.name]
        row["ratio"] = None if case.against is None else rows[case.against]["seconds"] / row["seconds"]
        if overall is not None:
            row["overall_ratio"] = rows[overall]["seconds"] / row["seconds"]


def elapsed(run: Callable[[], Any], device: torch.device, times: int = 1) -> tuple[float, float]:
    """Wall-clock and processor seconds of one of `times` runs, the device's work included."""
    synchronise(device)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        run()
    synchronise(device)
    return (time.perf_counter() - start) / times, (time.process_time() - cpu) / times


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(run: Callable[[], Any], device: torch.device) -> tuple[int | None, int | None]:
    """The most bytes in use during `run()` beyond those before it; and the same without its results.

    On CUDA the allocator's figure, on the CPU the high-water mark of the process as Linux's kernel keeps it; elsewhere
    (None, None). Call `run` once before, so that what libraries allocate only once is there.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
    elif device.type == "cpu" and _CLEAR.exists():
        with _given_back():
            _CLEAR.write_text("5")  # the high-water mark starts again from here
            before = _status_bytes("VmRSS")
            result = run()
            peak = _status_bytes("VmHWM") - before
    else:
        return None, None
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_of(result)}
    return peak, max(0, peak - sum(storages.values()))


@contextmanager
def _given_back() -> Iterator[None]:
    """What is freed goes back to the system, so that the high-water mark tells what was in use together.

    glibc keeps freed tensors of up to 32 MiB, and between those in use it cannot use them again for others of the same
    size: a loop whose results live on showed twice what it needs. Without glibc nothing is done.
    """
    library = ctypes.CDLL(None)
    trim, tune = getattr(library, "malloc_trim", None), getattr(library, "mallopt", None)
    if trim is None or tune is None:
        yield
        return
    trim(0)  # what was freed earlier would hide as much of what is allocated now
    tune(_MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:
        tune(_MMAP_THRESHOLD, 32 << 20)  # where glibc's own rule ends once tensors of that size were freed


def free_memory(device: torch.device) -> int:
    """Bytes of the device's memory that are free, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if _MEMORY.exists():
        line = next(line for line in _MEMORY.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _status_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def tensors_of(result: Any) -> list[Tensor]:
    return list(_tensors(result))


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list, dict)):
        for item in result.values() if isinstance(result, dict) else result:
            yield from _tensors(item)


def surroundings(device: torch.device) -> dict[str, str]:
    """The device and the versions that a measurement belongs to."""
    from nonlocalseg import __version__

    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    else:
        name = f"{processor()}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
    return {
        "device": name,
        "nonlocalseg": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
