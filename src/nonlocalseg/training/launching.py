"""The processes of a training on one machine: the first starts the others, and where one ends, all do, in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from nonlocalseg.runtime import is_launched, local_rank

FIRST = "NONLOCALSEG_FIRST_PROCESS"
"""In the environment of a process that was started here: the number of the one that started it."""
LOOK_EVERY, PATIENCE = 0.2, 5.0
"""Seconds between two looks at the others, and those that a failure waits for news of them."""
CURE = "go on with --resume RUN"


class Crew:
    """The other processes of this machine; none where torchrun or SLURM has started them, who watch them as well.

    Lightning's own launcher kills the first process, before it has said why, where one that it started ends.
    """

    def __init__(self, devices: int, machines: int) -> None:
        """Raises ValueError where several machines are asked for and it is not said where the first one is."""
        self.others: list[subprocess.Popen[bytes]] = []
        self.devices, self.machines = devices, machines
        self.leads = devices * machines > 1 and not is_launched()
        self._begun, self._over = False, threading.Event()
        self._before: dict[str, str | None] = {}
        if self.leads and machines > 1 and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
            raise ValueError(
                "--num-nodes: several machines need torchrun or srun on each, or MASTER_ADDR, MASTER_PORT and NODE_RANK"
            )

    def start(self) -> None:
        """Begin the others, once, each with the command that began this process, and watch them."""
        if self._begun:
            return
        self._begun = True
        if FIRST in os.environ:
            threading.Thread(target=self._watch_first, args=(int(os.environ[FIRST]),), daemon=True).start()
        if not self.leads:
            return
        told = {"WORLD_SIZE": str(self.devices * self.machines), "LOCAL_RANK": "0"}  # Lightning starts no more then
        told["MASTER_ADDR"] = os.environ.get("MASTER_ADDR", "127.0.0.1")
        told["MASTER_PORT"] = os.environ.get("MASTER_PORT", str(_free_port()))
        self._before = {name: os.environ.get(name) for name in told}
        os.environ.update(told)
        for number in range(1, self.devices):
            environment = {**os.environ, "LOCAL_RANK": str(number), FIRST: str(os.getpid())}
            self.others.append(subprocess.Popen(_command(), env=environment))
        threading.Thread(target=self._watch_others, daemon=True).start()

    @contextmanager
    def ended_together(self) -> Iterator[None]:
        """After a failure inside none is left. Where another process is the reason, it is that which is said."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, RuntimeError) and (self.others or FIRST in os.environ):
                time.sleep(PATIENCE)  # the watch ends this process meanwhile where another one has broken off
            self._over.set()
            self._kill(after=PATIENCE if isinstance(error, SystemExit) else 0)  # after a signal all leave by themselves
            raise
        finally:
            self._over.set()
            for name, value in self._before.items():  # what follows in this process is a matter of it alone
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})

    def _kill(self, after: float = 0) -> None:
        deadline = time.monotonic() + after
        while time.monotonic() < deadline and any(other.poll() is None for other in self.others):
            time.sleep(LOOK_EVERY)
        for other in self.others:
            other.kill()

    def _watch_others(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            for number, other in enumerate(self.others, 1):
                if code := other.poll():
                    self._kill()
                    killed = f"process {number} of this training was killed (signal {-code}); {CURE}"
                    _end(killed if code < 0 else None, code)  # one that ended by itself has said why

    def _watch_first(self, first: int) -> None:
        while not self._over.wait(LOOK_EVERY):
            if os.getppid() != first:
                _end(f"the first process of this training has ended; {CURE}" if local_rank() == 1 else None, 1)


def _end(message: str | None, code: int) -> None:
    """End this process wherever it stands, which may be in waiting for one that is gone."""
    if message is not None:
        print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(code if code > 0 else 1)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _command() -> list[str]:
    """What began this process."""
    main: ModuleType = sys.modules["__main__"]
    if main.__spec__ is None:
        return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    return [sys.executable, "-m", main.__spec__.name, *sys.argv[1:]]
