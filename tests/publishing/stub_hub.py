"""A hub on loopback that holds repositories in memory and speaks as much of the hub's HTTP as loading and pushing need."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stubstubstubstubstubstubstubstub"
READ_ONLY = "hf_readreadreadreadreadreadreadread"


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "") -> str:
        content = {**self.commits.get(self.refs.get("main", ""), {}), **files}
        sha = hashlib.sha1(repr((sorted(content.items()), len(self.commits))).encode()).hexdigest()
        self.commits[sha], self.refs["main"] = content, sha
        self.messages.append(message)
        return sha


@dataclass
class Hub:
    address: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        do_GET = do_POST = do_PUT = do_HEAD

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            status, content, headers = _Answer(hub, self.headers.get("Authorization", "")).of(self.command, path, body)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, item in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, item)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Answer = tuple[int, Any, dict[str, str]]
_MISSING = (404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})


class _Answer:
    def __init__(self, hub: Hub, authorization: str) -> None:
        self.hub, self.token = hub, authorization.removeprefix("Bearer ")

    def of(self, method: str, path: str, body: bytes) -> Answer:
        if path == "/":
            return 200, b"", {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if (found := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)) and (
            known := self.hub.repositories.get(found[1])
        ):
            return 200, {"_id": "1", "id": found[1], "modelId": found[1], "private": known.private, "siblings": []}, {}
        if found := re.fullmatch(r"/blob/(\w+)", path):
            self.hub.blobs[found[1]] = body
            return 200, b"", {}
        if found := re.fullmatch(
            r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git)?/(preupload|info|commit|revision|tree|resolve)(.*)", path
        ):
            return self._of_repository(found[1], found[2], found[3].strip("/"), body)
        return 404, {"error": f"no such page: {method} {path}"}, {}

    def _create(self, wanted: dict[str, Any]) -> Answer:
        if not self.token:
            return 401, {"error": "Invalid username or password."}, {}
        if self.token != TOKEN:
            return 403, {"error": "You don't have the rights to create a model"}, {}
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
        address = {"url": f"{self.hub.address}/{name}"}
        if name in self.hub.repositories:
            return 409, address, {}
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private)
        return 200, address, {}

    def _of_repository(self, name: str, what: str, rest: str, body: bytes) -> Answer:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self.token not in (TOKEN, READ_ONLY)):
            return _MISSING if self.token else (401, *_MISSING[1:])
        if what == "preupload":
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                for one in json.loads(body)["files"]
            ]
            return 200, {"files": [{**mode, "shouldIgnore": False} for mode in modes]}, {}
        if what == "info":  # .../lfs/objects/batch
            upload = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/blob/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": upload}, {"Content-Type": "application/vnd.git-lfs+json"}
        if what == "commit":
            return self._commit(name, repository, body)
        revision, _, file = rest.partition("/")
        sha = repository.refs.get(revision, revision)
        if sha not in repository.commits:
            return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
        files = repository.commits[sha]
        if what == "revision":
            listed = [{"rfilename": path} for path in files]
            return 200, {"_id": "1", "id": name, "modelId": name, "sha": sha, "siblings": listed, "tags": []}, {}
        if what == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            return 200, entries, {}
        if file not in files:
            return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
        etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
        return 200, files[file], {"ETag": etag, "X-Repo-Commit": sha, "Accept-Ranges": "none"}

    def _commit(self, name: str, repository: Repository, body: bytes) -> Answer:
        if self.token != TOKEN:
            return 403 if self.token else 401, {"error": "You don't have the rights to write here"}, {}
        files, message = {}, ""
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                message = line["value"]["summary"]
            elif line["key"] == "file":
                files[line["value"]["path"]] = b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.hub.blobs[line["value"]["oid"]]
        sha = repository.commit(files, message)
        return 200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.address}/{name}/commit/{sha}"}, {}
