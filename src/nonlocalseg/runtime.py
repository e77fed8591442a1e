"""Where the work runs: device, precision, worker processes, and the ranks that torchrun or Lightning started.

The only file that reads RANK, WORLD_SIZE, LOCAL_RANK and their kin.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nonlocalseg.values import Precision

HALF: dict[str, torch.dtype | None] = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device called `name`, by default a GPU where there is one; under torchrun this process's own GPU.

    Raises ValueError for a device that is not here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device: {name!r} is unknown; give cpu, cuda, cuda:1 or mps") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and device.index is None and world_size() > 1:
        device = torch.device("cuda", local_rank())
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"--device: there is no {name} here ({count} GPUs); leave it out, or give cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device: there is no mps here; leave it out, or give cpu")
    return device


def device_count(devices: int | str = "auto") -> int:
    """The number of devices that a training uses: all GPUs, or one CPU process, for "auto"."""
    if isinstance(devices, int) or devices.isdigit():
        return int(devices)
    return max(1, torch.cuda.device_count())


def in_precision(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Automatic mixed precision within a block; nothing changes for "32"."""
    half = HALF[precision]
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


def worker_count(workers: int | None = None) -> int:
    """Processes that read images: as many as given, by default up to four."""
    return min(4, os.cpu_count() or 1) if workers is None else workers


def rank() -> int:
    """Of this process among all that work together; 0 speaks and writes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def training_rank() -> int:
    """`rank`, also before Lightning has connected the tasks that SLURM started; elsewhere those work each on its own."""
    alone = "RANK" not in os.environ and "LOCAL_RANK" not in os.environ and not dist.is_initialized()
    return int(os.environ.get("SLURM_PROCID", 0)) if alone else rank()


def local_rank() -> int:
    """Of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """How many processes work together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", 1))


def join_processes(device: torch.device) -> None:
    """Join the processes that torchrun started, so that `gather` reaches them; nothing to do for one alone."""
    if world_size() > 1 and dist.is_available() and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL gathers objects through the current device
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def mean_over_processes(found: Tensor) -> Tensor:
    """The mean of what all processes have; of a process alone, its own."""
    if world_size() == 1 or not (dist.is_available() and dist.is_initialized()):
        return found
    total = found.clone()
    dist.all_reduce(total)
    return total / world_size()


def gather(found: Any) -> list[Any]:
    """What every process found, by rank; of a process alone, its own."""
    if world_size() == 1 or not (dist.is_available() and dist.is_initialized()):
        return [found]
    shares: list[Any] = [None] * world_size()
    dist.all_gather_object(shares, found)
    return shares
