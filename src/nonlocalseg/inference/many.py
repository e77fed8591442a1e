"""Many inputs on the devices of a cluster, by Ray Data: an actor with one model on each, and one writer here.

Actors read inputs and send back what `Labeller` writes; only this process puts files in place and accounts for them. So
an actor that dies leaves nothing behind, what Ray repeats is not counted twice, and machines need no common folder.
Ray's streaming executor holds back the actors when results wait here.
"""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from nonlocalseg.extras import needing
from nonlocalseg.files import writing
from nonlocalseg.inference.batch import FAILED, Labelled, Labeller
from nonlocalseg.inference.sources import Listed

if TYPE_CHECKING:
    from ray import ObjectRef

BLOCK = 8
"""Inputs that are dealt, and repeated after a crash, together."""
STARTS = 3
"""How often an input is begun whose actor dies over it."""
AHEAD = 2
"""Blocks that wait at an actor while it works."""
DIED = "the process that labelled it ended every time: it crashed, or was killed for want of memory"
LOST = "the machine that labelled it was lost, twice; the same call again tries once more"

Quick = Callable[[nn.Module, torch.device], nn.Module]


@dataclass(frozen=True)
class Devices:
    """How many actors there are, and what each of them takes of the cluster."""

    actors: int
    gpus: int
    cpus: float


def label_many(
    labeller: Labeller,
    items: Sequence[Listed],
    folder: Path,
    workers: int | None = None,
    quick: Quick | None = None,
    gpus: bool = True,
) -> Iterator[Labelled]:
    """Label `items` on the cluster in RAY_ADDRESS, by default one of this machine alone, and yield each exactly once, in
    any order, when its files are below `folder`.

    workers: models at work; by default one on every GPU, or, without `gpus`, or where there are none, one on every
    machine. quick: makes the model faster on its device. An input whose actor dies again and again has failed.
    Raises ValueError where Ray is not installed, where the cluster has fewer devices, and where no actor can start.
    """
    left = {item.input: item for item in items}
    if not left:
        return
    with _cluster():
        devices = share_out(workers, gpus)
        shared = _share(labeller)
        for block in (_block(len(left), devices.actors), 1):  # what Ray gave up is tried once more, each by itself
            for result, files in _labelled([*left.values()], shared, devices, quick, block):
                if left.pop(result.item.input, None) is None:
                    continue  # by an actor that died before Ray knew that it had ended
                for name, content in files.items():
                    with writing(folder / name) as temporary:
                        temporary.write_bytes(content)
                yield result
            if len(left) == len(items):
                raise ValueError(
                    "--engine ray: no worker could start; this version of nonlocalseg must be installed on every "
                    "machine of the cluster, and one model must fit into the memory of each"
                )
            if not left:
                return
    for item in left.values():
        yield Labelled(item, FAILED, f"{item.place}: {LOST}")


