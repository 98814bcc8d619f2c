"""The detector: the same on either runtime, in batches, in threads, and on any picture."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import retinart
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import Image
from retinart.engine.runtime.openvino_api import load_openvino
from retinart.engine.runtime.options import RuntimeChoice
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.model.predict import predict
from support import make_picture

RUNTIMES: tuple[RuntimeChoice, ...] = ("openvino", "onnxruntime")


def _pictures() -> list[Image]:
    sizes = [(120, 180), (96, 128), (300, 100), (40, 400)]
    return [make_picture(i, h, w) for i, (h, w) in enumerate(sizes)]


def _same(expected: Detections, found: Detections, floor: float) -> None:
    result = match(expected, found, floor=floor)
    assert result.matched > 0 and result.same, result


def _floor(found: Detections, detector: Detector) -> float:
    """Below it a list may be cut: the last score of a full one."""
    full = len(found) >= 0.9 * detector.thresholds.detections_per_img
    return float(found.confidence[-1]) if full else detector.thresholds.score_thresh


@pytest.fixture(scope="module", params=RUNTIMES)
def detector(request: pytest.FixtureRequest, model_path: Path) -> Iterator[Detector]:
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime")
    with Detector(model_path, runtime=request.param, threads=2) as one:
        yield one


@pytest.fixture(scope="module")
def dynamic(dynamic_model_path: Path) -> Iterator[Detector]:
    with Detector(dynamic_model_path, threads=2) as one:
        yield one


def test_the_runtimes_agree(model_path: Path, dynamic_model_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for path in (model_path, dynamic_model_path):
        a, b = (Detector(path, runtime=r, threads=2) for r in RUNTIMES)
        assert [a.runtime, b.runtime] == list(RUNTIMES)
        for seed, side in enumerate((24, 96, 300)):  # 4:3, so that nothing is padded
            image = make_picture(seed, side, side * 4 // 3)
            expected = a(image)
            _same(expected, b(image), _floor(expected, a))


def test_boxes_are_clipped_to_the_image_before_nms(
    model_path: Path, noisy_checkpoint: Path
) -> None:
    """And not to the padded frame, which decides otherwise for some of these."""
    model, variant, _ = load_checkpoint(noisy_checkpoint)
    differs = False
    with Detector(model_path, max_det=500) as detector:
        for image in _pictures():
            batch, (resized,) = detector.info.resize.apply([image])
            to_image, to_frame = (
                resized.detections_to_source(found)
                for sizes in ([resized.size], None)
                for found in predict(model, variant, batch, detector.thresholds, sizes=sizes)
            )
            found = detector(image)
            _same(to_image, found, detector.thresholds.score_thresh)
            differs |= not match(to_frame, found).same
    assert differs


def test_auto_is_openvino(model_path: Path) -> None:
    with retinart.Detector(str(model_path)) as detector:
        assert detector.runtime == "openvino"
        assert detector.classes == ("disc", "square", "ring")


def test_a_batch_equals_its_images_alone(detector: Detector) -> None:
    images = _pictures()
    together = detector(images)
    assert len(together) == len(images)
    for image, found in zip(images, together, strict=True):
        _same(detector(image), found, _floor(found, detector))


def test_a_dynamic_batch_of_one_size(dynamic: Detector) -> None:
    images = [make_picture(seed, 120, 180) for seed in range(3)]
    for image, found in zip(images, dynamic(images), strict=True):
        _same(dynamic(image), found, _floor(found, dynamic))


def test_a_dynamic_batch_of_several_sizes_stays_in_its_images(dynamic: Detector) -> None:
    for image, found in zip(_pictures(), dynamic(_pictures()), strict=True):
        _inside(found, image)


def test_a_dynamic_batch_of_several_sizes_equals_its_images_alone(dynamic: Detector) -> None:
    """Its heads have GroupNorm, which sees what an image is padded with."""
    images = [*_pictures(), *_pictures()[::-1]]
    for image, found in zip(images, dynamic(images), strict=True):
        alone = dynamic(image)
        assert len(found) == len(alone) > 0
        np.testing.assert_allclose(found.confidence, alone.confidence, atol=1e-4)


def test_an_empty_batch_and_a_tuple(detector: Detector, picture: Image) -> None:
    assert detector([]) == []
    (found,) = detector((picture,))
    _same(detector(picture), found, _floor(found, detector))


def test_eight_threads_on_one_detector(detector: Detector) -> None:
    images = [make_picture(i, 60 + 10 * i, 200 - 10 * i) for i in range(8)]
    # batches of different sizes at once, so that compiled models and requests are contended for
    jobs = [images[i : i + 1 + i % 3] for i in range(8)] * 2

    def run(job: Sequence[Image]) -> list[Detections]:
        return detector(job)

    alone = [run(job) for job in jobs[:8]] * 2
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, jobs))
    for expected, found in zip(alone, results, strict=True):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a.class_id, b.class_id)
            np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-3)
            np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-5)


def test_results_do_not_change_with_the_next_call(detector: Detector) -> None:
    """A runtime's buffers are used again: what was given out must not lie in them."""
    first = detector(make_picture(0, 120, 180))
    kept = first.xyxy.copy(), first.confidence.copy(), first.class_id.copy()
    detector(make_picture(7, 120, 180))
    for was, now in zip(kept, (first.xyxy, first.confidence, first.class_id), strict=True):
        np.testing.assert_array_equal(was, now)


