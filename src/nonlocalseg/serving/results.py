"""The page's own routes: photographs in, how far they are, what was found in every form, the attention of a pixel."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import asdict
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from nonlocalseg.data.synthetic import Synthetic
from nonlocalseg.serving.answer import (
    Answer,
    answers_of,
    mask_png,
    overlay_png,
    picture_jpeg,
    picture_png,
    probabilities_npz,
    probabilities_of,
    shares_csv,
    shrunk,
)
from nonlocalseg.serving.attention import attention_of
from nonlocalseg.serving.desk import Desk, in_line, placed
from nonlocalseg.serving.endpoint import harmless
from nonlocalseg.serving.limits import Refused
from nonlocalseg.serving.line import Job, Progress
from nonlocalseg.serving.shelf import Result

SHOWN = 1600
"""Pixels to the longer side of what the page draws; downloads have the photograph's own size."""
EXAMPLES = ((96, 512), (144, 384), (192, 320), (240, 320))
"""Height and width of the drawn scenes that may be tried."""
PRIVATE = {"Cache-Control": "no-store"}


def make_routes(desk: Desk) -> APIRouter:
    """All below /page; what the page asks, and nobody else needs."""
    routes = APIRouter(prefix="/page", include_in_schema=False)

    @routes.post("/photographs", status_code=202)
    async def photograph(request: Request) -> dict[str, object]:
        async def labelled() -> Callable[[Job[Result]], Result]:
            content, name = await desk.received(request)

            def work(job: Job[Result]) -> Result:
                image = desk.decoded(content, name)
                return Result(name, image, answers_of(desk.models, image, job))

            return work

        return {"token": desk.shelf.put(await placed(desk.line, request, labelled))}

    @routes.get("/photographs/{token}")
    async def progress(token: str) -> dict[str, object]:
        job = desk.shelf.job(token)
        found: dict[str, object] = {"state": job.state, "done": min(job.done, job.total), "total": job.total}
        if job.state == "done":
            found["result"] = _described(desk.shelf.result(token))
        if job.state == "failed" and job.future is not None and (error := job.future.exception()) is not None:
            found["error"] = harmless(error)
        return found

    @routes.delete("/photographs/{token}")
    async def stop(token: str) -> dict[str, object]:
        desk.shelf.job(token).stop()
        return {"state": "cancelled"}

    @routes.get("/photographs/{token}/photograph.jpg")
    def shown(token: str) -> Response:
        image = desk.shelf.result(token).image
        return Response(picture_jpeg(shrunk(image, SHOWN)), media_type="image/jpeg", headers=PRIVATE)

    @routes.get("/photographs/{token}/{model}/{what}.bin")
    def values(token: str, model: int, what: str) -> Response:
        answer = _answer(desk.shelf.result(token), model)
        arrays = {"classes": answer.mask, "probability": answer.probability}
        if what not in arrays:
            raise Refused(404, "there is nothing here")
        packed = gzip.compress(shrunk(arrays[what], SHOWN).tobytes(), 1)
        return Response(packed, media_type="application/octet-stream", headers={**PRIVATE, "Content-Encoding": "gzip"})

    @routes.get("/photographs/{token}/{model}/mask.png")
    def mask(token: str, model: int) -> Response:
        result = desk.shelf.result(token)
        return _file(mask_png(_answer(result, model)), "image/png", result, model, "mask.png")

    @routes.get("/photographs/{token}/{model}/overlay.png")
    def overlay(token: str, model: int, opacity: float = Query(0.5, ge=0, le=1)) -> Response:
        result = desk.shelf.result(token)
        picture = overlay_png(_answer(result, model), result.image, opacity)
        return _file(picture, "image/png", result, model, "overlay.png")

    @routes.get("/photographs/{token}/{model}/shares.csv")
    def shares(token: str, model: int) -> Response:
        result = desk.shelf.result(token)
        return _file(shares_csv(_answer(result, model)), "text/csv; charset=utf-8", result, model, "shares.csv")

    @routes.get("/photographs/{token}/{model}/probabilities.npz")
    async def probabilities(request: Request, token: str, model: int) -> Response:
        result = desk.shelf.result(token)
        served = _answer(result, model).served

        async def made() -> Callable[[Job[bytes]], bytes]:
            return lambda job: probabilities_npz(probabilities_of(served, result.image, job), served.classes)

        content = await in_line(desk.line, request, made)
        return _file(content, "application/octet-stream", result, model, "probabilities.npz")

    @routes.get("/photographs/{token}/pixel")
    async def pixel(request: Request, token: str, x: int, y: int) -> dict[str, object]:
        result = desk.shelf.result(token)
        height, width = result.image.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            raise Refused(422, f"pixel: {x} {y} is outside the photograph of {width} x {height} pixels")

        async def asked() -> Callable[[Job[list[dict[str, object]]]], list[dict[str, object]]]:
            return lambda job: [_attention(answer, result.image, (x, y), job) for answer in result.answers]

        return {"x": x, "y": y, "models": await in_line(desk.line, request, asked)}

    @routes.get("/examples/{number}.png")
    def example(number: int) -> Response:
        if not 0 <= number < len(EXAMPLES):
            raise Refused(404, "there is nothing here")
        scenes = Synthetic(split="test", size=EXAMPLES[number], length=len(EXAMPLES))
        return Response(picture_png(scenes.read(number)[0]), media_type="image/png")

    return routes


def _answer(result: Result, model: int) -> Answer:
    if not 0 <= model < len(result.answers):
        raise Refused(404, "there is nothing here")
    return result.answers[model]


def _attention(answer: Answer, image: np.ndarray, pixel: tuple[int, int], job: Progress) -> dict[str, object]:
    job.before_pass()
    pictures, reason = attention_of(answer.served, image, pixel)
    return {"name": answer.served.name, "pictures": [asdict(one) for one in pictures], "reason": reason}


def _described(result: Result) -> dict[str, object]:
    """What the page has to know before it fetches the arrays."""
    height, width = result.image.shape[:2]
    shown = shrunk(result.answers[0].mask, SHOWN).shape
    return {
        "name": result.name,
        "width": width,
        "height": height,
        "shown": {"width": shown[1], "height": shown[0]},
        "models": [
            {
                "name": answer.served.name,
                "seen": ", ".join(answer.served.view_of(answer.size).words()),
                "shares": [asdict(share) for share in answer.shares()],
            }
            for answer in result.answers
        ],
    }


def _file(content: bytes, kind: str, result: Result, model: int, ending: str) -> Response:
    stem, several = result.name.rpartition(".")[0] or result.name, len(result.answers) > 1
    name = f"{stem}-{result.answers[model].served.name}-{ending}" if several else f"{stem}-{ending}"
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, media_type=kind, headers={**PRIVATE, "Content-Disposition": disposition})
