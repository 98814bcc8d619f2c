"""Where a page is served, and which requests are answered."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field

from retinart.engine.errors import BadInput

DEFAULT = "127.0.0.1:8765"


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address to serve at.

    Attributes:
        host: an IP address or a name.
        port: 0 takes a free one.
        token: what a request has to bring along; "" on the loopback interface, where none is asked.
    """

    host: str
    port: int
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """`127.0.0.1:8765`, `[::1]:8765` or `name:8765`. All but loopback get a new token.

        Raises:
            BadInput: it is none of these.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not (colon and host and port.isdecimal() and int(port) < 65536):
            raise BadInput(
                f"{text!r} is not an address with a port",
                why="ports go up to 65535" if host and port.isdecimal() else "",
                fix=f"Give one such as {DEFAULT}, or 0.0.0.0:8765 for all networks",
            )
        return cls(
            host=host, port=int(port), token="" if _loopback(host) else secrets.token_urlsafe(16)
        )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return _loopback(self.host)

    def allows_host(self, header: str) -> bool:
        """Whether the page may be asked for under the name of a request's Host header.

        A web site that lets its own name lead here (DNS rebinding) could read the page otherwise.
        """
        name = header.rpartition(":")[0] if not header.endswith("]") else header
        name = (name or header).strip("[]").lower()
        if _loopback(name):
            return True
        if _loopback(self.host):
            return False
        return _is_ip(name) or name in (self.host.lower(), socket.gethostname().lower())

    def allows_token(self, given: str) -> bool:
        """Whether a request's token is the right one."""
        return not self.token or hmac.compare_digest(given.encode(), self.token.encode())

    def link(self, port: int) -> str:
        """The address that a browser opens.

        Args:
            port: that was taken.
        """
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}/" + (f"?token={self.token}" if self.token else "")


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _loopback(name: str) -> bool:
    return name == "localhost" or (_is_ip(name) and ipaddress.ip_address(name).is_loopback)
