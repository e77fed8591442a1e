"""The JSON endpoint and the page's own routes: answers, and everything that is refused."""

from __future__ import annotations

import asyncio
import io
import re
import struct
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_models import CLASSES, encoded, photograph, served

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")

from fastapi import Request
from fastapi.testclient import TestClient

from nonlocalseg.data.run_lengths import decode
from nonlocalseg.serving import desk as desks
from nonlocalseg.serving import endpoint
from nonlocalseg.serving.desk import Desk, placed
from nonlocalseg.serving.endpoint import create_app
from nonlocalseg.serving.limits import Limits, Refused
from nonlocalseg.serving.results import make_routes

IMAGE = photograph()
PNG = encoded(IMAGE)


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk([served("first"), served("second", "fcn")], Limits(max_megabytes=0.1, max_megapixels=0.01, queue=2))


@pytest.fixture(scope="module")
def client(desk: Desk) -> Iterator[TestClient]:
    app = create_app(desk)
    app.include_router(make_routes(desk))

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("/home/somebody/secret.py went wrong")

    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened


def ask(client: TestClient, content: bytes = PNG, name: str = "photo.png", **query: str):
    return client.post("/predict", files={"image": (name, content)}, params=query)


def test_health_and_classes(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "models": ["first", "second"], "line": 0, "queue": 2}
    first, second = client.get("/classes").json()["models"]
    assert (first["name"], second["name"], first["seen"]) == ("first", "second", "whole images, one scale")
    assert [c["name"] for c in first["classes"]] == list(CLASSES)
    assert all(c["colour"].startswith("#") and len(c["colour"]) == 7 for c in first["classes"])


def test_a_mask_and_its_run_lengths(client: TestClient) -> None:
    answer = ask(client)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    mask = np.array(Image.open(io.BytesIO(answer.content)))
    assert mask.shape == (48, 64)
    found = ask(client, answer="rle").json()
    for part in found["classes"]:
        np.testing.assert_array_equal(decode(part["segmentation"], (48, 64)), mask == part["id"])
    assert sum(part["share"] for part in found["classes"]) == pytest.approx(1)


def test_bytes_alone_are_a_photograph_too_and_the_second_model_answers(client: TestClient) -> None:
    alone = client.post("/predict", content=PNG, headers={"content-type": "image/png"})
    assert alone.content == ask(client).content
    assert ask(client, model="second", answer="rle").json()["model"] == "second"


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "TIFF", "WEBP", "GIF"])
def test_kinds_are_told_by_content(client: TestClient, kind: str) -> None:
    assert ask(client, encoded(IMAGE, kind), "photo.png").status_code == 200


