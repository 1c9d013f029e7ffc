"""Serves the built page and an exported network on the loopback interface, with the headers that give it threads."""

from __future__ import annotations

import errno
import mimetypes
import os
import posixpath
import shutil
import sys
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from osmn_tf.errors import InputError

SITE = Path(__file__).parent / "site"
"""Where `make web` puts the page."""

NETWORK = "network"
"""The page's folder for the network: `metadata.json` and the files that it names."""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS: Mapping[str, str] = {
    # Together these two isolate the page from other origins, without which browsers give no threads to WebAssembly.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

# Not all systems know these, and some know wrong ones.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".mp4": "video/mp4",
    ".txt": "text/plain; charset=utf-8",
}


def find_page(network: str | os.PathLike[str] | None = None) -> tuple[Path, Path]:
    """The folders of the built page and of the network that it runs.

    Args:
        network: folder of an exported network (`osmn export --format litert`); default: the one built into the page.

    Raises:
        InputError: the page was not built, or `network` is not an exported network.
    """
    from osmn_tf.runtime.network import SIGNATURES, read_metadata

    if not (SITE / "index.html").is_file():
        raise InputError(f"the page is not built ({SITE} has no index.html): run  make web  in a checkout")
    if network is None and not (SITE / NETWORK).is_dir():
        raise InputError("--preset: the page was built without a network; give the folder of an exported one")
    folder, metadata = read_metadata(SITE / NETWORK if network is None else network)
    for graph in SIGNATURES:
        if graph not in metadata.files or not (folder / metadata.files[graph][0]).is_file():
            raise InputError(f"--preset: {folder} lacks the file of the {graph}; export the network again")
    return SITE, folder


class PageServer(ThreadingHTTPServer):
    """Serves a page on 127.0.0.1 until `shutdown`.

    Args:
        site: folder of the built page.
        network: folder of the exported network, served as `/network/`.
        port: 0 takes a free one.

    Raises:
        InputError: the port is taken, or may not be used.
    """

    daemon_threads = True
    # Elsewhere it would let two servers share a port.
    allow_reuse_address = os.name == "posix"

    def __init__(self, site: Path, network: Path, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise InputError(f"--port: expected 0 to 65535, received {port}")
        self.site = site
        self.network = network
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"--port: {port} is in use; give another one, or 0 for any free one") from error
            raise InputError(f"--port: {port} cannot be used ({error.strerror or error})") from error

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://localhost:{self.server_address[1]}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Browsers drop connections when a page is closed: nothing to tell the user."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def find(self, path: str) -> Path | None:
        """The file of a request's path; None where there is none, or it is not below the served folders."""
        path = posixpath.normpath(urllib.parse.unquote(urllib.parse.urlsplit(path).path))
        parts = [part for part in path.split("/") if part]
        if any(part == ".." or "\\" in part or "\0" in part or ":" in part for part in parts):
            return None
        root = self.site
        if parts[:1] == [NETWORK]:
            root, parts = self.network, parts[1:]
            # Beside the network there may be anything.
            if len(parts) != 1 or not parts[0].endswith((".tflite", ".json")):
                return None
        file = root.joinpath(*parts) if parts else root / "index.html"
        return file if file.is_file() and os.access(file, os.R_OK) else None


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "osmn"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    hosts: ClassVar[frozenset[str]] = frozenset({"localhost", "127.0.0.1"})

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, with_content: bool) -> None:
        # Another site whose name points at this machine is not us.
        if (self.headers.get("Host") or "").rsplit(":", 1)[0] not in self.hosts:
            return self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
        file = self.server.find(self.path)
        if file is None:
            return self._refuse(HTTPStatus.NOT_FOUND)
        try:
            with open(file, "rb") as content:
                self.send_response(HTTPStatus.OK)
                kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(os.fstat(content.fileno()).st_size))
                self.end_headers()
                if with_content:
                    shutil.copyfileobj(content, self.wfile)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page was closed meanwhile

    def _refuse(self, status: HTTPStatus) -> None:
        content = f"{status.value} {status.phrase}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: the terminal is for what the user has to know."""