def _inside(found: Detections, image: Image) -> None:
    height, width = image.shape[:2]
    assert found.xyxy.dtype == np.float32 and found.class_id.dtype == np.int32
    assert np.isfinite(found.xyxy).all() and (found.xyxy >= 0).all()
    assert (found.xyxy <= [width, height, width, height]).all()
    assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()
    assert (np.diff(found.confidence) <= 0).all()
    assert set(found.class_id.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 700), (700, 1), (2, 3), (31, 33), (6000, 8000), (97, 129)]
)
def test_any_size_gives_boxes_inside_of_the_image(
    detector: Detector, dynamic: Detector, size: tuple[int, int]
) -> None:
    image = make_picture(3, *size)
    for one in (detector, dynamic):
        found = one(image)
        _inside(found, image)
        if min(size) > 30:
            assert len(found) > 0


def test_a_scaled_image_gives_scaled_boxes(detector: Detector) -> None:
    """At the network's own size, and that image enlarged by exactly four."""
    small = make_picture(1)
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    a, b = detector(small), detector(large)
    result = match(
        a, dataclasses.replace(b, xyxy=b.xyxy / np.float32(4)), floor=_floor(a, detector)
    )
    assert result.matched > 0.9 * len(a)


def test_grey_bgra_deep_and_flipped_frames(detector: Detector, picture: Image) -> None:
    grey = picture[:, :, 1]
    three = np.dstack([grey] * 3)
    alpha = np.dstack([picture, picture[:, :, :1]])
    frames: list[tuple[Any, Image]] = [
        (grey, three),
        (grey[:, :, None], three),
        (alpha, picture),
        (picture.astype(np.uint16) * 257, picture),
        (picture[:, ::-1], np.ascontiguousarray(picture[:, ::-1])),
    ]
    for given, meant in frames:
        a, b = detector(meant), detector(given)
        np.testing.assert_array_equal(a.xyxy, b.xyxy)
        np.testing.assert_array_equal(a.confidence, b.confidence)


