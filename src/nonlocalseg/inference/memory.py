"""How much memory a whole image would take, told before it is taken; and tiles or windows where that is more than there
is."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nonlocalseg.inference.borrowed import Coarse, tileable
from nonlocalseg.inference.resizing import Extent, sizes_of
from nonlocalseg.models.receptive import on_meta, receptive_field
from nonlocalseg.view import View

PROBE = 256  # pixels to a side of the image on which the network's memory is counted
IMAGE = 2 * 3 * 4  # bytes of a pixel of the image itself, as floats and normalised
LARGE = 2048 * 1024  # pixels up to which images are not looked at
USABLE = 0.8  # of the free memory; the rest is for what is not counted
SIDE = 1024  # pixels of the windows
_INFO, _STATUS = Path("/proc/meminfo"), Path("/proc/self/status")
_GROUP = Path("/sys/fs/cgroup")


def bounded(view: View, model: object, size: Extent, device: torch.device) -> tuple[View, str]:
    """The view, or one in tiles, where a whole image of that size would take more memory than is free; windows of 1024
    pixels for a model that cannot be seen in tiles. And a line that says so, empty where nothing changed."""
    largest = max((height * width for height, width in sizes_of(size, view)), default=0)
    if view.mode != "whole" or largest <= LARGE or not (isinstance(model, nn.Module) and isinstance(model, Coarse)):
        return view, ""
    free, per_pixel = free_memory(device), bytes_per_pixel(model)
    if free is None or per_pixel is None or largest * per_pixel <= USABLE * free:
        return view, ""
    needed, there = (f"{amount / 2**30:.1f} GiB" for amount in (largest * per_pixel, free))
    short = f"{size[1]} x {size[0]} pixels at once would take about {needed} of memory, and {there} are free: seen in"
    try:
        receptive_field(tileable(model))
        return replace(view, mode="stream"), f"{short} tiles, with the same result (--mode stream)"
    except ValueError as error:
        windows = replace(view, mode="slide", crop=(SIDE, SIDE), score_resize="bilinear")
        return windows, (
            f"{short} windows of {SIDE}; choose with --mode slide --crop N, or make images smaller with --short-side N "
            f"(tiles would not do: {str(error).rpartition(': ')[2]})"
        )


def bytes_per_pixel(model: nn.Module) -> float | None:
    """The most that the maps of a network take at once, by pixel of the image; None where it cannot be told.

    Counted from shapes alone, on the meta device, as long as each map is alive; workspaces of operations are not.
    """
    counter = _Counter()
    try:
        counted = on_meta(model)
        for part in counted.modules():  # all: timm's norms with an activation hold parts, yet work themselves
            part.register_forward_hook(counter.look)
        with torch.no_grad():
            assert isinstance(counted, Coarse)
            counted.coarse(torch.empty(1, 3, PROBE, PROBE, device="meta"))
    except (RuntimeError, NotImplementedError, AttributeError):  # what depends on values has no shape alone
        return None
    return counter.most / PROBE**2 + IMAGE


class _Counter:
    """Bytes of the results of a network's parts that are alive, and the most there were."""

    def __init__(self) -> None:
        self.alive = self.most = 0
        self._seen: set[int] = set()

    def look(self, _part: nn.Module, given: tuple[object, ...], result: object) -> None:
        if not isinstance(result, Tensor) or any(result is one for one in given) or id(result) in self._seen:
            return
        size, key = result.numel() * result.element_size(), id(result)
        self._seen.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(result, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on the device, as far as the system tells: the machine, its container, the process's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not _INFO.is_file():
        return None
    free = [_kilobytes(_INFO)["MemAvailable"]]
    limit, used = (_number(_GROUP / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(limit - used)
    address_space = _address_space()
    if address_space is not None:
        free.append(address_space - _kilobytes(_STATUS)["VmSize"])
    return max(0, min(free))


def _address_space() -> int | None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _kilobytes(path: Path) -> Mapping[str, int]:
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) > 1 and words[1].isdigit()}


def _number(path: Path) -> int | None:
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None
