"""Results by HTTP: a POST of JSON lines."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from retinart.engine.media.address import without_secrets
from retinart.engine.sinks.sink import Line, SinkFailed

_TIMEOUT = 10.0  # seconds
_LATER = (408, 425, 429)  # answers of the kind 4xx that ask for another attempt


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET without results."""

    def redirect_request(self, *given: object) -> None:
        """Follow none: the answer counts as it is."""


_OPENER = urllib.request.build_opener(_NoRedirects)


class Webhook:
    """POSTs lines as `application/x-ndjson`; every answer of the kind 2xx confirms them.

    Args:
        url: http:// or https://; a user name and a password in it go into the Authorization header.
    """

    def __init__(self, url: str) -> None:
        parts: SplitResult = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        self._url = parts._replace(netloc=host).geturl()
        self._headers = {"Content-Type": "application/x-ndjson", "User-Agent": "retinart"}
        if at:
            token = base64.b64encode(unquote(user).encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"

    def send(self, lines: Sequence[Line]) -> None:
        """See `Transport`."""
        data = "".join(f"{line.text}\n" for line in lines).encode("utf-8", "replace")
        request = urllib.request.Request(self._url, data, self._headers, method="POST")
        try:
            with _OPENER.open(request, timeout=_TIMEOUT) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            error.close()
            why = f"it answered {error.code}"
            if error.code < 500 and error.code not in _LATER:
                raise SinkFailed(why, refused=len(lines)) from error
            raise SinkFailed(why, left=lines) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise SinkFailed(without_secrets(why).lower(), left=lines) from error

    def close(self) -> None:
        """See `Transport`."""
