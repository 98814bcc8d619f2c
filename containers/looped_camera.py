"""A camera's stand-in: a video in a loop at its own rate, as Motion JPEG over HTTP.

`python looped_camera.py video.mp4 127.0.0.1 8081`, and then `retinart detect ... http://127.0.0.1:8081/`.
It needs OpenCV alone.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2

BOUNDARY = "frame"


class Handler(BaseHTTPRequestHandler):
    """Sends each viewer the video from its beginning, again and again."""

    video = ""

    def do_GET(self) -> None:
        """Send frames until the viewer goes."""
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.end_headers()
        try:
            while True:
                self._play()
        except (BrokenPipeError, ConnectionResetError):
            return

    def _play(self) -> None:
        reader = cv2.VideoCapture(self.video)
        wait, due = 1 / (reader.get(cv2.CAP_PROP_FPS) or 25), time.monotonic()
        while True:
            more, frame = reader.read()
            if not more:
                break
            data = cv2.imencode(".jpg", frame)[1].tobytes()
            head = (
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            )
            self.wfile.write(head.encode() + data + b"\r\n")
            due += wait
            time.sleep(max(0.0, due - time.monotonic()))
        reader.release()

    def log_message(self, format: str, *given: object) -> None:
        """Say nothing of requests."""


def main(video: str, host: str, port: str) -> None:
    """Serve until Ctrl-C."""
    if not cv2.VideoCapture(video).read()[0]:
        sys.exit(f"cannot read {video}")
    Handler.video = video
    with ThreadingHTTPServer((host, int(port)), Handler) as server:
        server.daemon_threads = True
        print(f"http://{host}:{server.server_address[1]}/", file=sys.stderr, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python looped_camera.py VIDEO HOST PORT")
    main(*sys.argv[1:])
