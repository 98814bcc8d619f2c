"""Results by MQTT, on a broker that speaks just what a publisher needs (MQTT 3.1.1)."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

import pytest

from retinart.engine.sinks import mqtt as module
from retinart.engine.sinks.mqtt import Mqtt
from retinart.engine.sinks.sink import Line, SinkFailed

pytest.importorskip("paho.mqtt.client")
CONNECT, PUBLISH, PING, DISCONNECT = 1, 3, 12, 14


class _Broker(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    answer, confirms = 0, True
    got: list[tuple[str, str]]


class _Client(socketserver.BaseRequestHandler):
    server: _Broker

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.request.recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data

    def handle(self) -> None:
        """Read packets until the client goes: a type, a length in groups of 7 bits, a body."""
        try:
            while True:
                kind, length, shift = self._read(1)[0], 0, 0
                while (byte := self._read(1)[0]) & 128:
                    length, shift = length | (byte & 127) << shift, shift + 7
                body = self._read(length | byte << shift)
                if kind >> 4 == CONNECT:
                    self.request.sendall(bytes([0x20, 2, 0, self.server.answer]))
                elif kind >> 4 == PUBLISH:
                    (size,) = struct.unpack(">H", body[:2])
                    number, text = body[2 + size : 4 + size], body[4 + size :]
                    self.server.got.append((body[2 : 2 + size].decode(), text.decode()))
                    if self.server.confirms:
                        self.request.sendall(bytes([0x40, 2]) + number)
                elif kind >> 4 == PING:
                    self.request.sendall(bytes([0xD0, 0]))
                elif kind >> 4 == DISCONNECT:
                    return
        except (ConnectionError, OSError):
            return


@pytest.fixture
def broker() -> Iterator[_Broker]:
    with _Broker(("127.0.0.1", 0), _Client) as broker:
        broker.got = []
        threading.Thread(target=broker.serve_forever, daemon=True).start()
        yield broker
        broker.shutdown()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 2.0)


def test_lines_are_published_and_confirmed(broker: _Broker) -> None:
    sink = Mqtt(f"mqtt://127.0.0.1:{broker.server_address[1]}/cams/a%20b")
    sink.send([Line("1"), Line("2")])
    sink.send([Line("3")])
    sink.close()
    assert broker.got == [("cams/a b", "1"), ("cams/a b", "2"), ("cams/a b", "3")]


def test_a_broker_that_refuses_stalls_or_is_not_there(broker: _Broker) -> None:
    url = f"mqtt://me:wrong@127.0.0.1:{broker.server_address[1]}/x"
    broker.answer = 5
    with pytest.raises(SinkFailed, match="the broker refused: not authorized"):
        Mqtt(url).send([Line("1")])
    broker.answer, broker.confirms = 0, False
    with pytest.raises(SinkFailed, match="did not confirm in time") as caught:
        Mqtt(url).send([Line("1"), Line("2")])
    assert caught.value.left == [Line("1"), Line("2")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SinkFailed, match="refused"):
        Mqtt(f"mqtt://127.0.0.1:{port}/x").send([Line("1")])
