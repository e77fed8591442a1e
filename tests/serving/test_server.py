"""A server as a process: its one line, a port that is taken, an orderly end, nothing left behind, no extra."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_models import encoded, photograph, served

from nonlocalseg.cli import main
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.serving import server


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = served().model
    assert isinstance(model, Segmenter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def started(saved: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    pytest.importorskip("gradio", reason="the extra serve is not installed")
    pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
    command = [sys.executable, "-m", "nonlocalseg", "serve", str(saved), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, **pipes)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)  \(Ctrl-C stops\)\n", line)
    if found is None:
        process.kill()
        raise AssertionError(line + process.communicate()[1])
    yield process, found[1]
    process.kill()
    process.communicate()


def test_a_server_answers_and_ends_in_order(started: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    process, address = started
    with urllib.request.urlopen(f"{address}/health") as answer:
        assert json.load(answer)["models"] == ["tiny"]
    content = encoded(photograph(400, 600))
    request = urllib.request.Request(f"{address}/predict", content, {"content-type": "image/png"})
    with urllib.request.urlopen(request) as answer:
        assert answer.read().startswith(b"\x89PNG")
    with urllib.request.urlopen(address) as answer:
        page = answer.read().decode()
    assert "gradio" in page
    assert str(Path.home()) not in page
    assert str(tmp_path) not in page
    for path in ("/static/../../../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc/passwd", "/config/../x"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            urllib.request.urlopen(address + path)
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nbytes\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for path, body in (
        ("upload", form),
        ("file=/etc/passwd", None),
        ("queue/join", b"{}"),
        ("proxy=http://a.b/", None),
    ):
        with pytest.raises(urllib.error.HTTPError, match="404") as shut:
            urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/{path}", body, kind))
        assert json.load(shut.value) == {"error": "there is nothing here"}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []  # nothing of it on the disk
    port = int(address.rpartition(":")[2])
    with pytest.raises(ValueError, match=rf"port: {port} is taken .* choose another, or 0"):
        server.listen("127.0.0.1", port)
    large = urllib.request.Request(f"{address}/page/photographs", encoded(photograph(1500, 2000), "JPEG"))
    with urllib.request.urlopen(large) as answer:
        assert answer.status == 202
    process.send_signal(signal.SIGTERM)  # while it works
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_a_server_too(started: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = started
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing"),
        (["{saved}", "{saved}"], "is given twice"),
        (["{saved}", "--port", "70000"], "--port: 70000"),
        (["{saved}", "--host", "192.0.2.1"], "--host: 192.0.2.1 is no address of this machine"),
        (["{saved}", "--queue", "0"], "--queue: 0; give 1 or more"),
        (["{saved}", "--max-megapixels", "1000"], "--max-megapixels: 1000; give 134 or less"),
        (["{saved}", "--mode", "slide"], "--crop"),
        (["{saved}", "--setting", "nothing"], "nothing"),
    ],
)
def test_mistakes_are_one_line(
    saved: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    given = [word.format(saved=saved) for word in arguments]
    assert main(["serve", *given, *(["--port", "0"] if "--port" not in given else [])]) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert len(errors.splitlines()) == 1


def test_without_the_extra(saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in ("desk", "endpoint", "results", "page"):
        monkeypatch.delitem(sys.modules, f"nonlocalseg.serving.{name}", raising=False)
    assert main(["serve", str(saved), "--port", "0"]) == 2
    assert "needs the extra serve: pip install 'nonlocalseg[serve]'" in capsys.readouterr().err


def test_a_taken_port_is_one_line(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["serve", str(saved), "--port", str(other.getsockname()[1])]) == 2
    assert "is taken or may not be used; choose another, or 0 for a free one" in capsys.readouterr().err
