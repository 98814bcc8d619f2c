"""Results by MQTT: a message a line, confirmed by the broker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from retinart.engine.common.packages import import_package
from retinart.engine.sinks.sink import Line, SinkFailed

_TIMEOUT = 10.0  # seconds


class Mqtt:
    """Publishes lines with quality of service 1.

    Args:
        url: mqtt://host/topic or mqtts://user:password@host:8883/topic/below.

    Raises:
        MissingDependency: paho-mqtt is not installed.
    """

    def __init__(self, url: str) -> None:
        paho = import_package(
            "paho.mqtt.client",
            package="paho-mqtt",
            extra="mqtt",
            purpose="a sink mqtt://",
            fix="Install it again",
        )
        parts = urlsplit(url)
        self._topic = unquote(parts.path.lstrip("/"))
        secure = parts.scheme == "mqtts"
        self._host, self._port = parts.hostname, parts.port or (8883 if secure else 1883)
        self._client: Any = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.connect_timeout = _TIMEOUT
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if secure:
            self._client.tls_set()
        self._refusals: list[str] = []
        self._client.user_data_set(self._refusals)
        self._client.on_connect = _note_refusal

    def send(self, lines: Sequence[Line]) -> None:
        """See `Transport`."""
        self._connect(lines)
        given = [self._client.publish(self._topic, line.text, qos=1) for line in lines]
        until = time.monotonic() + _TIMEOUT
        for number, message in enumerate(given):
            try:
                message.wait_for_publish(max(0.01, until - time.monotonic()))
                confirmed = message.is_published()
            except (ValueError, RuntimeError):  # it was not taken: no connection, or a full queue
                confirmed = False
            if not confirmed:
                self.close()
                raise SinkFailed("the broker did not confirm in time", left=lines[number:])

    def _connect(self, lines: Sequence[Line]) -> None:
        if self._client.is_connected():
            return
        try:
            self._refusals.clear()
            self._client.connect(self._host, self._port)
            self._client.loop_start()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or str(error)
            raise SinkFailed(why.lower(), left=lines) from error
        until = time.monotonic() + _TIMEOUT
        while not self._client.is_connected() and time.monotonic() < until and not self._refusals:
            time.sleep(0.02)
        if not self._client.is_connected():
            self.close()
            raise SinkFailed(
                self._refusals[0] if self._refusals else "the broker did not answer", left=lines
            )

    def close(self) -> None:
        """See `Transport`."""
        self._client.disconnect()
        self._client.loop_stop()
        if (connection := self._client.socket()) is not None:  # that a stopped loop left open
            connection.close()


def _note_refusal(client: Any, refusals: list[str], flags: Any, reason: Any, more: Any) -> None:
    if reason.is_failure:
        refusals.append(f"the broker refused: {str(reason).lower()}")
