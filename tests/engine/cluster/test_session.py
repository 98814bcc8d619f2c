"""Addresses at which no Ray answers."""

from __future__ import annotations

import socket

import pytest

from retinart.engine.cluster.session import check_answers, ray_session
from retinart.engine.errors import BadInput

pytest.importorskip("grpc", reason="grpcio is not installed")


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
