"""`serve()`: page and endpoint on one address, until Ctrl-C or TERM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocalseg.explanation.subject import short_names
from nonlocalseg.extras import needing
from nonlocalseg.inference.borrowed import evaluated, settled_view
from nonlocalseg.labels import default_palette
from nonlocalseg.runtime import pick_device
from nonlocalseg.serving.answer import Served
from nonlocalseg.serving.limits import Limits
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = "127.0.0.1"
FAREWELL = 3
"""Seconds that open connections have to end when the server stops."""
CONNECTIONS = 400
"""Above it the server refuses whatever is asked."""


def serve(
    models: Sequence[str | Path],
    *,
    host: str = LOOPBACK,
    port: int = 7860,
    limits: Limits | None = None,
    view: View | None = None,
    setting: str | None = None,
    device: str | None = None,
    ready: Callable[[str], None] = print,
    **changes: object,
) -> None:
    """Serve one model, or two beside each other, as a page at / and as JSON at /predict, until Ctrl-C or TERM.

    Nothing that is sent here leaves the machine or is written to its disk. Raises ValueError for options that make no
    sense and a port that is taken, FileNotFoundError for a model that is missing.

    Args:
        models: one or two of what `from_pretrained` loads.
        host: the address to listen on; by default this machine alone.
        port: 0 takes a free one.
        limits: what is taken, and how much at once.
        view, setting, changes: how the models see images; by default each as it says itself.
        device: cpu, cuda, cuda:1 ...; by default a GPU where there is one.
        ready: gets one line with the address, once the server answers.
    """
    if not 1 <= len(models) <= 2:
        raise ValueError(f"model: {len(models)} were given; give one, or two to compare")
    if len({str(path) for path in models}) < len(models):
        raise ValueError(f"model: {models[0]} is given twice; leave one out")
    listening = listen(host, port)
    with needing("serve", "nonlocalseg serve"), temporary_folder(), listening:
        from nonlocalseg.serving.desk import Desk
        from nonlocalseg.serving.endpoint import create_app
        from nonlocalseg.serving.page import add_page

        served = [
            opened(name, str(path), device, view, setting, changes)
            for name, path in short_names([str(path) for path in models]).items()
        ]
        desk = Desk(served, limits or Limits())
        app = add_page(create_app(desk), desk, f"nonlocalseg: {', '.join(one.name for one in served)}")
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}"
        asyncio.run(_run(app, listening, lambda: ready(f"{address}  (Ctrl-C stops)"), desk.line.close))


def opened(
    name: str, path: str, device: str | None, view: View | None, setting: str | None, changes: dict[str, object]
) -> Served:
    """A model, ready to answer. Raises ValueError for one that does not say its classes."""
    where, model = pick_device(device), from_pretrained(path)
    model = evaluated(model.to(where))
    classes = tuple(getattr(model, "classes", None) or ())
    if not classes:
        raise ValueError(f"{path}: the model does not say its classes; save it with create_model(classes=[...])")
    palette = tuple(getattr(model, "palette", None) or default_palette(len(classes)))
    return Served(name, model, settled_view(model, view, setting, changes), where, classes, palette)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound. Raises ValueError, with the cure, for a port or an address that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)
    except (OSError, OverflowError) as error:
        bound.close()
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) == 99:  # not an address of this machine
            raise ValueError(f"host: {host} is no address of this machine; leave it out, or give 0.0.0.0") from None
        raise ValueError(f"port: {port} is taken or may not be used; choose another, or 0 for a free one") from None
    return bound


@contextlib.contextmanager
def temporary_folder() -> Generator[None, None, None]:
    """A folder of this server's own for all temporary files of it and its libraries, which goes with it."""
    kept = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "TMPDIR")}
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="nonlocalseg-serve-", ignore_cleanup_errors=True) as folder:
        os.environ.update(dict.fromkeys(kept, folder))
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
            for name, value in kept.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})


async def _run(app: FastAPI, listening: socket.socket, ready: Callable[[], None], stop: Callable[[], None]) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        """Says when it answers, and stops in order."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            """uvicorn's own raises the signal once more when all is done, which would end in a killed process."""
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._leave)
            yield

        def _leave(self) -> None:
            stop()
            self.should_exit = True

    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=FAREWELL,
        timeout_keep_alive=20,
        proxy_headers=True,
    )
    await Server(config).serve(sockets=[listening])
