"""The JSON endpoint, one FastAPI application: POST /predict, /health, /classes and their OpenAPI page at /docs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as StarletteError

from nonlocalseg.serving.answer import Served, answers_of, hexadecimal, mask_png, runs_json
from nonlocalseg.serving.desk import Desk, in_line
from nonlocalseg.serving.guard import Guard
from nonlocalseg.serving.limits import Refused
from nonlocalseg.serving.line import Job

TIDYING = 60.0
BODY = {
    "required": True,
    "description": "The photograph: a form with the file `image`, or the file's bytes alone.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}},
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}
ERRORS: dict[int | str, dict[str, object]] = {
    408: {"description": "The photograph did not arrive in time."},
    413: {"description": "Too many bytes or pixels."},
    415: {"description": "Not an image, or a damaged one."},
    422: {"description": "An option is wrong, or the image cannot be labelled."},
    503: {"description": "Busy; the header Retry-After says for how many seconds to wait."},
}


def create_app(desk: Desk) -> FastAPI:
    """The application without the page."""

    @asynccontextmanager
    async def tidied(_: FastAPI) -> AsyncIterator[None]:
        async def tidy() -> None:
            while True:
                await asyncio.sleep(TIDYING)
                desk.shelf.tidy()

        task = asyncio.create_task(tidy())
        yield
        task.cancel()
        desk.line.close()

    names = ", ".join(served.name for served in desk.models)
    app = FastAPIOffline(
        title="nonlocalseg",
        description=f"Semantic segmentation of photographs with {names}.",
        redoc_url=None,
        lifespan=tidied,
    )
    app.add_middleware(Guard)
    _explain_errors(app)

    @app.get("/health", summary="Whether the server answers, and how many requests are in line")
    async def health() -> dict[str, object]:
        return {
            "status": "ok",
            "models": [served.name for served in desk.models],
            "line": desk.line.taken,
            "queue": desk.limits.queue,
        }

    @app.get("/classes", summary="The classes of every model, with their colours")
    async def classes() -> dict[str, object]:
        return {"models": [described(served) for served in desk.models]}

    @app.post(
        "/predict",
        summary="The class of every pixel of a photograph",
        openapi_extra={"requestBody": BODY},
        responses={200: {"content": {"image/png": {}}}, **ERRORS},
    )
    async def predict(
        request: Request,
        answer: Literal["mask", "rle"] = Query(
            "mask", description="A palette PNG of class numbers, or JSON with COCO's run lengths."
        ),
        model: str | None = Query(None, description="Which model, where the server has two; by default the first."),
    ) -> Response:
        served = desk.model(model)

        async def labelled() -> Callable[[Job[Response]], Response]:
            content, name = await desk.received(request)

            def work(job: Job[Response]) -> Response:
                (found,) = answers_of([served], desk.decoded(content, name), job)
                if answer == "rle":
                    return JSONResponse(runs_json(found))
                return Response(mask_png(found), media_type="image/png")

            return work

        return await in_line(desk.line, request, labelled)

    return app


def described(served: Served) -> dict[str, object]:
    """A model as /classes tells it."""
    pairs = zip(served.classes, served.palette, strict=True)
    listed = [{"id": n, "name": name, "colour": hexadecimal(colour)} for n, (name, colour) in enumerate(pairs)]
    return {"name": served.name, "seen": ", ".join(served.view.words()), "classes": listed}


# --- Errors -----------------------------------------------------------------------------------------------------


def _explain_errors(app: FastAPI) -> None:
    """Every error is {"error": one line} that tells nothing of the server's files or code."""

    def line(status: int, text: str, wait: int | None = None) -> JSONResponse:
        return JSONResponse({"error": text}, status, {"Retry-After": str(wait)} if wait else None)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return line(error.status, error.message, error.wait)

    @app.exception_handler(ValueError)
    async def wrong(_: Request, error: ValueError) -> JSONResponse:
        return line(422, harmless(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return line(422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(StarletteError)
    async def plain(_: Request, error: StarletteError) -> JSONResponse:
        return line(error.status_code, "there is nothing here" if error.status_code == 404 else str(error.detail))

    @app.exception_handler(Exception)
    async def internal(_: Request, error: Exception) -> JSONResponse:
        return line(500, harmless(error))


def harmless(error: BaseException) -> str:
    """What may be said of an error: our own words about an image or option; of all else only that the log has it."""
    text = " ".join(str(error).split())
    if isinstance(error, Refused):
        return error.message
    if isinstance(error, ValueError) and "/" not in text and "\\" not in text:
        return text
    print(f"error: {type(error).__name__}: {text}", file=sys.stderr, flush=True)
    return "this photograph cannot be answered; the server's own log says why"