class Attempts:
    """An actor that counts how often each input was begun and not ended: Ray would repeat for ever what kills actors."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str, ended: str | None) -> int:
        """How often `name` is begun now; `ended` is what the same actor has finished before."""
        if ended is not None:
            del self._begun[ended]
        self._begun[name] += 1
        return self._begun[name]


class Actor:
    """One model on one device; called by Ray with rows of `item` it answers with rows of `found`, both pickled."""

    def __init__(self, shared: list[ObjectRef], attempts: Any, gpu: bool, quick: Quick | None) -> None:
        import ray

        atexit.register(
            os._exit, 0
        )  # destructors of libraries were seen to wait for each other, and the process stayed
        self._attempts = attempts
        self._ended: str | None = None
        labeller: Labeller = pickle.loads(ray.get(shared[0]))
        device = torch.device("cuda" if gpu else "cpu")
        network: Any = labeller.network
        network = network.to(device)
        self._labeller = replace(labeller, device=device, network=quick(network, device) if quick else network)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        import ray

        item: Listed = pickle.loads(row["item"])
        begun: Any = ray.get(self._attempts.begin.remote(item.input, self._ended))
        if begun > STARTS:
            self._ended = None
            return {"found": pickle.dumps((Labelled(item, FAILED, f"{item.place}: {DIED}"), {}))}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            try:
                found = self._labeller.label(item, folder)
            except OSError as error:  # no room for temporary files on this machine
                found = Labelled(item, FAILED, f"{item.place}: {self._labeller.explain(error)}")
            written = [path for path in folder.rglob("*") if path.is_file()] if not found.failed else []
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in written}
        self._ended = item.input
        return {"found": pickle.dumps((found, files))}


def _labelled(
    items: Sequence[Listed],
    shared: list[ObjectRef],
    devices: Devices,
    quick: Quick | None,
    block: int,
) -> Iterator[tuple[Labelled, dict[str, bytes]]]:
    """What the actors found, in any order; of what Ray has given up, nothing."""
    import ray.data

    attempts = ray.remote(num_cpus=0, max_restarts=-1)(Attempts).remote()
    rows = [{"item": pickle.dumps(item)} for item in items]
    dealt = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block))
    found = dealt.map(
        cast("Callable[..., dict[str, Any]]", Actor),
        fn_constructor_args=(shared, attempts, devices.gpus > 0, quick),
        compute=ray.data.ActorPoolStrategy(size=devices.actors, max_tasks_in_flight_per_actor=AHEAD),
        num_gpus=devices.gpus or None,
        num_cpus=devices.cpus,
    )
    for row in found.iter_rows():
        yield pickle.loads(row["found"])


@contextmanager
def _cluster() -> Iterator[None]:
    """The cluster that this process is connected to, or the one in RAY_ADDRESS, or one of this machine for the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with needing("ray", "--engine ray"):
        import ray
        import ray.data

    connected = ray.is_initialized()
    with _own_sigterm() as take_back:
        if not connected:
            _connect()
            take_back()
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.print_on_execution_start = False, False
        context.max_errored_blocks = -1
        try:
            yield
        finally:
            if not connected:
                ray.shutdown()


def _connect() -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"RAY_ADDRESS={address}: no cluster answers there ({error}); see `ray start`") from None
        return
    try:
        ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    except Exception as error:  # of many kinds, where a busy machine is slower than Ray waits
        ray.shutdown()
        reason = " ".join(str(error).split())
        raise ConnectionError(f"--engine ray: Ray did not start here ({reason}); try again") from None


@contextmanager
def _own_sigterm() -> Iterator[Callable[[], object]]:
    """Ray takes SIGTERM when it starts, leaves with 15, and never gives it back. What this yields takes it back: for who
    had it, or to leave with 143 as a killed process does; behind the block it is as before."""
    if threading.current_thread() is not threading.main_thread():  # where Ray leaves it alone
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        yield lambda: signal.signal(signal.SIGTERM, leave if before == signal.SIG_DFL else before)
    finally:
        signal.signal(signal.SIGTERM, before)


def _share(labeller: Labeller) -> list[ObjectRef]:
    """The labeller with its model in the cluster's memory; in a list, so that Ray hands on the reference."""
    import ray
    from ray import cloudpickle

    try:
        return [ray.put(cloudpickle.dumps(labeller))]
    except (TypeError, pickle.PicklingError, RuntimeError) as error:
        raise ValueError(f"--engine ray: this model cannot be sent to other processes ({error})") from None


def share_out(workers: int | None, wanted: bool) -> Devices:
    """What the actors take of the cluster, so that all of them can be placed; GPUs where they are `wanted`."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if wanted else 0
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    actors = workers or gpus or len(cores)
    most = gpus or sum(cores)
    if actors > most or not actors:
        what = "GPUs" if gpus else "CPU cores"
        raise ValueError(f"--workers: {actors} models for the {most} {what} of the cluster; give {most} or fewer")
    if gpus:
        return Devices(actors, 1, 1)
    return Devices(actors, 0, max(1, min(cores) // -(-actors // len(cores))))


def _block(items: int, actors: int) -> int:
    """Of so many inputs, how many are dealt together: at least four times to each actor, where there are as many."""
    return max(1, min(BLOCK, items // (4 * actors)))
