"""What the routes share: models, limits, line and shelf; how a photograph is received, and its work put in line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np
from fastapi import Request
from starlette.exceptions import HTTPException as StarletteError
from starlette.requests import ClientDisconnect

from nonlocalseg.choices import pick
from nonlocalseg.images import TooLarge, check_image, read_image
from nonlocalseg.serving.answer import Served
from nonlocalseg.serving.limits import Limits, Refused, checked_name
from nonlocalseg.serving.line import WAIT, Job, Line, Stopped
from nonlocalseg.serving.shelf import Shelf

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds in which the bytes of a photograph have to arrive."""
EXTRA = 2**16
"""Bytes of a form around the file in it."""


class Desk:
    """What the routes share."""

    def __init__(self, models: Sequence[Served], limits: Limits) -> None:
        self.models, self.limits = tuple(models), limits
        self.line, self.shelf = Line(limits.queue), Shelf(limits.keep_megabytes * 10**6)

    def model(self, name: str | None) -> Served:
        """The model of that name, by default the first."""
        if name is None:
            return self.models[0]
        try:
            known = {served.name: served for served in self.models}
            return known[pick("model", name, known)]
        except ValueError as error:
            raise Refused(404, str(error)) from None

    def decoded(self, content: bytes, name: str) -> np.ndarray:
        """The photograph in a file's bytes, uint8 [H, W, 3]. Raises `Refused`."""
        with _refusing(name):
            return read_image(name, content, self.limits.most_pixels)

    async def received(self, request: Request) -> tuple[bytes, str]:
        """The bytes of the file in a request and its name, after a look at its header. Raises `Refused`."""
        content, name = await _file_in(request, self.limits.most_bytes)
        if not content:
            raise Refused(422, "no photograph: send a form with the file image, or the file's bytes")
        with _refusing(name):
            check_image(name, content, self.limits.most_pixels)
        return content, name


class _refusing:
    """What is wrong with an image, as `Refused`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, TooLarge):
            raise Refused(413, str(error)) from None
        if isinstance(error, ValueError):
            raise Refused(415, str(error)) from None


async def in_line(line: Line, request: Request, prepare: Callable[[], Awaitable[Callable[[Job[T]], T]]]) -> T:
    """A place in line, then what `prepare` awaits, then the work that it returns, in the models' thread.

    Stops where the client goes away. Raises `Refused`.
    """
    job = await placed(line, request, prepare)
    assert job.future is not None  # it has been started
    future = asyncio.wrap_future(job.future)
    while not future.done():
        await asyncio.wait({future}, timeout=0.5)
        if not future.done() and await request.is_disconnected():
            job.stop()
            break
    try:
        return await future
    except (Stopped, asyncio.CancelledError):
        raise Refused(503, "stopped", WAIT) from None


async def placed(line: Line, request: Request, prepare: Callable[[], Awaitable[Callable[[Job[T]], T]]]) -> Job[T]:
    """The job, once it is in line with all that it needs. Raises `Refused`."""
    try:
        job: Job[T] = line.enter()
    except Refused:
        await _read_past(request)
        raise
    try:
        job.start(await prepare())
    except BaseException:
        job.leave()
        raise
    return job


# --- Bodies -----------------------------------------------------------------------------------------------------


async def _file_in(request: Request, most: int) -> tuple[bytes, str]:
    form = request.headers.get("content-type", "").startswith("multipart/form-data")
    body = await _body_of(request, most, EXTRA if form else 0)
    if not form:
        return body, checked_name(request.query_params.get("name"))

    async def replay() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, replay).form(max_files=1, max_fields=20, max_part_size=EXTRA) as fields:
            found = fields.get("image")
            if found is None or isinstance(found, str):
                raise Refused(422, "image: the form has no file of that name")
            content = await found.read()
            name = checked_name(found.filename)
    except StarletteError as error:
        raise Refused(422, f"image: {error.detail}") from None
    if len(content) > most:
        raise _too_many(most)
    return content, name


async def _body_of(request: Request, most: int, extra: int) -> bytes:
    """All of it, never more than `most + extra` bytes held; what is too large is read past, so that the client hears."""
    declared = request.headers.get("content-length", "0")
    parts: list[bytes] = []
    count = 0
    if declared.isdigit() and int(declared) > 4 * most:
        raise _too_many(most)
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                count += len(part)
                if count <= most + extra:
                    parts.append(part)
                else:
                    parts.clear()
                if count > 4 * most:
                    break
    except TimeoutError:
        raise Refused(408, f"the photograph did not arrive within {PATIENCE:.0f} seconds") from None
    if count > most + extra:
        raise _too_many(most)
    return b"".join(parts)


async def _read_past(request: Request) -> None:
    """The body, kept nowhere: most clients hear an answer only once they have sent all."""
    try:
        async with asyncio.timeout(PATIENCE):
            async for _ in request.stream():
                pass
    except (TimeoutError, ClientDisconnect):
        pass


def _too_many(most: int) -> Refused:
    return Refused(413, f"the file has more than {most / 10**6:.4g} megabytes: make it smaller")
