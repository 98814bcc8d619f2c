"""Python's own HTTP server, in threads beside a job, with a limit on its connections."""

from __future__ import annotations

import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from retinart.engine.common.address import Address
from retinart.engine.errors import BadInput

_MOST_CONNECTIONS = 32
_PATIENCE = 10.0  # seconds for a client to send a request, or to take an answer
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class HttpServer(ThreadingHTTPServer):
    """A thread for each connection, up to a limit. A client that hangs blocks its own thread.

    Args:
        address: where; port 0 takes a free one.
        handler: answers the requests.
        option: that gave the address, for errors.

    Raises:
        BadInput: the address cannot be taken.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64  # of more than 5 at once, the others would wait a second

    def __init__(self, address: Address, handler: type[Handler], option: str) -> None:
        self.address = address
        self._room = threading.Semaphore(_MOST_CONNECTIONS)
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name=f"retinart-{option}", daemon=True
        )
        if ":" in address.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((address.host, address.port), handler)
        except OSError as error:
            raise BadInput(
                f"the address {address.host}:{address.port} cannot be taken",
                why=(error.strerror or str(error)).lower(),
                fix=f"Give another address with `{option}`; port 0 takes a free one",
            ) from error

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Answer requests, until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Answer no more requests, and free the address."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

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
        """A client that went away is nothing to report."""


class Handler(BaseHTTPRequestHandler):
    """Answers requests; a subclass has `do_GET`."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "retinart", ""
    timeout = _PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: stderr is for the job's progress."""

    def send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send an answer of a content type."""
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: HTTPStatus, text: str) -> None:
        """Send a line of text that says why, and end the connection."""
        self.close_connection = True
        self.send(f"{text}\n".encode(), "text/plain; charset=utf-8", status)


def check_address(address: Address, option: str) -> None:
    """See that an address can be taken, before a model is loaded.

    Raises:
        BadInput: it cannot.
    """
    HttpServer(address, Handler, option).close()
