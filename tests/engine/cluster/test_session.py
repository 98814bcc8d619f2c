"""Addresses at which no Ray answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from retinart.engine.cluster.session import AUTH_MODE, check_answers, ray_session
from retinart.engine.errors import BadInput

grpc: Any = pytest.importorskip("grpc", reason="grpcio is not installed")


@pytest.fixture
def strict() -> Iterator[str]:
    """The address of a gRPC server that answers as a head node without the right token."""

    def refuse(request: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")

    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"CheckAlive": grpc.unary_unary_rpc_method_handler(refuse)}
    service = "ray.rpc.NodeInfoGcsService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_nothing_listens_there() -> None:
    with socket.socket() as taken:  # bound, and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"no Ray answers at {address}: Connection refused"):
            check_answers(address)


def test_what_listens_there_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(BadInput, match=r"nothing there spoke its protocol within 0\.2 s"):
            check_answers(address, seconds=0.2)


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265", "head"])
def test_other_addresses(address: str) -> None:
    with pytest.raises(BadInput, match=r"not (the address of a head node|an address with a port)"):
        check_answers(address)


def test_the_variable_names_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(BadInput, match="'nowhere' is not an address"), ray_session():
        pass


def test_a_token_is_asked_for(strict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: a minute of Ray's warnings, and then "failed to connect"."""
    monkeypatch.delenv(AUTH_MODE, raising=False)
    with pytest.raises(BadInput, match=rf"{strict} wants a token\. Set RAY_AUTH_MODE=token, and"):
        check_answers(strict)
    monkeypatch.setenv(AUTH_MODE, "token")
    check_answers(strict)  # Ray sends its token itself


def test_a_ray_of_its_own_writes_no_token_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    tokens = list[str | None]()
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: tokens.append(os.environ.get("RAY_AUTH_TOKEN")))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    with ray_session():
        pass
    assert tokens[0] and tokens == [os.environ["RAY_AUTH_TOKEN"]]
