"""What all tests of benchmarks share: the machine's limits are measured in a moment."""

from __future__ import annotations

import pytest

from retinart.benchmarks.timing import peaks


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each benchmark measures the peaks twice; no test asks how high they are."""
    monkeypatch.setattr(peaks, "_PRODUCTS", ((256, 256, 256),))
