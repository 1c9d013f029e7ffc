"""A web server on this machine with files, and with as much of Hugging Face's interface as its package asks for."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(http.server.ThreadingHTTPServer):
    """`files`: path -> content, or -> (status, headers, content). `repositories`: name -> {file: content}."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Any] = {}
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        for key, value in {"Content-Length": str(len(content)), **named}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def as_json(self, content: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        if path in self.server.files:
            found = self.server.files[path]
            if found == "silence":  # the line is cut without an answer
                self.close_connection = True
                return
            if found == "slow":
                time.sleep(3)
                self.close_connection = True
                return
            status, headers, content = found if isinstance(found, tuple) else (200, {}, found)
            self.answer(status, content, **headers)
            return
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self.describe("/".join(parts[2:4]), parts[4:])
        repository = self.server.repositories.get("/".join(parts[:2]), {})
        name = "/".join(parts[4:])
        if parts[2:3] == ["resolve"] and name in repository:
            content = repository[name]
            etag = hashlib.sha1(content).hexdigest()
            return self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
        self.answer(404, b"Repository not found", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")

    do_HEAD = do_GET  # noqa: N815

    def describe(self, name: str, rest: list[str]) -> None:
        if name not in self.server.repositories:
            return self.answer(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        files = self.server.repositories[name]
        if rest[:1] == ["tree"]:
            return self.as_json(
                [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in sorted(files.items())
                ]
            )
        self.as_json({"id": name, "modelId": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.server.requests.append(f"POST {path}")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.repositories.setdefault(name, {})
            return self.as_json({"url": f"{self.server.url}/{name}", "id": name, "name": name})
        if parts[-2:-1] == ["preupload"]:
            asked = [entry["path"] for entry in json.loads(body)["files"]]
            return self.as_json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in asked]})
        if parts[-2:-1] == ["commit"]:
            repository = self.server.repositories["/".join(parts[2:4])]
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    repository[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.server.url}/{'/'.join(parts[2:4])}/commit/{COMMIT}"
            return self.as_json({"commitUrl": url, "commitOid": COMMIT, "success": True})
        self.answer(404)


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs until the block ends."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
