"""A camera on loopback: an HTTP server that sends JPEG frames as cameras do, and how one fails."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType

import cv2
import numpy as np

from retinart.engine.media.images import Image

_BOUNDARY = "frame"
_BITS = 24
_HEAD = (
    "HTTP/1.0 200 OK\r\n"
    f"Content-Type: multipart/x-mixed-replace; boundary={_BOUNDARY}\r\n"
    "Connection: close\r\n\r\n"
)


class MJPEGServer:
    """Sends frames to whoever connects.

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
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/camera.mjpg"
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mjpeg-server", daemon=True)

    def __enter__(self) -> MJPEGServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        with suppress(OSError):  # wakes the thread
            socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(5)
        self._listener.close()

    def _run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._stop.is_set():
                connection.close()
                return
            frames, self.connections = self._frames(self.connections), self.connections + 1
            arguments = (connection, frames)
            threading.Thread(target=self._send, args=arguments, daemon=True).start()

    def _send(self, connection: socket.socket, frames: Iterator[bytes]) -> None:
        with connection, suppress(OSError):  # a reader that went away
            connection.recv(65536)
            connection.sendall(_HEAD.encode())
            self._send_frames(connection, frames)

    def _send_frames(self, connection: socket.socket, frames: Iterator[bytes]) -> None:
        for data in frames:
            if self._stop.is_set():
                return
            head = (
                f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            )
            connection.sendall(head.encode() + data + b"\r\n")
            with self._lock:
                self.sent += 1


def numbered_jpeg(number: int, image: Image) -> bytes:
    """A JPEG of a copy of an image, its number written along the top as blocks of 8 pixels."""
    marked = image.copy()
    for bit in range(_BITS):
        marked[:8, 8 * bit : 8 * bit + 8] = 255 * (number >> bit & 1)
    done, data = cv2.imencode(".jpg", marked)
    assert done
    return bytes(data)


def number_of(image: Image) -> int:
    """The number that `numbered_jpeg` wrote."""
    bits = image[2:6, : 8 * _BITS].reshape(4, _BITS, 8, 3)[:, :, 2:6].mean(axis=(0, 2, 3)) > 127
    return int(np.packbits(bits, bitorder="little").astype(np.int64) @ (1, 256, 65536))
