"""The engine runtime's order of things, against recording doubles. Nothing here is a GPU test."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_tensorrt import (
    FakeTensorRT,
    FakeTensorRTRTX,
    Made,
    engine_info,
    engine_runner,
    frames,
    run,
)

from recording_gpu import RecordingCuda, RecordingStream, resize_like_gpu
from retinart.engine.common.timing import StageClock
from retinart.engine.cuda.api import CudaError
from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds
from retinart.engine.runtime.options import EngineOptions
from retinart.engine.tensorrt.lane import SHAPES, Lane
from retinart.verify.judge import same
from support import make_picture


def test_no_memory_is_made_after_the_start(made: Made) -> None:
    made.check(frames(0))
    before = made.cuda.count("make device memory"), made.cuda.count("make host memory")
    for seed in range(10):
        made.check(frames(*range(1 + seed % 2)))
    assert before == (made.cuda.count("make device memory"), made.cuda.count("make host memory"))
    assert before == (2 * 3, 2 * 2)  # two lanes: frames, outputs, scratch; frames, outputs


def test_only_the_outputs_of_the_batch_are_downloaded(made: Made) -> None:
    """The profile's largest batch is four times as large."""
    sizes = list[int]()
    download = RecordingStream.download

    def record(stream: RecordingStream, target: Image, address: int) -> None:
        sizes.append(target.size)
        download(stream, target, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordingStream, "download", record)
        made.check(frames(0))
        made.check(frames(*range(4)))
    one = 4 * made.thresholds.detections_per_img * 6
    assert one <= sizes[0] < one + 5 * 256 and sizes[1] > 3 * sizes[0]


def test_batches(made: Made) -> None:
    for n in (1, 3, 1, 3):
        made.check(frames(*range(n)))
    made.check(frames(*range(6)))  # more than the profile takes: in parts of 4 and 2


