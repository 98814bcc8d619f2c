"""Results to Kafka: a message a line, its key the source, so that a source keeps its order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from retinart.engine.common.packages import import_package
from retinart.engine.sinks.sink import Line, SinkFailed

_TIMEOUT = 10.0  # seconds


class Kafka:
    """Produces lines, and waits for the brokers' confirmation.

    Args:
        url: kafka://broker:9092,broker2:9092/topic; a query holds further settings of librdkafka,
            such as ?security.protocol=SASL_SSL&sasl.mechanism=PLAIN&sasl.username=...

    Raises:
        MissingDependency: confluent-kafka is not installed.
        ValueError: librdkafka does not know a setting.
    """

    def __init__(self, url: str) -> None:
        kafka = import_package(
            "confluent_kafka",
            package="confluent-kafka",
            extra="kafka",
            purpose="a sink kafka://",
            fix="Install it again",
        )
        parts = urlsplit(url)
        self._topic = parts.path.strip("/")
        quiet = logging.getLogger("retinart.kafka")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        settings = {
            "bootstrap.servers": parts.netloc,
            "message.timeout.ms": int(1000 * _TIMEOUT),
            "enable.idempotence": True,
            "client.id": "retinart",
            **dict(parse_qsl(parts.query)),
        }
        codes = kafka.KafkaError
        self._refusals = (codes.MSG_SIZE_TOO_LARGE, codes.TOPIC_AUTHORIZATION_FAILED)
        self._failure = kafka.KafkaException
        try:
            self._producer: Any = kafka.Producer(settings, logger=quiet)
        except kafka.KafkaException as error:
            raise ValueError(error.args[0].str()) from error

    def send(self, lines: Sequence[Line]) -> None:
        """See `Transport`."""
        errors: dict[int, Any] = dict.fromkeys(range(len(lines)))  # None: not confirmed yet
        for number, line in enumerate(lines):

            def told(error: Any, message: Any, number: int = number) -> None:
                if error is None:
                    errors.pop(number, None)
                else:
                    errors[number] = error

            key = line.source.encode("utf-8", "surrogateescape")
            try:
                self._producer.produce(self._topic, line.text, key=key, on_delivery=told)
            except self._failure as error:
                errors[number] = error.args[0]
            self._producer.poll(0)
        self._producer.flush(_TIMEOUT + 1)
        if not errors:
            return
        self._producer.purge()
        self._producer.flush(0)
        given = [error for error in errors.values() if error is not None]
        left = [n for n, e in sorted(errors.items()) if e is None or e.code() not in self._refusals]
        raise SinkFailed(
            given[0].str().lower() if given else "the brokers did not confirm in time",
            left=[lines[number] for number in left],
            refused=len(errors) - len(left),
        )

    def close(self) -> None:
        """See `Transport`."""
        self._producer.purge()
