"""Where the work runs: device, precision, worker processes, and the ranks that torchrun or Lightning started.

The only file that reads RANK, WORLD_SIZE, LOCAL_RANK and their kin.
"""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from nonlocalseg.values import Precision

NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "not enough memory")
"""What torch says, in a RuntimeError, where the CPU's memory does not suffice."""
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
    """The number of devices that a training uses on a machine: all GPUs, or one CPU process, for "auto"."""
    if isinstance(devices, int) or devices.isdigit():
        return int(devices)
    return max(1, torch.cuda.device_count())


def process_grid(devices: int | str, nodes: int | None) -> tuple[int, int]:
    """How many processes a training has on each machine, and on how many machines: as torchrun or srun has started
    them, otherwise as asked for. Raises ValueError where they have started others than were asked for.
    """
    launched = _launched()
    if launched is None:
        return device_count(devices), nodes or 1
    starter, *grid = launched
    for option, asked, found in zip(("devices", "num-nodes"), (devices, nodes), grid, strict=True):
        if asked not in ("auto", None) and int(asked) != found:
            what = "processes on each machine" if option == "devices" else "machines"
            raise ValueError(f"--{option}: {asked}, but {starter} has started {found} {what}: leave --{option} out")
    return grid[0], grid[1]


def is_launched() -> bool:
    """Whether this process was started as one of several."""
    return _launched() is not None or "LOCAL_RANK" in os.environ


def _launched() -> tuple[str, int, int] | None:
    """Who has started the processes of this job, how many on each machine, and on how many."""
    here = os.environ
    if "LOCAL_WORLD_SIZE" in here and "WORLD_SIZE" in here:
        each = int(here["LOCAL_WORLD_SIZE"])
        return "torchrun", each, int(here["WORLD_SIZE"]) // each
    if "SLURM_NTASKS" in here and here.get("SLURM_JOB_NAME") not in ("bash", "interactive"):  # as Lightning tells them
        nodes = int(here.get("SLURM_NNODES", 1))
        return "SLURM", int(here["SLURM_NTASKS"]) // nodes, nodes
    return None


def in_precision(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Automatic mixed precision within a block; nothing changes for "32"."""
    half = HALF[precision]
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the CPU or of a GPU did not suffice."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    return said or isinstance(error, (MemoryError, torch.OutOfMemoryError))


def worker_count(workers: int | None = None) -> int:
    """Processes that read images: as many as given, by default up to four."""
    return min(4, os.cpu_count() or 1) if workers is None else workers


def rank() -> int:
    """Of this process among all that work together; 0 speaks and writes."""
    if connected():
        return dist.get_rank()
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def training_rank() -> int:
    """`rank`, but also before Lightning has connected the tasks that SLURM started (elsewhere those work each on its
    own) or the machines that were told their NODE_RANK: some number above 0 on the later ones."""
    if connected() or "RANK" in os.environ:
        return rank()
    if "LOCAL_RANK" not in os.environ and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"])
    return rank() + int(os.environ.get("NODE_RANK", 0))


def local_rank() -> int:
    """Of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if connected() else int(os.environ.get("WORLD_SIZE", 1))


def join_processes(device: torch.device) -> None:
    """Join the processes that torchrun started, so that `gather` reaches them; nothing to do for one alone."""
    if world_size() > 1 and dist.is_available() and not connected():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL gathers objects through the current device
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def connected() -> bool:
    """Whether this process has joined others; what they all have can be asked for then."""
    return dist.is_available() and dist.is_initialized()


# --- What all processes have: each must ask, in the same order; a process alone has its own ----------------------


class _Sum(torch.autograd.Function):
    """Each process uses the sum, so the gradients of all of them come back to what each has put in."""

    @staticmethod
    def forward(ctx: Any, found: Tensor) -> Tensor:
        return _added(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _added(gradients[0])


def _added(found: Tensor) -> Tensor:
    total = found.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def sum_over_processes(found: Tensor) -> Tensor:
    """The sum of what all processes have. The gradient of a loss of such sums is the whole batch's, once the processes
    have averaged theirs, as DistributedDataParallel does."""
    return cast(Tensor, _Sum.apply(found)) if connected() and world_size() > 1 else found


def mean_over_processes(found: Tensor) -> Tensor:
    """The mean of what all processes have."""
    return sum_over_processes(found) / world_size() if connected() else found


def stack_over_processes(found: Tensor) -> Tensor:
    """What all processes have, all of one shape, by rank: `[...] -> [P, ...]`; gradients as in `sum_over_processes`."""
    if not connected():
        return found[None]
    own, nothing = rank(), torch.zeros_like(found)
    return sum_over_processes(torch.stack([found if number == own else nothing for number in range(world_size())]))


def gather(found: Any) -> list[Any]:
    """What every process found, by rank; of a process alone, its own."""
    if not connected() or world_size() == 1:
        return [found]
    shares: list[Any] = [None] * world_size()
    dist.all_gather_object(shares, found)
    return shares


def processor() -> str:
    """The CPU by its name, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """What the CPU can do beyond its basic instructions, in the words of `lscpu`; empty where the system does not tell
    (it does on Linux, of x86 and Arm)."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, words = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return tuple(words.split())
    return ()


def cpu_has_vnni() -> bool:
    """Whether this CPU sums products of 8 bits in 32 (VNNI, and its like on Arm), as far as the system tells."""
    return bool(set(cpu_flags()) & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
