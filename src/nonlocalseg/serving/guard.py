"""What every answer carries, and what never reaches the page's framework: its own ways to files and other addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FRAMEWORK = "/gradio_api/"
NEEDED = ("startup-events", "heartbeat", "app_id", "theme.css", "info")
"""All that the page asks of Gradio below `FRAMEWORK`; its uploads, files, proxies, queue and calls are shut."""
CLOSED = ("/monitoring", "/login", "/logout", "/custom_component", "/svelte")
HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """Around the whole application (ASGI)."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), text.encode()) for name, text in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in more if pair[0] not in given)]
            await send(message)

        if reason := _refused(scope):
            status, text = reason
            body = f'{{"error": "{text}"}}'.encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send_guarded({"type": "http.response.start", "status": status, "headers": headers})
            await send_guarded({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send_guarded)


def _refused(scope: Scope) -> tuple[int, str] | None:
    """Status and reason for a request that goes no further."""
    path = str(scope["path"])[len(str(scope.get("root_path", ""))) :] or "/"
    rest = path.removeprefix(FRAMEWORK)
    if (rest != path and rest.split("/")[0] not in NEEDED) or path.startswith(CLOSED):
        return 404, "there is nothing here"
    headers = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in scope["headers"]}
    if scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site") == "cross-site":
        return 403, "another site's page may not ask this server"
    return None
