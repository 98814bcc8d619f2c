"""The engine runtime's order of things, against recording doubles. Nothing here is a GPU test."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recording_gpu import FakeTensorRT, RecordingCuda
from retinart.engine import cuda_pycuda, tensorrt_runner
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.engine_file import EngineInfo, engine_json
from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.gpu import Gpu
from retinart.engine.gpu_resize import resize_like_gpu
from retinart.engine.images import Image
from retinart.engine.info import Thresholds, read_info
from retinart.engine.lane import SHAPES
from retinart.engine.lane_pool import two_at_once
from retinart.engine.runners import ONNXRuntimeRunner
from retinart.engine.tensorrt_runner import TensorRTRunner
from retinart.engine.timing import StageClock
from support import count_frames, make_picture

PLAN = b"a plan"
SIZES = [(96, 128)]  # of which neither runtime makes use


def engine_info(model: Path, batch: int = 4, **changes: Any) -> EngineInfo:
    """What `retinart build` would say of PLAN."""
    info = read_info(model)
    info = dataclasses.replace(info, **changes)
    return EngineInfo(
        model=info,
        runtime="tensorrt",
        version=FakeTensorRT.__version__,
        gpu="a double",
        compute_capability="8.9",
        profile=((1, *info.min_size, 3), (1, *info.max_size, 3), (batch, *info.max_size, 3)),
        nms="native",
        version_compatible=False,
        hardware_compatible=False,
        build_seconds=1.0,
        plan_sha256="55b6ef7bd2fd48a8ed4ea8e5d0dd3b6bca6f6cd8a7ab94eb4c8a0b4b1ab3b4d8",
        onnx_sha256="",
        rebuild="retinart build model.onnx -o model.engine",
    )


class Made:
    """A runner on doubles, and what it should find."""

    def __init__(self, model: Path, *, captures: bool = True, **settings: Any) -> None:
        self.cuda = RecordingCuda(captures=captures)
        self.trt = FakeTensorRT(model, self.cuda)
        self.info = engine_info(model)
        doubles: Any = {"trt": self.trt, "cuda": self.cuda}
        self.runner = TensorRTRunner(PLAN, self.info, **doubles, **settings)
        self.reference = ONNXRuntimeRunner(model, self.info.model, threads=1)
        self.thresholds = self.info.model.thresholds

    def check(self, frames: Image) -> None:
        """See that the runner finds what ONNX Runtime finds."""
        want = self.reference.run(frames, SIZES * len(frames), self.thresholds, StageClock())
        got = self.runner.run(frames, SIZES * len(frames), self.thresholds, StageClock())
        assert all(same(a, b) for a, b in zip(want, got, strict=True))
        assert sum(map(len, want)) > 0


def same(a: Detections, b: Detections) -> bool:
    return (
        np.array_equal(a.xyxy, b.xyxy)
        and np.array_equal(a.confidence, b.confidence)
        and np.array_equal(a.class_id, b.class_id)
    )


def frames(*seeds: int, height: int = 96, width: int = 128) -> Image:
    return np.stack([make_picture(seed, height, width) for seed in seeds])


@pytest.fixture
def made(model_path: Path) -> Iterator[Made]:
    one = Made(model_path)
    yield one
    one.runner.close()


def test_detections_with_and_without_a_graph(made: Made) -> None:
    for seed in range(5):
        made.check(frames(seed))
    # one plain run of each context that was used, then it is captured, then replayed
    assert made.cuda.count("make graph") == 1
    assert (made.cuda.count("execute"), made.cuda.count("launch")) == (1, 4 * 2)


def test_no_memory_is_made_after_the_start(made: Made) -> None:
    made.check(frames(0))
    before = made.cuda.count("make device memory"), made.cuda.count("make host memory")
    for seed in range(10):
        made.check(frames(*range(1 + seed % 2)))
    assert before == (made.cuda.count("make device memory"), made.cuda.count("make host memory"))
    assert before == (2 * 3, 2 * 2)  # two lanes: frames, outputs, scratch; frames, outputs


@pytest.mark.parametrize("graphs", [True, False])
def test_without_graphs(model_path: Path, graphs: bool) -> None:
    made = Made(model_path, captures=False, graphs=graphs)
    for seed in range(4):
        made.check(frames(seed))
    assert made.cuda.count("capture execute") == int(graphs)  # tried once and never again
    assert (made.cuda.count("make graph"), made.cuda.count("execute")) == (0, 4)
    made.runner.close()


def test_batches(made: Made) -> None:
    for n in (1, 3, 1, 3):
        made.check(frames(*range(n)))
    made.check(frames(*range(6)))  # more than the profile takes: in parts of 4 and 2


def test_many_shapes(dynamic_model_path: Path) -> None:
    made = Made(dynamic_model_path, contexts=1)
    shapes = [(96 + 32 * (k % 2), 32 + 32 * (k // 2)) for k in range(SHAPES + 2)]
    for _ in range(2):
        for height, width in shapes:
            for _ in range(2):
                made.check(frames(1, height=height, width=width))
    alive = [kind for kind, _ in made.cuda.alive.values()]
    assert alive.count("execution context") == alive.count("graph") == SHAPES
    made.runner.close()


def test_order_of_release(made: Made) -> None:
    for seed in range(3):
        made.check(frames(seed))
    start = len(made.cuda.log)
    made.runner.close()
    freed = [entry for entry in made.cuda.log[start:] if entry.startswith(("free", "close"))]
    used, other = ["free graph", "free execution context"], list[str]()
    lane = ["free host memory"] * 2 + ["free device memory"] * 3 + ["free stream"]
    assert freed in (
        [*a, *lane, *b, *lane, "free engine", "free runtime", "close context"]
        for a, b in ((used, other), (other, used))
    )
    made.runner.close()  # once is enough, and twice does no harm
    with pytest.raises(BadInput, match="the detector is closed"):
        made.runner.run(frames(0), SIZES, made.thresholds, StageClock())


def test_collected_without_being_closed(model_path: Path) -> None:
    made = Made(model_path)
    made.check(frames(0))
    cuda = made.cuda
    del made
    gc.collect()
    assert cuda.closed and not cuda.alive


def test_eight_threads(model_path: Path) -> None:
    made = Made(model_path, contexts=3)
    batches = [frames(seed) for seed in range(6)]
    want = [made.reference.run(b, SIZES, made.thresholds, StageClock())[0] for b in batches]
    barrier = threading.Barrier(8)

    def work(thread: int) -> bool:
        barrier.wait()
        order = [(thread + i) % 6 for i in range(4)]
        return all(
            same(want[i], made.runner.run(batches[i], SIZES, made.thresholds, StageClock())[0])
            for i in order
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    made.runner.close()


def test_close_waits_for_what_is_under_way(made: Made) -> None:
    finish = made.runner.start([make_picture(1)], made.thresholds)
    assert finish is not None
    made.runner.close()
    assert made.cuda.closed
    with pytest.raises(BadInput, match="the detector is closed"):
        finish()


def test_errors_of_use(made: Made) -> None:
    with pytest.raises(BadInput, match=r"1x96x160x3 is outside.*1x96x128x3 to 4x96x128x3.*build"):
        made.runner.run(frames(0, width=160), SIZES, made.thresholds, StageClock())
    loose = dataclasses.replace(made.thresholds, score_thresh=0.01)
    with pytest.raises(BadInput, match="cannot be made looser"):
        made.runner.run(frames(0), SIZES, loose, StageClock())
    strict = dataclasses.replace(made.thresholds, score_thresh=0.4, detections_per_img=3)
    (found,) = made.runner.run(frames(0), SIZES, strict, StageClock())
    assert len(found) <= 3 and (found.confidence > 0.4).all()


@pytest.mark.parametrize("fail", ["execute", "shape"])
def test_a_failure_gives_the_lane_back(model_path: Path, fail: str) -> None:
    made = Made(model_path, contexts=1)
    made.trt.fail = fail
    for _ in range(3):
        with pytest.raises(RetinartError, match=r"could not run|takes no frames"):
            made.runner.run(frames(0), SIZES, made.thresholds, StageClock())
    made.trt.fail = ""
    made.check(frames(0))
    made.runner.close()


def test_an_engine_that_does_not_load(model_path: Path) -> None:
    for break_it, message in (
        (lambda trt: setattr(trt, "fail", "load"), "cannot load the engine"),
        (lambda trt: trt.names.pop(), "tensors are"),
    ):
        cuda = RecordingCuda()
        trt: Any = FakeTensorRT(model_path, cuda)
        break_it(trt)
        double: Any = cuda
        with pytest.raises(RetinartError, match=message):
            TensorRTRunner(PLAN, engine_info(model_path), trt=trt, cuda=double)
        assert cuda.closed and not cuda.alive


def test_resizing_on_the_gpu(dynamic_model_path: Path) -> None:
    """The same detections as from frames that the kernel's arithmetic made, for many sizes."""
    made = Made(dynamic_model_path, gpu_resize=True, contexts=1)
    rule, found = made.info.model.resize, 0
    for sizes in ([(120, 180)], [(300, 200), (120, 300)], [(60, 80)], [(96, 128)] * 3):
        images = [make_picture(i, *size) for i, size in enumerate(sizes)]
        batch, resized = rule.apply(images)
        for image, one, frame in zip(images, resized, batch, strict=True):
            frame[: one.size[0], : one.size[1]] = resize_like_gpu(image, one.size)
        want = made.reference.run(batch, SIZES * len(batch), made.thresholds, StageClock())
        want = [r.detections_to_source(d) for r, d in zip(resized, want, strict=True)]
        got = made.runner.run_images(images, made.thresholds, StageClock())
        assert all(same(a, b) for a, b in zip(want, got, strict=True))
        found += sum(map(len, want))
    assert found > 20
    made.runner.close()


