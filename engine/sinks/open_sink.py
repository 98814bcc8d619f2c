"""A sink from its address."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from retinart.engine.errors import BadInput
from retinart.engine.media.address import shown_address
from retinart.engine.sinks.kafka import Kafka
from retinart.engine.sinks.mqtt import Mqtt
from retinart.engine.sinks.sink import Sink, Transport
from retinart.engine.sinks.webhook import Webhook

_KINDS: dict[str, Callable[[str], Transport]] = {
    "http": Webhook,
    "https": Webhook,
    "mqtt": Mqtt,
    "mqtts": Mqtt,
    "kafka": Kafka,
}
_EXAMPLES = "http://host/path, mqtt://host/topic or kafka://host:9092/topic"


def open_transport(url: str) -> Transport:
    """How to send to an address. Nothing is sent yet.

    Raises:
        BadInput: the address is not one of a sink.
        MissingDependency: it needs a package that is not installed.
    """
    shown = shown_address(url)
    try:
        parts = urlsplit(url)
        kind = _KINDS.get(parts.scheme)
        if kind is None or not parts.netloc:
            raise BadInput(f"{shown!r} is not the address of a sink", fix=f"Give {_EXAMPLES}")
        if kind is not Webhook and not parts.path.strip("/"):
            raise BadInput(f"{shown!r} names no topic", fix=f"Give {_EXAMPLES}")
        if kind is not Kafka:
            parts.port  # noqa: B018 - it raises where this is no number
        return kind(url)
    except ValueError as error:
        raise BadInput(
            f"{shown!r} is not the address of a sink", why=str(error), fix=f"Give {_EXAMPLES}"
        ) from error


def open_sink(url: str, say: Callable[[str], None]) -> Sink:
    """A sink that sends to an address.

    Args:
        url: http://, https://, mqtt://, mqtts:// or kafka://.
        say: told when it fails and when it is back.

    Raises:
        BadInput, MissingDependency: see `open_transport`.
    """
    return Sink(shown_address(url), open_transport(url), say)