def test_a_frame_is_not_written_to(detector: Detector, picture: Image) -> None:
    before = picture.copy()
    picture.flags.writeable = False
    detector(picture)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), "the frame has dtype float32"),
        (np.zeros((2, 9, 9, 3), np.uint8), r"the frame has shape \(2, 9, 9, 3\)"),
        (np.zeros((0, 9, 3), np.uint8), r"the frame has shape \(0, 9, 3\)"),
        (None, "the frame is a NoneType"),  # what cv2.imread gives for a file it cannot read
        ("image.jpg", "the frame is a str"),
        ([np.zeros((9, 9, 3), np.uint8), None], "the frame is a NoneType"),
    ],
)
def test_no_frame(detector: Detector, frame: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        detector(frame)


def test_after_close(model_path: Path, picture: Image) -> None:
    for runtime in RUNTIMES:
        if runtime == "onnxruntime":
            pytest.importorskip("onnxruntime")
        with Detector(model_path, runtime=runtime) as detector:
            detector(picture)
        calls: list[Callable[[], object]] = [
            lambda d=detector: d(picture),  # type: ignore[misc]
            lambda d=detector: d([]),  # type: ignore[misc]
            lambda d=detector: d.runtime,  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises(BadInput) as raised:
                call()
            assert str(raised.value) == "the detector is closed. Make a new one."
        detector.close()  # closing twice is allowed


def test_stricter_thresholds_leave_the_best(model_path: Path, picture: Image) -> None:
    pytest.importorskip("onnxruntime")
    for runtime in RUNTIMES:
        everything = Detector(model_path, runtime=runtime)(picture)
        conf = float(everything.confidence[len(everything) // 2])
        fewer = Detector(model_path, runtime=runtime, conf=conf)(picture)
        assert 0 < len(fewer) < len(everything) and (fewer.confidence > conf).all()
        np.testing.assert_allclose(fewer.xyxy, everything.xyxy[: len(fewer)], atol=1e-3)
        three = Detector(model_path, runtime=runtime, max_det=3)(picture)
        np.testing.assert_allclose(three.xyxy, everything.xyxy[:3], atol=1e-3)
        assert len(Detector(model_path, runtime=runtime, conf=1.0)(picture)) == 0


def test_looser_thresholds_on_openvino(model_path: Path, picture: Image) -> None:
    with Detector(model_path) as detector:
        default = detector(picture)
    with Detector(model_path, conf=0.0, iou=0.9, max_det=500) as detector:
        assert detector.info.thresholds.score_thresh == 0.05  # the file's stay known
        assert detector.thresholds.nms_thresh == 0.9
        assert len(detector(picture)) > 2 * len(default)
    strict = Detector(model_path, iou=0.0)(picture)
    for label in range(3):
        boxes = strict.xyxy[strict.class_id == label]
        low, high = (f(boxes[:, None], boxes) for f in (np.maximum, np.minimum))
        inter = np.prod(np.maximum(high[..., 2:] - low[..., :2], 0), axis=-1)
        assert (inter[~np.eye(len(boxes), dtype=bool)] < 1e-3).all()


@pytest.mark.parametrize("wanted", [{"conf": 0.01}, {"iou": 0.6}, {"iou": 0.4}, {"max_det": 101}])
def test_onnx_runtime_refuses_what_the_file_cannot_give(
    model_path: Path, wanted: dict[str, Any]
) -> None:
    with pytest.raises(BadInput) as raised:
        Detector(model_path, runtime="onnxruntime", **wanted)
    assert str(raised.value) == (
        "the file's own NMS has conf 0.05, iou 0.5 and max-det 100 built in, and cannot be made "
        "looser. Use the OpenVINO runtime, which takes any, or export again with other thresholds."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conf": 1.2}, r"`score_thresh` is 1\.2\. Give a value from 0 to 1"),
        ({"conf": float("nan")}, "`score_thresh` is nan"),
        ({"iou": -0.1}, r"`nms_thresh` is -0\.1"),
        ({"max_det": 0}, r"`detections_per_img` is 0\. Give a whole number from 1 to 500"),
        ({"max_det": 2.5}, r"`detections_per_img` is 2\.5\. Give a whole number"),
        ({"threads": 0}, r"`threads` is 0\. Give a whole number from 1 to 1024"),
        ({"threads": 10**5}, "`threads` is 100000"),
        ({"runtime": "tflite"}, r"unknown runtime 'tflite'\. Choose auto, openvino or onnx"),
        ({"device": "FOO"}, r"cannot prepare .* for the device FOO: .*FOO.*\. Devices here: .*CPU"),
        (
            {"device": "GPU", "runtime": "onnxruntime"},
            r"ONNX Runtime has no device 'GPU'\. Choose CPU, cuda, tensorrt, tensorrt-rtx",
        ),
    ],
)
def test_settings_that_do_not_fit(model_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Detector(model_path, **settings)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_with_our_metadata_and_a_broken_graph(
    model_path: Path, tmp_path: Path, runtime: RuntimeChoice
) -> None:
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
    model = onnx.load(model_path)
    (weight,) = (i for i in model.graph.initializer if i.name == "backbone.conv1.weight")
    weight.dims[0], weight.dims[1] = weight.dims[1], weight.dims[0]  # takes 32 channels, and gets 3
    path = tmp_path / "broken.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadInput, match=r"cannot load .*broken\.onnx: .*Make the file again with"):
        Detector(path, runtime=runtime)


def test_the_clock_gets_every_stage(detector: Detector, picture: Image) -> None:
    clock = StageClock()
    detector([picture, picture], clock=clock)
    stages = {"resize", "infer", "results"} | ({"nms"} if detector.runtime == "openvino" else set())
    assert set(clock.ms) == stages


def test_stream(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for seed in range(5):
        writer.write(make_picture(seed))
    writer.release()
    pairs = list(detector.stream(path))
    assert len(pairs) == 5
    for index, (frame, found) in enumerate(pairs):
        assert frame.image.shape == (96, 128, 3) and frame.source == str(path)
        assert frame.index == index and frame.time_ms == pytest.approx(100 * index)
        _same(detector(frame.image), found, _floor(found, detector))


def test_a_stream_of_nothing(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no video at .*none\.mp4\. Check the path\."):
        next(detector.stream(tmp_path / "none.mp4"))


def test_closing_while_other_threads_run(model_path: Path, picture: Image) -> None:
    """A running call finishes; a later one is told that the detector is closed."""
    detector = Detector(model_path)
    started, problems = threading.Barrier(3), list[str]()

    def run() -> None:
        started.wait()
        try:
            for _ in range(20):
                detector(picture)
        except BadInput as error:
            problems.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    detector.close()
    for thread in threads:
        thread.join()
    assert all("the detector is closed" in text for text in problems) and len(problems) == 2


def test_only_a_few_batch_sizes_stay_compiled(
    model_path: Path, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The four that were used last are not compiled again, and an older one is."""
    compiled, core = list[int](), load_openvino().Core
    real = core.compile_model

    def compile_model(self: Any, model: Any, *arguments: Any) -> Any:
        compiled.append(model.input(0).get_partial_shape()[0].get_length())
        return real(self, model, *arguments)

    monkeypatch.setattr(core, "compile_model", compile_model)
    with Detector(model_path, check=False, cache=False) as detector:
        for batch in (1, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2):
            assert len(detector([picture] * batch)) == batch
    assert compiled == [1, 2, 3, 4, 5, 6, 2]
