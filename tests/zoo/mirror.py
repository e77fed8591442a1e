"""A loopback server of files that can misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!doctype html><title>Sign in</title>"


class Server(ThreadingHTTPServer):
    """`files`: path -> content. `manner`: how it is sent. `asked`: every request, as (path, Range)."""

    daemon_threads = True
    files: dict[str, bytes]
    manner: str
    asked: list[tuple[str, str | None]]

    def handle_error(self, request: object, client_address: object) -> None:
        """Silence, where the other side hangs up."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None or self.server.manner == "missing":
            self.send_error(404)
            return
        if self.server.manner == "forbidden":
            self.send_error(403)
            return
        if self.server.manner == "redirects":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.manner == "sends elsewhere":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = {"empty": b"", "truncated": content[: len(content) // 2], "page": PAGE}.get(
            self.server.manner, content
        )
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and self.server.manner != "forgetful" else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        rest = content[start:]
        if self.server.manner == "endless":
            self.send_header("Connection", "close")
            self.end_headers()
            for _ in range(2000):
                self.wfile.write(bytes(100_000))
            self.close_connection = True
            return
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.manner == "wrong":
            rest = bytes(len(rest))
        drops = self.server.manner == "forgetful" or (
            self.server.manner == "drops once" and len(self.server.asked) == 1
        )
        self.wfile.write(rest[: len(rest) // 2] if drops else rest)
        self.close_connection = self.close_connection or drops

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@contextmanager
def serving(files: dict[str, bytes], manner: str = "well") -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.manner, server.asked = files, manner, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
