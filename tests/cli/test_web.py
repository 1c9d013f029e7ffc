"""`osmn web`: what is served, with which headers, and what it refuses."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from osmn_tf.cli.main import main
from osmn_tf.web import server as web

ROOT = Path(__file__).parents[2]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A folder that looks like an exported network."""
    folder = tmp_path / "exported"
    folder.mkdir()
    files = {}
    for graph in ("modulator", "encoder", "step"):
        content = f"the graph of the {graph}".encode()
        (folder / f"{graph}.tflite").write_bytes(content)
        files[graph] = {"name": f"{graph}.tflite", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    metadata = {
        "format": "osmn_tf.litert",
        "format_version": 1,
        "network_size": [24, 32],
        "objects": 1,
        "guide_size": 40,
        "guide_background": [1.0, 2.0, 3.0],
        "modulation_size": 3,
        "features": {"skip": [1, 12, 16, 4]},
        "state": {},
        "quantization": "int8",
        "files": files,
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built page of a few files."""
    folder = tmp_path / "site"
    (folder / "litert").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "main-ABC.js").write_text("0")
    (folder / "litert/litert.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("not yours")
    monkeypatch.setattr(web, "SITE", folder)
    return folder


@pytest.fixture
def server(site: Path, network: Path) -> Iterator[web.PageServer]:
    (network / "notes.txt").write_text("beside the network")
    with web.PageServer(*web.find_page(network)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request(
    server: web.PageServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.request(method, path, headers={"Host": host or f"localhost:{server.server_address[1]}"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html><title>page</title>"),
        ("/main-ABC.js?x", "text/javascript; charset=utf-8", b"0"),
        ("/litert/litert.wasm", "application/wasm", b"\0asm"),
        ("/network/step.tflite?0123", "application/octet-stream", b"the graph of the step"),
    ],
)
def test_serves_page_and_network(server: web.PageServer, path: str, kind: str, content: bytes) -> None:
    response, received = request(server, path)
    assert (response.status, received) == (200, content)
    assert response.headers["Content-Type"] == kind
    assert response.headers["Content-Length"] == str(len(content))
    for name, value in web.HEADERS.items():
        assert response.headers[name] == value
    head, nothing = request(server, path, method="HEAD")
    assert (head.status, nothing, head.headers["Content-Length"]) == (200, b"", str(len(content)))


@pytest.mark.parametrize(
    "path",
    [
        "/absent",
        "/litert",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/litert/%2e%2e/%2e%2e/secret.txt",
        "/..%5csecret.txt",
        "/network/notes.txt",
        "/network/../secret.txt",
        "/network",
        "/main-ABC.js%00",
    ],
)
def test_serves_nothing_else(server: web.PageServer, path: str) -> None:
    response, content = request(server, path)
    assert (response.status, content) == (404, b"404 Not Found\n")
    assert response.headers["Content-Security-Policy"] == web.CONTENT_SECURITY_POLICY


def test_only_for_this_machine(server: web.PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    # A name of another site that was pointed at this machine.
    assert request(server, "/", host="example.org")[0].status == 421
    assert request(server, "/", host="127.0.0.1")[0].status == 200


def test_headers_isolate_and_forbid() -> None:
    assert web.HEADERS["Cross-Origin-Opener-Policy"] == "same-origin"
    assert web.HEADERS["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = dict(part.strip().split(" ", 1) for part in web.CONTENT_SECURITY_POLICY.split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["worker-src"].split() == ["'self'", "blob:"]
    # Nowhere another origin, text that becomes code or a style, or data addresses.
    words = {word for value in policy.values() for word in value.split()}
    assert words == {"'none'", "'self'", "'wasm-unsafe-eval'", "blob:"}


def test_page_has_the_same_policy() -> None:
    text = (ROOT / "web/build.mjs").read_text()
    listed = re.search(r"export const CSP = \[(.*?)\]", text, re.DOTALL)
    assert listed is not None
    policy = "; ".join(re.findall(r'"(.*?)"', listed[1]))
    assert f"{policy}; frame-ancestors 'none'" == web.CONTENT_SECURITY_POLICY


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["web", "--no-open", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_missing_build(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SITE", tmp_path / "site")
    assert re.fullmatch(r"osmn web: error: the page is not built \(.*\): run  make web  in a checkout", run(capsys))


def test_missing_network(capsys: pytest.CaptureFixture[str], site: Path, network: Path) -> None:
    assert "built without a network" in run(capsys)
    assert "is not an exported network" in run(capsys, "--preset", str(site))
    (network / "step.tflite").unlink()
    assert "lacks the file of the step" in run(capsys, "--preset", str(network))


def test_port(capsys: pytest.CaptureFixture[str], site: Path, network: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = run(capsys, "--preset", str(network), "--port", str(port))
        assert line == f"osmn web: error: --port: {port} is in use; give another one, or 0 for any free one"
    assert "expected 0 to 65535" in run(capsys, "--preset", str(network), "--port", "65536")


def test_command_serves_until_interrupted(site: Path, network: Path) -> None:
    # What a script runs in the background ignores interrupts, and so do its processes.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys; from pathlib import Path; from osmn_tf.web import server; from osmn_tf.cli.main import main; "
        "server.SITE = Path(sys.argv[1]); sys.exit(main(['web', '--no-open', '--preset', sys.argv[2]]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, site, network], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://localhost:\d+/", line)
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=120) as response:
            assert b"page" in response.read()
        time.sleep(0.1)
        process.send_signal(2)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()
