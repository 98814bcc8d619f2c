"""Addresses of network sources, as they may be shown, logged and written."""

from __future__ import annotations

import re

_PARTS = re.compile(r"(?P<host>[^/?#]*)(?P<path>[^?#]*)(?P<query>.*)", re.DOTALL)
_SCHEMES = r"(?:https?|rtsps?|rtmp|rtp|udp|tcp|srt|mqtts?|kafka):"
_NETWORK = re.compile(rf"{_SCHEMES}(?!//).*@", re.IGNORECASE | re.DOTALL)
_IN_TEXT = re.compile(
    rf"[A-Za-z][\w+.-]*://[^\s'\"]+|\b{_SCHEMES}[^\s'\"]*@[^\s'\"]+", re.IGNORECASE
)
_NAME = re.compile(r"[\w.\[\]-]+")
_HOST_ALONE = re.compile(r"[^:@]*(:\d+)?|\[[^]]*\](:\d+)?")


def shown_address(address: str) -> str:
    """An address without what may be a secret: user name, password, and the values of its query.

    A name or a password may hold any character, also / and ?, which end the host's part. So where
    that part may be the beginning of one, everything before the last @ is left out.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:  # a slash may have been forgotten; a file's name has no reason to look like this
        scheme, _, rest = address.partition(":")
        return f"{scheme}:…@{rest.rpartition('@')[2]}" if _NETWORK.match(address) else address
    parts = _PARTS.fullmatch(rest)
    assert parts is not None  # it matches every text
    host, path, query = parts.group("host", "path", "query")
    user, _, alone = host.rpartition("@")
    goes_on_in_path = "@" in path and (user or ":" in host or ":" in path.rpartition("@")[0])
    goes_on_in_query = "@" in query and (
        not _HOST_ALONE.fullmatch(alone) or (":" in host and not user and not path)
    )
    if goes_on_in_path or goes_on_in_query:
        path, mark, query = rest.rpartition("@")[2].partition("?")
        return f"{scheme}://…@{path}{_hidden(mark + query)}"
    return f"{scheme}://{alone}{path}{_hidden(query)}"


def without_secrets(text: str) -> str:
    """A message with each address in it as `shown_address` shows it."""
    return _IN_TEXT.sub(lambda found: shown_address(found[0]), text)


def _hidden(query: str) -> str:
    """A query with its names alone: ?token=…&size=…"""
    if not query:
        return ""
    pairs = (part.partition("=") for part in re.split("[&;#]", query[1:]))
    return query[0] + "&".join(
        f"{name}=…" if equals and _NAME.fullmatch(name) else "…" for name, equals, _ in pairs
    )
