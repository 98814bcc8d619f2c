"""The benchmark of a training step, as far as it goes without torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinart.benchmarks import train_step


def test_a_training_step_needs_the_peer_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", "x", "--annotations", "x", "--torchvision", str(tmp_path / "peers")]
    assert train_step.main(arguments) == 3
    assert "pip install --no-deps --target" in capsys.readouterr().err
