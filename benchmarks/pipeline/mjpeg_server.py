"""A camera on loopback: an HTTP server that sends JPEG frames as cameras do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MJPEGServer:
    """Sends frames to each client that connects.

        with MJPEGServer(lambda connection: jpegs) as camera:
            detect.stream(camera.url)

    Args:
        frames: called with a connection's number, from 0; an iterator of the bytes of its frames,
            JPEG or broken, that waits as long as a camera would between two of them. The connection
            is closed at its end.

    Attributes:
        sent: frames so far, of all connections.
        connections: so far.
    """

    def __init__(self, frames: Callable[[int], Iterator[bytes]]) -> None:
        self._frames, self.sent, self.connections = frames, 0, 0
        self._lock, self._stopped = threading.Lock(), False
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with suppress(OSError):  # the client went away
                    camera._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/camera.mjpg"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            frames, self.connections = self._frames(self.connections), self.connections + 1
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for data in frames:
            if self._stopped:
                return
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            request.wfile.write(head.encode() + data + b"\r\n")
            with self._lock:
                self.sent += 1

    def __enter__(self) -> MJPEGServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
