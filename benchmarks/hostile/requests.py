"""What is sent to the page's endpoint: photographs, forms, headers and options, changed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.hostile.cage import Caged, Kind
from benchmarks.hostile.changes import CANARY, ODD, changed_bytes, changed_text
from benchmarks.hostile.models import tiny
from benchmarks.hostile.pictures import changed_picture, whole_pictures
from nonlocalseg.labels import default_palette
from nonlocalseg.view import View

LIMITS = {"max_megabytes": 0.2, "max_megapixels": 0.25, "queue": 2}
NAMES = ("photo.png", f"../../{CANARY}.png", "a" * 5000, "\x1b]0;x\x07.png", 'a"b\r\nx: y.png', "ü\u202e.png", "")


def endpoint(folder: Path) -> Caged:
    from fastapi.testclient import TestClient

    from nonlocalseg.serving.answer import Served
    from nonlocalseg.serving.desk import Desk
    from nonlocalseg.serving.endpoint import create_app
    from nonlocalseg.serving.limits import Limits
    from nonlocalseg.serving.results import make_routes

    model = tiny()
    served = Served("tiny", model, View(), torch.device("cpu"), ("a", "b", "c"), default_palette(3))
    desk = Desk([served], Limits(**LIMITS))
    app = create_app(desk)
    app.include_router(make_routes(desk))
    client = TestClient(app, raise_server_exceptions=False)
    client.__enter__()  # for as long as the process lives
    files = whole_pictures()
    current: dict[str, object] = {"method": "POST", "url": "/predict", "content": files["colour.png"]}

    def change(drawn: random.Random) -> None:
        name = drawn.choice(sorted(files))
        content = files[name]
        if drawn.random() < 0.8:
            content = changed_picture(name)(content, drawn)
        current.clear()
        current.update(method="POST", url=drawn.choice(("/predict", "/predict", "/page/photographs")))
        if drawn.random() < 0.3:
            current["params"] = {
                drawn.choice(("answer", "model", "name", "x")): str(drawn.choice([*ODD, "rle", "mask", "tiny", *NAMES]))
                for _ in range(2)
            }
            current["params"] = {key: item.encode(errors="replace").decode() for key, item in current["params"].items()}
        kind = drawn.randrange(4)
        if kind == 0:
            current["content"] = content
        elif kind == 1:
            current["files"] = {drawn.choice(("image", "image", "other")): (drawn.choice(NAMES), content)}
        elif kind == 2:
            form = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + content
            form += b"\r\n--x--\r\n"
            head, tail = form[:80], form[80:]
            changed = changed_text(head, drawn) if drawn.random() < 0.5 else changed_bytes(head, drawn)
            current["content"] = changed + tail
            kinds = (
                "multipart/form-data; boundary=x",
                "multipart/form-data",
                "multipart/form-data; boundary=" + "x" * 999,
            )
            current["headers"] = {"content-type": drawn.choice(kinds)}
        else:
            current["content"] = content * drawn.choice((1, 20, 400))
            heads = ("-1", "0", "99999999999999999999", "x", "5")
            current["headers"] = {"content-length": drawn.choice(heads), "content-type": "image/png"}
        if drawn.random() < 0.1:
            paths = ("/predict/..%2f..%2fetc/passwd", "/page/examples/%2e%2e%2f1.png", f"/page/photographs/../{CANARY}")
            current.update(method=drawn.choice(("GET", "POST", "PUT", "DELETE")), url=drawn.choice(paths))

    def ask() -> Iterable[str]:
        answer = client.request(**current)
        if answer.status_code >= 500 and answer.status_code != 503:
            raise AssertionError(f"status {answer.status_code}: {answer.text[:300]}")
        if answer.status_code < 400:
            return ()
        text = answer.json()["error"]
        assert "/tmp" not in text, text
        return (text,)

    return Caged(change, ask)


KINDS = (Kind("endpoint", endpoint, quiet=False),)