def bomb() -> bytes:
    """A PNG whose header promises 30000 x 30000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "no photograph"),
        (b"hello", 415, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not an image"),
        (PNG[: len(PNG) // 2], 415, "photo.png"),
        (bomb(), 413, "more than 0.01 million"),
        (encoded(photograph(101, 100)), 413, "100x101 pixels, more than 0.01 million"),
        (b"x" * 100_001, 413, "more than 0.1 megabytes"),
        (b"x" * 300_000, 413, "more than 0.1 megabytes"),
        (b"x" * 900_000, 413, "more than 0.1 megabytes"),
        (encoded(photograph(8, 64)), 422, "at least 16x16 pixels"),
    ],
    ids=["empty", "text", "postscript", "svg", "cut off", "bomb", "pixels", "bytes", "more", "far more", "small"],
)
def test_what_is_refused(client: TestClient, desk: Desk, content: bytes, status: int, words: str) -> None:
    for answer in (
        ask(client, content),
        client.post("/predict", content=content, headers={"content-type": "image/png"}, params={"name": "photo.png"}),
    ):
        assert answer.status_code == status
        assert words in answer.json()["error"]
        assert list(answer.json()) == ["error"]
    assert desk.line.taken == 0


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"answer": "polygons"}, 422, "answer: Input should be 'mask' or 'rle'"),
        ({"model": "fist"}, 404, "did you mean 'first'"),
        ({"model": "../../etc"}, 404, "unknown"),
    ],
)
def test_wrong_options(client: TestClient, query: dict[str, str], status: int, words: str) -> None:
    answer = ask(client, **query)
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_forms_without_the_file(client: TestClient) -> None:
    for answer in (
        client.post("/predict", files={"picture": PNG}),
        client.post("/predict", data={"image": "text"}, files={"other": PNG}),
        client.post("/predict", files=[("image", PNG), ("more", PNG)]),
        client.post("/predict", content=b"--x", headers={"content-type": "multipart/form-data"}),
    ):
        assert answer.status_code == 422
        assert "image:" in answer.json()["error"]


def test_a_name_with_a_path_is_told_without_it(client: TestClient) -> None:
    assert ask(client, b"hello", "/home/me/../photo.png").json()["error"].startswith("photo.png: not an image")


def test_a_full_line_is_busy(client: TestClient, desk: Desk) -> None:
    jobs = [desk.line.enter() for _ in range(2)]
    sent: list[int] = []

    def body() -> Iterator[bytes]:
        for _ in range(50):
            sent.append(1)
            yield bytes(10**5)

    assert client.post("/predict", content=body()).status_code == 503
    assert len(sent) == 50  # read past to its end, so that the client hears of it
    answer = ask(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "busy" in answer.json()["error"]
    assert client.get("/health").json()["line"] == 2
    for job in jobs:
        job.leave()
    assert ask(client).status_code == 200


def test_a_body_that_does_not_arrive(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive() -> dict[str, object]:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    async def waiting() -> None:
        scope = {"type": "http", "headers": [(b"content-type", b"image/png")], "query_string": b""}
        request = Request(scope, receive)
        await placed(desk.line, request, lambda: desk.received(request))

    monkeypatch.setattr(desks, "PATIENCE", 0.01)
    with pytest.raises(Refused, match="did not arrive") as refused:
        asyncio.run(waiting())
    assert refused.value.status == 408
    assert desk.line.taken == 0


def test_errors_tell_no_paths(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    answer = client.get("/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret.py went wrong" in capsys.readouterr().err
    assert endpoint.harmless(ValueError("/srv/model/config.json: broken")).startswith("this photograph cannot")
    assert endpoint.harmless(ValueError("too small")) == "too small"
    assert client.get("/nothing").json() == {"error": "there is nothing here"}


def test_the_openapi_page_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "http" not in page.replace("http://testserver", "")
    schema = client.get("/openapi.json").json()
    assert sorted(schema["paths"]) == ["/broken", "/classes", "/health", "/predict"]
    assert "multipart/form-data" in schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert "503" in schema["paths"]["/predict"]["post"]["responses"]


def test_other_sites_may_not_ask(client: TestClient) -> None:
    answer = client.post("/predict", content=PNG, headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert client.get("/health", headers={"sec-fetch-site": "cross-site"}).status_code == 200


# --- The page's routes ------------------------------------------------------------------------------------------


def labelled(client: TestClient, content: bytes = PNG, name: str = "photo one.png") -> tuple[str, dict[str, object]]:
    sent = client.post("/page/photographs", content=content, params={"name": name})
    assert sent.status_code == 202, sent.text
    token = sent.json()["token"]
    for _ in range(500):
        found = client.get(f"/page/photographs/{token}").json()
        if found["state"] not in ("waiting", "running"):
            return token, found
        time.sleep(0.02)
    raise AssertionError("it never ended")


def test_a_photograph_of_the_page(client: TestClient) -> None:
    token, found = labelled(client)
    assert (found["state"], found["done"], found["total"]) == ("done", 2, 2)
    result = found["result"]
    assert (result["name"], result["width"], result["height"]) == ("photo one.png", 64, 48)
    assert result["shown"] == {"width": 64, "height": 48}
    base = f"/page/photographs/{token}"
    mask = np.array(Image.open(io.BytesIO(client.get(f"{base}/1/mask.png").content)))
    classes = np.frombuffer(client.get(f"{base}/1/classes.bin").content, np.uint8).reshape(48, 64)
    np.testing.assert_array_equal(classes, mask)
    assert len(client.get(f"{base}/0/probability.bin").content) == 48 * 64
    assert Image.open(io.BytesIO(client.get(f"{base}/photograph.jpg").content)).size == (64, 48)
    overlay = client.get(f"{base}/0/overlay.png", params={"opacity": 0})
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(overlay.content))), IMAGE)
    assert overlay.headers["content-disposition"] == "attachment; filename*=UTF-8''photo%20one-first-overlay.png"
    assert client.get(f"{base}/0/shares.csv").text.startswith("class,pixels,share,probability")
    file = np.load(io.BytesIO(client.get(f"{base}/0/probabilities.npz").content))
    assert file["probabilities"].shape == (3, 48, 64)
    for path in ("2/mask.png", "0/nothing.bin", "-1/mask.png"):
        assert client.get(f"{base}/{path}").status_code == 404
    assert client.get(f"{base}/0/overlay.png", params={"opacity": 3}).status_code == 422


def test_the_attention_of_a_pixel(client: TestClient) -> None:
    token, _ = labelled(client)
    found = client.get(f"/page/photographs/{token}/pixel", params={"x": 60, "y": 40}).json()
    first, second = found["models"]
    assert len(first["pictures"]) == 2  # fusion and context block
    for shown in first["pictures"]:
        assert len(shown["lines"]) == 5
        assert shown["image"].startswith("data:image/png;base64,")
        assert shown["alt"]
    assert (second["pictures"], second["reason"]) == ([], "second has no block whose attention could be shown")
    outside = client.get(f"/page/photographs/{token}/pixel", params={"x": 64, "y": 0})
    assert (outside.status_code, outside.json()["error"]) == (
        422,
        "pixel: 64 0 is outside the photograph of 64 x 48 pixels",
    )


def test_what_fails_and_what_is_cancelled(client: TestClient, desk: Desk) -> None:
    assert labelled(client, encoded(photograph(8, 64)))[1]["error"] == "images must be at least 16x16 pixels, not 8x64"
    assert client.post("/page/photographs", content=b"hello").status_code == 415
    assert client.get("/page/photographs/unknown").status_code == 404

    go = threading.Event()
    blocking = desk.line.enter()
    blocking.start(lambda job: go.wait(10))
    token = client.post("/page/photographs", content=PNG).json()["token"]
    assert client.get(f"/page/photographs/{token}").json()["state"] == "waiting"
    assert client.delete(f"/page/photographs/{token}").json() == {"state": "cancelled"}
    assert client.get(f"/page/photographs/{token}").json()["state"] == "cancelled"
    assert client.get(f"/page/photographs/{token}/0/mask.png").status_code == 409
    go.set()


def test_examples_are_drawn(client: TestClient) -> None:
    sizes = [Image.open(io.BytesIO(client.get(f"/page/examples/{n}.png").content)).size for n in range(4)]
    assert sizes[0] == (512, 96)
    assert client.get("/page/examples/4.png").status_code == 404
    assert client.get("/page/examples/..%2f..%2fsecret.png").status_code == 404


def test_the_documented_request(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)

    def opened(request: urllib.request.Request) -> io.BytesIO:
        answer = client.request(
            request.get_method(), request.full_url, content=request.data, headers=dict(request.headers)
        )
        assert answer.status_code == 200
        return io.BytesIO(answer.content)

    monkeypatch.setattr(urllib.request, "urlopen", opened)
    found = names["predict"]("http://testserver", encoded(IMAGE, "JPEG"))
    assert set(found) == {"model", "height", "width", "seen", "classes"}
    keys = {"id", "name", "colour", "pixels", "share", "probability", "segmentation"}
    assert set(found["classes"][0]) == keys
    assert all(f"`{key}`" in text for key in keys | {"width", "height", "model", "seen"})
    for option, default in (("max_megabytes", 20), ("max_megapixels", 25), ("queue", 8), ("keep_megabytes", 512)):
        assert getattr(Limits(), option) == default
        assert f"| `--{option.replace('_', '-')}` | {default} |" in text
    for line in re.findall(r"^curl .*?http://127.0.0.1:7860(/\w+)", text, re.MULTILINE):
        assert line in client.get("/openapi.json").json()["paths"]
