"""Models that OpenVINO compiled, kept between starts."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from retinart.engine.common.files import sha256
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.runtime.compiled_cache import CompiledCache, _Export
from retinart.engine.runtime.openvino_runner import OpenVINORunner
from support import make_picture


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def detect(model: Path, cache: Path, threads: int = 2) -> Detections:
    with Detector(model, cache_dir=cache, check=False, conf=0.05, threads=threads) as detector:
        return detector(make_picture(3))


@pytest.fixture(scope="module")
def kept_once(
    model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Detections]:
    """A cache in which `model_path` was kept, and what was detected then."""
    cache = tmp_path_factory.mktemp("kept") / "cache"
    return cache, detect(model_path, cache)


@pytest.fixture
def first(kept_once: tuple[Path, Detections], cache: Path) -> Detections:
    """The first start's detections. `cache` is as that start left it."""
    shutil.copytree(kept_once[0], cache)
    return kept_once[1]


def compiled(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.compiled"))


def never(*_: object) -> None:
    raise AssertionError("the file was read and compiled again")


def test_the_second_start_compiles_nothing(
    model_path: Path, cache: Path, first: Detections, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(compiled(cache)) == 1
    monkeypatch.setattr(OpenVINORunner, "_cut", never)
    second = detect(model_path, cache)
    assert len(first) > 0
    assert np.array_equal(first.xyxy, second.xyxy)
    assert np.array_equal(first.confidence, second.confidence)


def test_an_openvino_that_maps_no_files(
    model_path: Path, cache: Path, first: Detections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("openvino.tensor_from_file")
    monkeypatch.setattr(OpenVINORunner, "_cut", never)
    assert np.array_equal(detect(model_path, cache).xyxy, first.xyxy)


@pytest.mark.parametrize("damage", ["cut", "changed", "no sum", "sum of other bytes"])
def test_a_damaged_model_is_compiled_again(
    model_path: Path, cache: Path, first: Detections, damage: str
) -> None:
    (kept,) = compiled(cache)
    blob, sums = kept.read_bytes(), kept.with_suffix(".sha256")
    if damage == "cut":
        kept.write_bytes(blob[: len(blob) // 3])
    elif damage == "changed":
        kept.write_bytes(blob[:-9] + b"123456789")
    elif damage == "no sum":
        sums.unlink()
    else:
        sums.write_bytes(b"\xff\xfe")
    assert np.array_equal(detect(model_path, cache).xyxy, first.xyxy)
    assert kept.stat().st_size > len(blob) / 2 and sums.read_text() == sha256(kept)


def test_a_blob_that_openvino_refuses_is_compiled_again(
    model_path: Path, cache: Path, first: Detections
) -> None:
    """As after another build of OpenVINO with the same version."""
    (kept,) = compiled(cache)
    kept.write_bytes(b"not a model")
    kept.with_suffix(".sha256").write_text(sha256(kept))
    assert np.array_equal(detect(model_path, cache).xyxy, first.xyxy)
    assert kept.stat().st_size > 100_000


def test_what_changes_the_model_changes_the_key(
    model_path: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect(model_path, cache, threads=1)
    detect(model_path, cache, threads=2)
    assert len(compiled(cache)) == 2
    other = tmp_path / "other.onnx"
    other.write_bytes(model_path.read_bytes())
    detect(other, cache, threads=1)  # the same content
    assert len(compiled(cache)) == 2
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    detect(other, cache, threads=1)
    assert len(compiled(cache)) == 3


def test_the_folder_stays_below_its_limit(model_path: Path, tmp_path: Path) -> None:
    """The model that was not used for longest goes; one as large as half the limit is not kept."""

    class Compiled:
        def __init__(self, size: int) -> None:
            self.size = size

        def export_model(self, stream: BinaryIO) -> None:
            stream.write(bytes(self.size))

    cache = CompiledCache(tmp_path, model_path, "how", largest=1000)
    for number in range(3):
        cache.put(number, Compiled(300))
        for kept in compiled(tmp_path):
            os.utime(kept, (kept.stat().st_atime, kept.stat().st_mtime - 10))
    assert cache.get(0, lambda tensor: True)  # now it is the most recent
    cache.put(3, Compiled(300))
    assert [bool(cache.get(n, lambda tensor: True)) for n in range(4)] == [True, False, True, True]
    cache.put(4, Compiled(501))
    assert cache.get(4, lambda tensor: True) is None
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null"])
def test_a_cache_that_cannot_be_written_stops_nothing(model_path: Path, place: str) -> None:
    assert len(detect(model_path, Path(place))) > 0


def test_a_full_disk_stops_nothing(
    model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the middle of OpenVINO's writing would end the process."""

    name = "retinart.engine.runtime.compiled_cache._Export"
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(name, lambda file, most: _Export(full, most))
        assert len(detect(model_path, cache)) > 0
    assert not list(cache.glob("*"))


def test_a_batch_under_way_outlives_its_detector(
    model_path: Path, cache: Path, first: Detections
) -> None:
    """Its weights are mapped from the kept file, which is gone by then, too."""
    clock = StageClock()
    for _ in range(2):
        detector = Detector(model_path, cache_dir=cache, check=False, conf=0.05, threads=2)
        pending: Any = detector.runner.prepare([make_picture(3)]).submit(clock)
        shutil.rmtree(cache)
        detector.close()
        del detector
        gc.collect()
        assert np.array_equal(pending.result()[0].xyxy, first.xyxy)
        pending = None


def test_a_mapping_goes_with_its_model(
    model_path: Path, cache: Path, first: Detections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every load of a model that had made way for other batch sizes left a mapping behind."""
    monkeypatch.setattr("retinart.engine.runtime.openvino_runner._BATCH_SIZES", 0)
    with Detector(model_path, cache_dir=cache, check=False, conf=0.05, threads=2) as detector:
        for _ in range(3):
            assert np.array_equal(detector(make_picture(3)).xyxy, first.xyxy)
        pending: Any = detector.runner.prepare([make_picture(3)]).submit(StageClock())
        gc.collect()
        assert mappings(cache) == 1  # of the batch under way
        assert np.array_equal(pending.result()[0].xyxy, first.xyxy)
        pending = None
        gc.collect()
        assert mappings(cache) == 0


def mappings(cache: Path) -> int:
    """How often this process maps files of a cache."""
    return Path("/proc/self/maps").read_text("utf-8").count(str(cache))


def test_larger_batches_are_not_kept(model_path: Path, cache: Path) -> None:
    with Detector(model_path, cache_dir=cache, check=False) as detector:
        detector([make_picture(3)] * 2)
    assert len(compiled(cache)) == 1


def test_no_cache_writes_nothing(
    model_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with Detector(model_path, check=False, cache=False) as detector:
        detector(make_picture(3))
    assert not list(cache.rglob("*.compiled"))
    with Detector(model_path, check=False) as detector:
        detector(make_picture(3))
    assert len(list(cache.rglob("retinart/compiled/*.compiled"))) == 1
