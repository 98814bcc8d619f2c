"""Results to Kafka, on librdkafka's own mock cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from retinart.engine.sinks import kafka as module
from retinart.engine.sinks.kafka import Kafka
from retinart.engine.sinks.sink import Line, SinkFailed

confluent = pytest.importorskip("confluent_kafka")


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a broker that lives in this process."""
    owner = confluent.Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1})
    (broker,) = owner.list_topics(timeout=60).brokers.values()
    yield f"{broker.host}:{broker.port}"
    del owner


def _read(cluster: str, topic: str, count: int) -> list[Any]:
    settings = {"bootstrap.servers": cluster, "group.id": "g", "auto.offset.reset": "earliest"}
    consumer = confluent.Consumer(settings)
    consumer.subscribe([topic])
    got, until = list[Any](), time.monotonic() + 60
    while len(got) < count and time.monotonic() < until:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            got.append(
                (message.key().decode("utf-8", "surrogateescape"), json.loads(message.value()))
            )
    consumer.close()
    return got


def test_lines_arrive_with_their_source_as_key(cluster: str) -> None:
    source = "rtsp://\udce4"  # a file's name need not be UTF-8
    lines = [Line(json.dumps({"frame": n}), source) for n in range(5)]
    sink = Kafka(f"kafka://{cluster}/results")
    sink.send(lines)
    sink.close()
    assert _read(cluster, "results", 5) == [(source, {"frame": n}) for n in range(5)]


def test_no_broker_answers(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.3)
    sink = Kafka("kafka://127.0.0.1:1/results")
    with pytest.raises(SinkFailed) as caught:
        sink.send([Line("1"), Line("2")])
    assert caught.value.left == [Line("1"), Line("2")]
    sink.close()
    assert capfd.readouterr() == ("", "")


def test_a_message_that_is_too_large(cluster: str) -> None:
    sink = Kafka(f"kafka://{cluster}/results?message.max.bytes=1000")
    with pytest.raises(SinkFailed, match="too large") as caught:
        sink.send([Line("x" * 2000), Line("small")])
    assert (caught.value.left, caught.value.refused) == ([], 1)
    sink.close()
