"""What all tests of training share: the plot of a run is left out."""

from __future__ import annotations

import pytest

from retinart.train.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's `curves.png` is empty, because drawing it takes most of a short run's time.

    The test of the plot has it, and so have the runs in processes of their own.
    """
    if request.path.name != "test_run_folder.py":
        empty = lambda folder, rows: (folder.path / "curves.png").touch()  # noqa: E731
        monkeypatch.setattr(RunFolder, "draw_curves", empty)
