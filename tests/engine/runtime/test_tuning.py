"""Convolutions timed both ways on this machine: once, within seconds, kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retinart.engine.detector import Detector
from retinart.engine.errors import KeptFileWarning
from retinart.engine.runtime import tuning
from retinart.engine.runtime.options import Tune
from retinart.engine.runtime.tuning import ConvolutionTimes, Way, layer
from retinart.engine.runtime.winograd import Times, expected_times
from retinart.engine.runtime.winograd_graph import Sizes
from support import make_picture, run_python

WIDE: Sizes = (256, 256, 76, 100)  # which takes Winograd's algorithm by its sizes
WAYS: tuple[Way, Way] = ("direct", "winograd")
SMALL: Sizes = (8, 8, 16, 12)  # which does not


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where times are kept; each test has its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "retinart" / "convolutions"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Sizes]:
    """The sizes that are measured. Winograd's algorithm takes half the time, it seems."""
    seen = list[Sizes]()

    def measure(sizes: Sizes, threads: int | None) -> Times:
        seen.append(sizes)
        return 2.0, 1.0

    monkeypatch.setattr(tuning, "_measured", measure)
    monkeypatch.setattr(tuning, "_HOPELESS", 1e9)
    return seen


def detect(model: Path, tune: Tune, threads: int = 1) -> object:
    with Detector(model, tune=tune, threads=threads, check=False, cache=False) as detector:
        detector(make_picture(1))
        return detector.runner.identity


def test_each_size_is_measured_once(model_path: Path, measured: list[Sizes], folder: Path) -> None:
    plain = detect(model_path, "off")
    assert not measured and not folder.exists()
    assert detect(model_path, "cached") == plain and not measured
    tuned = detect(model_path, "on")
    assert len(measured) == len(set(measured)) > 3 and tuned != plain
    (file,) = folder.iterdir()
    assert len(json.loads(file.read_text())) == len(measured)
    count = len(measured)
    assert detect(model_path, "on") == tuned and len(measured) == count
    assert detect(model_path, "cached") != plain
    detect(model_path, "on", threads=2)
    assert len(measured) == 2 * count and len(list(folder.iterdir())) == 2


def test_measured_times_decide(folder: Path) -> None:
    folder.mkdir(parents=True)
    times = ConvolutionTimes("cached", 1)
    assert times.of(WIDE) == expected_times(WIDE) and times.of(SMALL) == expected_times(SMALL)
    assert times._path is not None
    times._path.write_text('{"256x256x76x100": [10.0, 9.6], "8x8x16x12": [1.0, 0.25]}')
    times = ConvolutionTimes("cached", 1)
    assert times.of(WIDE) == (10.0, 9.6) and times.of(SMALL) == (1.0, 0.25)
    assert ConvolutionTimes("off", 1).of(WIDE) == expected_times(WIDE)
    assert times.state and ConvolutionTimes("off", 1).state == ""


def test_measuring_ends(
    model_path: Path, measured: list[Sizes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the compiled model is not kept, and the next start measures the rest."""
    monkeypatch.setattr(tuning, "SECONDS", -1.0)
    with Detector(model_path, tune="on", threads=1, check=False):
        assert not measured and not list(folder.parent.rglob("*.compiled"))
    monkeypatch.setattr(tuning, "SECONDS", 60.0)
    for _ in range(2):
        with Detector(model_path, tune="on", threads=1, check=False):
            assert len(set(measured)) == len(measured) > 3
            assert len(list(folder.parent.rglob("*.compiled"))) == 1


def test_a_real_measurement() -> None:
    direct, fast = tuning._measured(SMALL, 1)
    assert 0 < direct < 1000 and 0 < fast < 1000
    x = np.random.default_rng(2).standard_normal((1, 8, 16, 12), np.float32)
    one, other = (layer(SMALL, 1, way).infer({0: x}) for way in WAYS)
    assert np.abs(one[0] - other[0]).max() < 1e-4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[1, 2]", "it holds no times"),
        ('{"1x2x3": [1.0, 2.0]}', "'1x2x3' is not the sizes of a convolution"),
        ('{"1x2x3x4": [1.0, -2.0]}', "the times of 1x2x3x4 are not two positive numbers"),
        ('{"1x2x3x4": [1.0, NaN]}', "which is not a finite number"),
        ('{"1x2x3x4": 1}', "are not two positive numbers"),
    ],
)
def test_a_damaged_file_is_a_warning(text: str, why: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    path = ConvolutionTimes("cached", 1)._path
    assert path is not None
    path.write_text(text)
    with pytest.warns(KeptFileWarning, match="cannot be read") as seen:
        assert ConvolutionTimes("on", 1).of(WIDE) == expected_times(WIDE)
    assert why in str(seen[0].message) and not path.exists()


def test_the_command_line_shows_the_warning_in_a_line(model_path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    path = ConvolutionTimes("cached", 1)._path
    assert path is not None
    path.write_bytes(b"\xff")
    words = ("-m", "retinart", "check", str(model_path), "--threads", "1")
    done = run_python(*words)
    assert done.returncode == 0, done.stderr
    assert f"retinart: the times of convolutions in {path} cannot be read" in done.stderr
    assert "KeptFileWarning" not in done.stderr and not path.exists()