@pytest.fixture
def engine(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine file that a detector runs on doubles."""
    path = tmp_path / "model.engine"
    path.write_bytes(PLAN)
    import hashlib

    info = dataclasses.replace(
        engine_info(model_path), plan_sha256=hashlib.sha256(PLAN).hexdigest()
    )
    engine_json(path).write_text(info.to_json())
    cuda = RecordingCuda()
    gpu = Gpu(index=0, name="a double", compute_capability="8.9", cuda="13.0")
    monkeypatch.setattr(tensorrt_runner, "find_gpus", lambda: [gpu])
    monkeypatch.setattr(tensorrt_runner, "load_tensorrt", lambda _: FakeTensorRT(model_path, cuda))
    monkeypatch.setattr(cuda_pycuda, "PyCuda", lambda index: cuda)
    return path


def test_a_detector_of_an_engine(engine: Path, model_path: Path, video: Path) -> None:
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
    for settings, message in (
        ({"runtime": "openvino"}, "is an engine"),
        ({"device": "GPU.x"}, "runs on no device"),
        ({"device": "cuda:7"}, "there is no GPU 7"),
        ({"conf": 0.001}, "cannot be made looser"),
        ({"contexts": 0}, "contexts is 0"),
    ):
        with pytest.raises(BadInput, match=message):
            Detector(engine, **settings)
    with pytest.raises(BadInput, match="resized on the CPU"):
        Detector(model_path, gpu_resize=True)


def test_a_detector_that_resizes_on_the_gpu(engine: Path, video: Path) -> None:
    with Detector(engine, gpu_resize=True) as detect:
        found = detect([make_picture(0, 200, 300), make_picture(1)])
        assert len(found) == 2 and len(detect(make_picture(0))) > 0
        assert sum(1 for _ in detect.stream(video)) == 10


def test_a_stream_that_is_left(engine: Path, video: Path) -> None:
    with Detector(engine) as detect:
        stream = detect.stream(video)
        next(stream)
        del stream
        gc.collect()
        assert len(detect(make_picture(0))) > 0


def test_two_at_once() -> None:
    """The next begins before the last is waited for, if there is a place for it."""
    for places in (1, 2, 3):
        under_way, log = set[int](), list[str]()

        def start(item: int, wait: bool, under_way: set[int] = under_way, log: list[str] = log,
                  places: int = places) -> Callable[[], int] | None:  # fmt: skip
            if len(under_way) == places:
                assert not wait, "waits for itself"
                return None
            under_way.add(item)
            log.append(f"start {item}")

            def finish() -> int:
                under_way.remove(item)
                log.append(f"end {item}")
                return -item

            return finish

        assert list(two_at_once(range(4), start)) == [(i, -i) for i in range(4)]
        assert (log.index("start 1") < log.index("end 0")) == (places > 1)
        assert not under_way
    assert list(two_at_once([], start)) == []


def test_the_double_itself() -> None:
    """It notices what it is there to notice."""
    cuda = RecordingCuda()
    with pytest.raises(AssertionError, match="without the context"):
        cuda.device_memory(10)
    with cuda.current():
        memory, host, stream = cuda.device_memory(10), cuda.host_memory(10), cuda.stream()
        with pytest.raises(AssertionError, match="page-locked"):
            stream.upload(memory.address, np.zeros(10, np.uint8))
        host.array[:] = 7
        stream.upload(memory.address, host.array)
        host.array[:] = 8  # too early: it is not copied yet
        stream.synchronize()
        assert (cuda.at(memory.address, 10) == 8).all()
        with pytest.raises(AssertionError, match="out of an allocation"):
            cuda.at(memory.address + 4, 10)
        stream.download(host.array, memory.address)
        memory.free()
        with pytest.raises(AssertionError, match="no memory"):
            stream.synchronize()
        with pytest.raises(AssertionError, match="freed twice"):
            memory.free()
    with pytest.raises(AssertionError, match="not freed"):
        cuda.close()


def test_thresholds_are_those_of_the_file(made: Made) -> None:
    assert made.thresholds == Thresholds()
