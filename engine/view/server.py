"""Serve the page that shows what is on a board."""

from __future__ import annotations

import json
from http import HTTPStatus
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from retinart.engine.common.address import Address
from retinart.engine.common.http_server import Handler, HttpServer
from retinart.engine.view.board import Board

_PAGE = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_WAIT = 1.0  # seconds that a request for news waits for a frame


class ViewServer(HttpServer):
    """A page that shows what is on a board, until `close`.

    Args:
        board: what is shown.
        address: where.

    Raises:
        BadInput: the address cannot be taken.
    """

    def __init__(self, board: Board, address: Address) -> None:
        self.board = board
        super().__init__(address, _Handler, "view")
        self.start()

    @property
    def link(self) -> str:
        """What a browser opens."""
        return self.address.link(self.port)

    def close(self) -> None:
        """Tell viewers that the job has ended, and free the address."""
        self.board.end()
        super().close()


class _Handler(Handler):
    """Answers the page's requests."""

    server: ViewServer

    def do_GET(self) -> None:
        """Send the page, what it has to know, or news."""
        url, board = urlsplit(self.path), self.server.board
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if not self.server.address.allows_host(self.headers.get("Host", "")):
            self.refuse(HTTPStatus.MISDIRECTED_REQUEST, "This host name is not served here.")
        elif url.path in _PAGE and url.path != "/":
            self.send(*_asset(url.path))
        elif not self.server.address.allows_token(query.get("token", "")):
            self.refuse(HTTPStatus.FORBIDDEN, "Open the whole link that retinart printed.")
        elif url.path == "/":
            self.send(*_asset(url.path))
        elif url.path == "/about":
            self.send(json.dumps(board.about).encode(), "application/json")
        elif url.path == "/news" and query.get("after", "0").isdecimal():
            news = board.news(int(query.get("after", "0")), _WAIT)
            self.send(news, "application/octet-stream")
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "There is no such page.")


def _asset(path: str) -> tuple[bytes, str]:
    name, kind = _PAGE[path]
    return files("retinart.engine.view").joinpath(name).read_bytes(), kind
