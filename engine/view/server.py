"""Serve the page with Python's own HTTP server, in threads beside the job."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from retinart.engine.errors import BadInput
from retinart.engine.view.address import Address
from retinart.engine.view.board import Board

_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_MOST_CONNECTIONS = 32
_PATIENCE = 10.0  # seconds for a viewer to send a request, or to take an answer
_WAIT = 1.0  # seconds that a request for news waits for a frame


class ViewServer:
    """A page that shows what is on a board, until `close`.

    Args:
        board: what is shown.
        address: where.

    Attributes:
        link: what a browser opens.

    Raises:
        BadInput: the address cannot be taken.
    """

    def __init__(self, board: Board, address: Address) -> None:
        self._board, self._server = board, _listen(address, board)
        self.link = address.link(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="retinart-view", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Tell viewers that the job has ended, and free the address."""
        self._board.end()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def check_address(address: Address) -> None:
    """See that an address can be taken, before a model is loaded.

    Raises:
        BadInput: it cannot.
    """
    _listen(address, None).server_close()


def _listen(address: Address, board: Board | None) -> _Server:
    try:
        return _Server(address, board)
    except OSError as error:
        raise BadInput(
            f"the page cannot be shown at {address.host}:{address.port}",
            why=(error.strerror or str(error)).lower(),
            fix="Give another address with `view`; port 0 takes a free one",
        ) from error


class _Server(ThreadingHTTPServer):
    """A thread for each connection, up to a limit. A viewer that hangs blocks its own thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64  # of more than 5 at once, the others would wait a second

    def __init__(self, address: Address, board: Board | None) -> None:
        self.address, self.board = address, board
        self._room = threading.Semaphore(_MOST_CONNECTIONS)
        if ":" in address.host:
            self.address_family = socket.AF_INET6
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection if there is room for it."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that went away is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    """Answers the page's requests."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "retinart", ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Send the page, what it has to know, or news."""
        url, board = urlsplit(self.path), self.server.board
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if not self.server.address.allows_host(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This host name is not served here.")
        elif url.path in _PAGE and url.path != "/":
            self._send(*_asset(url.path))
        elif not self.server.address.allows_token(query.get("token", "")):
            self._refuse(HTTPStatus.FORBIDDEN, "Open the whole link that retinart printed.")
        elif url.path == "/":
            self._send(*_asset(url.path))
        elif board is not None and url.path == "/about":
            self._send(json.dumps(board.about).encode(), "application/json")
        elif board is not None and url.path == "/news" and query.get("after", "0").isdecimal():
            news = board.news(int(query.get("after", "0")), _WAIT)
            self._send(news, "application/octet-stream")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: stderr is for the job's progress."""

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True
        self._send(f"{text}\n".encode(), "text/plain; charset=utf-8", status)


def _asset(path: str) -> tuple[bytes, str]:
    name, kind = _PAGE[path]
    return files("retinart.engine.view").joinpath(name).read_bytes(), kind
