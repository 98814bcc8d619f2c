"""Results by HTTP, from the sink alone and from a job."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from retinart.engine.sinks.sink import Line, SinkFailed
from retinart.engine.sinks.webhook import Webhook

Command = Callable[..., CompletedProcess[str]]
LINE = Line("{}")


class _Server(ThreadingHTTPServer):
    status = 200
    got: list[tuple[str, str, str]]  # path, Authorization, body


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.got.append((self.path, self.headers.get("Authorization", ""), body))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.got = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_post(server: _Server) -> None:
    url = f"http://me:p%40ss@127.0.0.1:{server.server_address[1]}/hook?token=T"
    Webhook(url).send([Line('{"a": 1}'), Line('{"b": 2}')])
    assert server.got == [("/hook?token=T", "Basic bWU6cEBzcw==", '{"a": 1}\n{"b": 2}\n')]


@pytest.mark.parametrize(
    ("status", "again"), [(302, False), (400, False), (429, True), (500, True), (503, True)]
)
def test_answers(server: _Server, status: int, again: bool) -> None:
    server.status = status
    with pytest.raises(SinkFailed, match=f"it answered {status}") as caught:
        Webhook(f"http://127.0.0.1:{server.server_address[1]}/").send([LINE])
    assert len(server.got) == 1
    assert (caught.value.left, caught.value.refused) == (([LINE], 0) if again else ((), 1))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SinkFailed, match="connection refused") as caught:
        Webhook(f"http://127.0.0.1:{port}/").send([LINE])
    assert caught.value.left == [LINE]


def test_a_job_sends_its_lines(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, server: _Server
) -> None:
    url = f"http://me:secret@127.0.0.1:{server.server_address[1]}/hook?token=secret"
    out = tmp_path / "out"
    more = ["--out", out, "--no-copies", "--sink", url, "--strict"]
    ran = retinart("detect", model_path, images, *more)
    assert ran.returncode == 0, ran.stderr
    sent = [json.loads(line) for _, _, body in server.got for line in body.splitlines()]
    written = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    assert sent == written and len(sent) > 1
    (counts,) = json.loads((out / "summary.json").read_text())["sinks"]
    assert (counts["sent"], counts["dropped"]) == (len(sent), 0)
    told = ran.stderr + (out / "summary.json").read_text()
    assert "secret" not in told and f"{len(sent)} results sent" in told


def test_a_job_whose_sink_refuses(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, server: _Server
) -> None:
    server.status = 410
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    more = ["--out", tmp_path / "out", "--no-copies", "--sink", url, "--strict"]
    ran = retinart("detect", model_path, images, *more)
    assert ran.returncode == 1 and "dropped: it answered 410" in ran.stderr
    ran = retinart("detect", model_path, images, "--sink", "mqtt://host")
    assert ran.returncode == 2 and "'mqtt://host' names no topic" in ran.stderr