def test_copying_is_a_stage_of_its_own(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into page-locked memory. Infer is the rest, and the two never count the same time."""
    real = Lane.load

    def load(lane: Lane, batch: Image) -> None:
        time.sleep(0.02)
        real(lane, batch)

    monkeypatch.setattr(Lane, "load", load)
    made.cuda.at_work = lambda: time.sleep(0.02)
    clock, start = StageClock(), time.perf_counter()
    made.runner.start(frames(*range(6)), clock)()  # in parts of 4 and 2
    elapsed = 1000 * (time.perf_counter() - start)
    ((copy,), (infer,)) = clock.ms["copy"], clock.ms["infer"]
    assert copy >= 40 and infer >= 20 and copy + infer <= elapsed


def test_rare_shapes_share_a_context(dynamic_model_path: Path) -> None:
    """Thirty pictures of six shapes in turn: four shapes get contexts and graphs, two share one."""
    made = Made(dynamic_model_path, contexts=1)
    shapes = [(96 + 32 * (k % 2), 32 + 32 * (k // 2)) for k in range(SHAPES + 2)]
    for k in range(30):
        height, width = shapes[k % len(shapes)]
        made.check(frames(k, height=height, width=width))
    assert made.cuda.count("make execution context") == SHAPES + 1
    assert made.cuda.count("make graph") == SHAPES
    made.runner.close()


def test_a_shape_that_becomes_frequent_gets_a_context(dynamic_model_path: Path) -> None:
    made = Made(dynamic_model_path, contexts=1)
    shapes = [(96 + 32 * (k % 2), 32 + 32 * (k // 2)) for k in range(SHAPES + 1)]
    for height, width in shapes[:SHAPES] * 2:
        made.check(frames(1, height=height, width=width))
    height, width = shapes[SHAPES]
    launched = list[int]()
    for seed in range(8):
        made.check(frames(seed, height=height, width=width))
        launched.append(made.cuda.count("launch"))
    # the fifth is more than twice two: its context takes a place, and is captured after one run
    assert launched == [launched[0]] * 5 + [launched[0] + 2 * k for k in (1, 2, 3)]
    alive = [kind for kind, _ in made.cuda.alive.values()]
    assert alive.count("execution context") == SHAPES + 1 and alive.count("graph") == SHAPES
    made.runner.close()


def test_a_loose_context_that_is_refused_a_shape(dynamic_model_path: Path) -> None:
    made = Made(dynamic_model_path, contexts=1)
    shapes = [(96 + 32 * (k % 2), 32 + 32 * (k // 2)) for k in range(SHAPES + 2)]
    for height, width in shapes[:-1]:
        made.check(frames(1, height=height, width=width))
    height, width = shapes[-1]
    made.trt.fail = "shape"
    with pytest.raises(RetinartError, match="takes no frames"):
        run(made.runner, frames(1, height=height, width=width))
    made.trt.fail = ""
    for height, width in shapes[-2:]:
        made.check(frames(1, height=height, width=width))
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
        run(made.runner, frames(0))


def test_what_rtx_compiles_is_kept(model_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "cache" / f"{engine_info(model_path).plan_sha256[:16]}.tensorrt-rtx"
    for there, compiled, after in (
        (b"nothing", b"kernels 1", b"kernels 1"),
        (b"kernels 1", b"kernels 1", b"kernels 1"),  # nothing new, so it is not written
        (b"kernels 1", b"kernels 1 and 2", b"kernels 1 and 2"),
    ):
        made = Made(model_path, kind=FakeTensorRTRTX, cache_dir=file.parent)
        assert made.trt.cache is not None
        cache: Any = made.trt.cache()
        assert cache.content == there
        cache.content = compiled
        before = file.stat().st_ino if file.exists() else 0
        del cache
        made.check(frames(0))
        made.runner.close()
        assert file.read_bytes() == after
        assert (file.stat().st_ino == before) == (compiled == there)
    file.write_bytes(b"another GPU's")
    made = Made(model_path, kind=FakeTensorRTRTX, cache_dir=file.parent)
    made.check(frames(0))
    made.runner.close()
    assert file.read_bytes() == b"nothing"
    made = Made(model_path, kind=FakeTensorRTRTX, cache_dir=file)
    made.runner.close()  # a file that cannot be written is not an error
    assert made.cuda.closed


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
    want = [run(made.reference, b)[0] for b in batches]
    barrier = threading.Barrier(8)

    def work(thread: int) -> bool:
        barrier.wait()
        order = [(thread + i) % 6 for i in range(4)]
        return all(same(want[i], run(made.runner, batches[i])[0]) for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    made.runner.close()


def test_close_waits_for_what_is_under_way(made: Made) -> None:
    finish = made.runner.start(frames(1), StageClock())
    made.runner.close()
    assert made.cuda.closed
    assert same(finish()[0], run(made.reference, frames(1))[0])


def test_a_lane_that_is_given_back_at_work(made: Made) -> None:
    """An error between a start and its end leaves work on the stream; close waits for it."""
    lane = made.runner._pool.take()
    with made.cuda.current():
        lane.load(frames(0))
        lane.start()
    made.runner._pool.give(lane)
    made.runner.close()
    assert made.cuda.closed and "wait" in made.cuda.log


def test_more_than_there_are_lanes_by_one_thread(made: Made) -> None:
    """A thread without a lane ends the oldest batch under way, and keeps its result."""
    begun = [made.runner.start(frames(i), StageClock()) for i in range(5)]
    steps = [entry for entry in made.cuda.log if entry in ("upload", "wait")]
    assert steps[:4] == ["upload", "upload", "wait", "upload"]  # two before one is waited for
    assert steps.count("wait") == 3
    for i in (4, 0, 3, 1, 2):
        (want,) = run(made.reference, frames(i))
        assert same(begun[i]()[0], want)
    for _ in range(3):  # the lanes of abandoned batches come back
        made.runner.start(frames(0), StageClock())
    made.check(frames(1))


def test_an_error_on_the_gpu_reaches_the_caller_who_waits_for_that_batch(made: Made) -> None:
    def lost() -> None:
        raise CudaError("CUDA_ERROR_ECC_UNCORRECTABLE (214)")

    begun = [made.runner.start(frames(0), StageClock()) for _ in range(2)]
    made.cuda.at_work = lost
    third = made.runner.start(frames(0), StageClock())  # ends the first
    made.cuda.at_work = lambda: None
    with pytest.raises(CudaError, match="ECC"):
        begun[0]()
    assert len(begun[1]()[0]) == len(third()[0]) > 0


def test_a_batch_outside_of_the_profile(made: Made) -> None:
    with pytest.raises(BadInput, match=r"1x96x160x3 is outside.*1x96x128x3 to 4x96x128x3.*build"):
        run(made.runner, frames(0, width=160))


def test_stricter_thresholds(model_path: Path) -> None:
    everything = Made(model_path)
    (all_found,) = run(everything.runner, frames(0))
    everything.runner.close()
    middle = float(all_found.confidence[len(all_found) // 2])
    strict = dataclasses.replace(everything.thresholds, score_thresh=middle, detections_per_img=3)
    made = Made(model_path, thresholds=strict)
    (found,) = run(made.runner, frames(0))
    assert len(found) == 3 and (found.confidence == all_found.confidence[:3]).all()
    made.runner.close()


@pytest.mark.parametrize("fail", ["execute", "shape", "profile"])
def test_a_failure_gives_the_lane_back(model_path: Path, fail: str) -> None:
    made = Made(model_path, contexts=1)
    made.trt.fail = fail
    for _ in range(3):
        made.trt.logger.log(1, "what TensorRT says")
        with pytest.raises(RetinartError, match=r"(could not run|takes no frames).*TensorRT says"):
            run(made.runner, frames(0))
    made.trt.fail = ""
    made.check(frames(0))
    made.runner.close()


def test_an_engine_that_does_not_load(model_path: Path) -> None:
    for break_it, message in (
        (lambda trt: setattr(trt, "fail", "load"), "cannot load the engine"),
        (lambda trt: setattr(trt, "fail", "start"), r"does not start here.*driver is too old"),
        (lambda trt: trt.shapes.popitem(), "tensors are"),
        (lambda trt: trt.shapes.update(detection_boxes=[-1, 300, 4]), "Nx300x4 float32"),
        (lambda trt: trt.types.update(detection_scores="tensor(double)"), "float64"),
    ):
        cuda = RecordingCuda()
        trt: Any = FakeTensorRT(model_path, cuda)
        break_it(trt)
        with pytest.raises(RetinartError, match=message):
            engine_runner(engine_info(model_path), Thresholds(), trt, cuda)
        assert cuda.closed and not cuda.alive


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (
            "UNSUPPORTED_CC",
            r"unsupported cc\. Build it .* `retinart build --runtime tensorrt`",
        ),
        ("MALFORMED_ENGINE", r"malformed engine\. Build it again here: retinart build"),
    ],
)
def test_tensorrt_rtx_says_why_it_refuses_an_engine(
    reason: str, message: str, model_path: Path
) -> None:
    cuda = RecordingCuda()
    trt: Any = FakeTensorRTRTX(model_path, cuda)
    trt.fail = reason
    info = dataclasses.replace(engine_info(model_path), runtime="tensorrt-rtx")
    with pytest.raises(RetinartError, match=f"TensorRT-RTX refuses the engine .*: {message}"):
        engine_runner(info, Thresholds(), trt, cuda)
    assert trt.plans == [] and cuda.closed


def test_the_clock_of_the_gpu_begins_after_the_copy_on_the_host(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = list[bool]()

    def record(stream: RecordingStream) -> Any:
        (lane,) = (one for one in made.runner._lanes if one.stream is stream)
        staged.append(bool((lane._host_frames.array[: batch.size] == batch.reshape(-1)).all()))
        made.cuda.log.append("record")
        return SimpleNamespace(ms_since=lambda earlier: 1.5)

    monkeypatch.setattr(RecordingStream, "record", record)
    batch, begin = frames(0), len(made.cuda.log)
    assert made.runner.device_ms(batch) == 1.5
    assert staged == [True, True]
    steps = [e for e in made.cuda.log[begin:] if not e.startswith("make")]
    assert steps == ["record", "upload", "execute", "download", "record", "wait"]


def test_an_error_that_stays_does_not_keep_anything(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.check(frames(0))

    def lost(stream: RecordingStream) -> None:
        raise CudaError("CUDA_ERROR_ILLEGAL_ADDRESS (700)")

    monkeypatch.setattr(RecordingStream, "synchronize", lost)
    made.runner.close()
    assert made.cuda.closed and not made.cuda.alive


@pytest.mark.parametrize("contexts", [0, 65])
def test_contexts_out_of_range(contexts: int) -> None:
    with pytest.raises(BadInput, match=f"`contexts` is {contexts}. Give 1 to 64"):
        EngineOptions(contexts=contexts)


def test_the_first_error_is_told(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(cuda: RecordingCuda) -> None:
        raise CudaError("CUDA_ERROR_ILLEGAL_ADDRESS (700)")

    cuda = RecordingCuda()
    trt = FakeTensorRT(model_path, cuda)
    trt.fail = "load"
    monkeypatch.setattr(RecordingCuda, "close", lost)
    with pytest.raises(RetinartError, match="cannot load the engine"):
        engine_runner(engine_info(model_path), Thresholds(), trt, cuda)


def test_resizing_on_the_gpu(dynamic_model_path: Path) -> None:
    """The same detections as from frames that the kernel's arithmetic made, for many sizes."""
    made = Made(dynamic_model_path, gpu_resize=True, contexts=1)
    rule, found = made.info.model.resize, 0
    for sizes in ([(120, 180)], [(300, 200), (120, 300)], [(60, 80)], [(96, 128)] * 3):
        images = [make_picture(i, *size) for i, size in enumerate(sizes)]
        batch, resized = rule.apply(images)
        for image, one, frame in zip(images, resized, batch, strict=True):
            frame[: one.size[0], : one.size[1]] = resize_like_gpu(image, one.size)
        want = run(made.reference, batch)
        got = made.runner.prepare(images).submit(StageClock()).result()
        expected = [one.detections_to_source(d) for one, d in zip(resized, want, strict=True)]
        assert all(same(a, b) for a, b in zip(expected, got, strict=True))
        found += sum(map(len, want))
    assert found > 20
    made.runner.close()
