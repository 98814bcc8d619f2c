"""What counts as a hang."""

from __future__ import annotations

import time

import pytest

from fuzz import children


def _compute() -> None:
    while True:
        pass


def test_computing_for_too_long_is_a_hang() -> None:
    assert children.run(_compute, seconds=1).kind == "hang"


def test_waiting_for_the_cpu_is_none() -> None:
    """Other programs make a child wait; it has not computed for so long."""
    assert children.run(lambda: time.sleep(1.2), seconds=1).kind == "0"


def test_waiting_for_ever_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_WAITS", 1)
    assert children.run(lambda: time.sleep(60), seconds=1).kind == "hang"
