"""`Detector` on an engine, above all its streams, on recording doubles rather than a GPU."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import PLAN, FakeTensorRT, engine_info

from recording_gpu import RecordingCuda
from retinart.engine.cuda.devices import Gpu
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.media.sources import Sources
from retinart.engine.tensorrt import runner as tensorrt_runner
from retinart.engine.tensorrt.engine_file import engine_json
from retinart.verify.checks import Subject, streams
from retinart.verify.judge import same
from support import count_frames, make_picture, write_images


@pytest.fixture
def cuda() -> RecordingCuda:
    return RecordingCuda()


@pytest.fixture
def engine(
    model_path: Path, tmp_path: Path, cuda: RecordingCuda, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An engine file that a detector runs on doubles."""
    path = tmp_path / "model.engine"
    path.write_bytes(PLAN)
    engine_json(path).write_text(engine_info(model_path).to_json())
    gpu = Gpu(index=0, name="a double", compute_capability="8.9", cuda="13.0")
    monkeypatch.setattr(tensorrt_runner, "find_gpus", lambda: [gpu])
    monkeypatch.setattr(tensorrt_runner, "load_tensorrt", lambda _: FakeTensorRT(model_path, cuda))
    monkeypatch.setattr(tensorrt_runner, "open_gpu", lambda index: cuda)
    return path


def test_a_detector_of_an_engine(
    engine: Path, model_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Detector(engine) as detect, Detector(model_path, runtime="onnxruntime") as reference:
        assert detect.runtime == "tensorrt"
        images = [make_picture(i, 100 + i, 150) for i in range(3)]
        assert all(same(a, b) for a, b in zip(reference(images), detect(images), strict=True))
        assert same(reference(images[0]), detect(images[0])) and detect([]) == []
        pairs = list(zip(reference.stream(video), detect.stream(video), strict=True))
        assert len(pairs) == count_frames(video) == 10
        for (a, want), (b, found) in pairs:
            assert np.array_equal(a.image, b.image) and same(want, found)
    with pytest.raises(BadInput, match="is closed"):
        detect(images[0])
    # each detector opens the GPU for itself, and the one above has closed it
    monkeypatch.setattr(tensorrt_runner, "open_gpu", lambda index: RecordingCuda())
    for settings, message in (
        ({"runtime": "openvino"}, "is an engine"),
        ({"device": "GPU.x"}, "runs on no device"),
        ({"device": "cuda:7"}, "there is no GPU 7"),
        ({"conf": 0.001}, "cannot be made looser"),
        ({"contexts": 0}, "`contexts` is 0"),
    ):
        with pytest.raises(BadInput, match=message):
            Detector(engine, **settings)
    with pytest.raises(BadInput, match="resized on the CPU"):
        Detector(model_path, gpu_resize=True)


@pytest.mark.parametrize("gpu_resize", [False, True])
def test_a_stream_starts_a_frame_before_the_last_one_is_done(
    engine: Path, cuda: RecordingCuda, video: Path, gpu_resize: bool
) -> None:
    """The GPU takes as long for each frame as it takes to be given the next one."""
    total, waits = count_frames(video), iter(range(1, 1000))

    def given() -> int:
        return cuda.count("execute") + cuda.count("launch") // 2  # of execute and download

    def at_work() -> None:
        wanted, deadline = min(next(waits) + 1, total), time.monotonic() + 60
        while given() < wanted:
            assert time.monotonic() < deadline, "the next frame was not started meanwhile"
            time.sleep(0.001)

    with Detector(engine, gpu_resize=gpu_resize) as detect:
        cuda.at_work = at_work
        found = list(detect.stream(video))
        cuda.at_work = lambda: None
        assert [frame.index for frame, _ in found] == list(range(total))
        assert all(same(detect(frame.image), one) for frame, one in found)
    uploads = [entry for entry in cuda.log if entry in ("upload", "wait")]
    assert uploads[:3] == ["upload", "upload", "wait"]
    assert (cuda.count("kernel") > 0) is gpu_resize


def test_a_live_stream_has_one_under_way(
    engine: Path, cuda: RecordingCuda, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that waited for the GPU would be older than the newest one."""
    monkeypatch.setattr(Sources, "live", property(lambda self: True))
    cuda.at_work = lambda: time.sleep(0.05)  # long enough for another to be started
    with Detector(engine) as detect:
        assert sum(1 for _ in detect.stream(video)) == count_frames(video)
    steps = [entry for entry in cuda.log if entry in ("upload", "wait")]
    assert steps == ["upload", "wait"] * (len(steps) // 2)


def test_the_check_of_streams_on_a_gpu(
    engine: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs; its rates here mean nothing."""
    gpus: list[RecordingCuda] = []

    def load(_: str) -> FakeTensorRT:
        gpus.append(RecordingCuda())
        return FakeTensorRT(model_path, gpus[-1])

    monkeypatch.setattr(tensorrt_runner, "load_tensorrt", load)
    monkeypatch.setattr(tensorrt_runner, "open_gpu", lambda index: gpus[-1])
    image = write_images(tmp_path, "a.png") / "a.png"
    figures = streams(Subject(engine=engine, images=(image,)), frames=5)
    assert len(figures) == 5 and min(figures.values()) > 0
    assert [gpu.count("kernel") > 0 for gpu in gpus] == [False, True] * 2
    assert all(gpu.closed for gpu in gpus)


def test_calls_within_a_stream(engine: Path, video: Path) -> None:
    """What the stream has under way does not keep the lanes from its own reader."""
    with Detector(engine, contexts=1) as detect:
        for frame, found in detect.stream(video):
            assert same(detect(frame.image), found)


def test_a_stream_that_is_left(engine: Path, video: Path) -> None:
    with Detector(engine) as detect:
        stream = detect.stream(video)
        next(stream)
        del stream
        gc.collect()
        assert len(detect(make_picture(0))) > 0
