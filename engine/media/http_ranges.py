"""Whether an HTTP server sends parts of a file, as FFmpeg needs them to jump in it."""

from __future__ import annotations

import base64
import http.client
import urllib.request
from urllib.parse import unquote, urlsplit

WHY = "its index stands at its end, and the server does not send parts of a file (HTTP ranges)"
FIX = (
    "Download it first, or write its index first with ffmpeg -i IN -c copy -movflags faststart OUT"
)
_JUMPING = "mov"  # begins the name of FFmpeg's format whose index may stand behind the frames


def is_out_of_reach(address: str, format: str, timeout: float) -> bool:
    """Whether a file of which no frame arrives lacks them because its server sends no parts.

    Args:
        address: of the file.
        format: FFmpeg's name of its container.
        timeout: seconds to wait for the server.
    """
    return format.startswith(_JUMPING) and _sends_parts(address, timeout) is False


def _sends_parts(address: str, timeout: float) -> bool | None:
    """Whether a server answers a request for the first byte with that byte; None if unknown."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return None
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())
    request.add_header("Range", "bytes=0-0")
    if user:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return bool(answer.status == http.client.PARTIAL_CONTENT)
    except (OSError, ValueError, http.client.HTTPException):  # URLError is an OSError
        return None
