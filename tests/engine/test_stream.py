"""`Detector.stream`: files, images and several sources, through the stages."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinart.benchmarks.pipeline.mjpeg_server import MJPEGServer
from retinart.engine.common.timing import StageClock
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.media import connections, sources
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.media.settings import LiveSettings, Position, Selection, StreamSettings
from retinart.engine.media.sources import is_live, list_numbered
from retinart.engine.runtime.runner import Pending, Prepared
from retinart.engine.stream import Step, Stream
from retinart.engine.tiles.runner import batch_sizes
from support import make_picture, number_of, numbered_jpeg, write_images, write_video


@pytest.fixture(scope="module")
def detector(model_path: Path) -> Iterator[Detector]:
    with Detector(model_path, threads=2) as one:
        yield one


def test_sources_of_several_sizes_do_not_change_each_other(
    tmp_path: Path, dynamic_model_path: Path
) -> None:
    """Without a fixed size they would be padded to the largest, which GroupNorm sees."""
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for seed, (path, size) in enumerate(
        zip(paths, [(120, 180), (300, 100), (40, 400), (120, 180), (300, 100)], strict=True)
    ):
        assert cv2.imwrite(str(path), make_picture(seed, *size))
    with Detector(dynamic_model_path, threads=2) as detector:
        pairs = list(detector.stream(paths))
        assert [frame.source for frame, _ in pairs] == [str(path) for path in paths]
        for frame, found in pairs:
            alone = detector(frame.image)
            assert len(found) == len(alone) > 0
            np.testing.assert_allclose(found.confidence, alone.confidence, atol=1e-4)


def test_several_files_are_batched_and_each_comes_whole(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        write_video(tmp_path / "a.avi", frames=7),
        write_video(tmp_path / "b.mp4", frames=3, size=(64, 80)),
        write_images(tmp_path / "c", *(f"{i}.png" for i in range(5))),
    ]
    sizes: list[int] = []
    real = Prepared.submit

    def submit(self: Prepared, clock: StageClock) -> Pending:
        sizes.append(len(self.resized))
        return real(self, clock)

    monkeypatch.setattr(Prepared, "submit", submit)
    results = list(detector.stream(paths))
    assert sum(sizes) == len(results) == 15
    assert sizes[:4] == [2, 1, 2, 1]  # three frames are a batch of two and one of one
    for index, count in enumerate((7, 3, 5)):
        own = [(frame, found) for frame, found in results if frame.source_index == index]
        assert [frame.index for frame, _ in own] == list(range(count))
        frame, found = own[-1]
        alone = detector(frame.image)
        assert len(found) == pytest.approx(len(alone), abs=2)  # a batch may round otherwise
    assert {f.source for f, _ in results if f.source_index == 2} == {
        str(p) for p in paths[2].iterdir()
    }


@pytest.mark.parametrize("buffer", [None, 0, 1, 5])
def test_no_frame_of_a_file_is_lost_with_any_buffer(
    detector: Detector, tmp_path: Path, buffer: int | None
) -> None:
    path = write_video(tmp_path / "v.avi", frames=20)
    frames = [f.index for f, _ in detector.stream(path, StreamSettings(buffer=buffer))]
    assert frames == list(range(20))


def test_a_selection(detector: Detector, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", frames=30)  # 10 a second
    start, end = Position.parse("1.0"), Position.parse("22f")
    settings = StreamSettings(every=3, start=start, end=end)
    assert [f.index for f, _ in detector.stream(path, settings)] == [10, 13, 16, 19]
    settings = StreamSettings(max_fps=5)
    assert [f.index for f, _ in detector.stream(path, settings)] == list(range(0, 30, 2))


def test_images_have_no_times(detector: Detector, tmp_path: Path) -> None:
    folder = write_images(tmp_path, "a.png", "b.png", "c.png")
    settings = StreamSettings(start=Position.parse("1f"))
    assert [f.index for f, _ in detector.stream(folder, settings)] == [1, 2]
    with pytest.raises(BadInput) as raised:
        next(detector.stream(folder, StreamSettings(end=Position.parse("1.5"))))
    assert str(raised.value) == (
        f"{folder} holds images, which have no times. Give `start` and `end` in frames, such as "
        "30f, and leave `max_fps` out."
    )


def test_numbered_images_come_by_number(detector: Detector, tmp_path: Path) -> None:
    write_images(tmp_path, *(f"f{i}.png" for i in (9, 10, 100, 2)), "fx.png", "f1.jpg")
    pattern = str(tmp_path / "f%d.png")
    names = [Path(f.source).name for f, _ in detector.stream(pattern)]
    assert names == ["f2.png", "f9.png", "f10.png", "f100.png"]
    assert list_numbered(str(tmp_path / "g%04d.png")) == []
    with pytest.raises(BadInput, match="no images at"):
        next(detector.stream(str(tmp_path / "g%04d.png")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"buffer": -1}, "`buffer` is -1. Give a whole number from 0 to 1000."),
        ({"timeout": 0}, "`timeout` is 0. Give 0 to 3600 seconds."),
        (
            {"max_retries": -2},
            "`max_retries` is -2 and `backoff` 0.5. Give numbers from 0, or -1 as",
        ),
        ({"every": 0}, "`every` is 0. Give a whole number from 1 on."),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as raised:
        StreamSettings(**settings)
    assert str(raised.value).startswith(message)


def test_which_names_are_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").touch()
    live = ("0", "rtsp://host/x", "rtsp://host/x.mp4", "http://host/mjpeg", "/dev/null")
    assert all(is_live(name) for name in live)
    files = ("7", "a.mp4", "frame_%04d.png", "http://host/clip.MP4?token=1", "https://host/a.mkv")
    assert not any(is_live(name) for name in files)


def test_an_address_of_an_unknown_kind(detector: Detector) -> None:
    with pytest.raises(BadInput) as raised:
        next(detector.stream("gopher://me:secret@host/x"))
    assert str(raised.value).startswith(
        "cannot read from gopher://host/x: gopher:// is not known. Known are http, https, rtsp, "
    )


def test_an_address_that_is_none(detector: Detector) -> None:
    for ask in (is_live, lambda name: next(detector.stream(name))):
        with pytest.raises(BadInput) as raised:
            ask("http://me:secret@[x")
        assert str(raised.value).startswith("http://[x is not an address: Invalid IPv6 URL")


@pytest.mark.parametrize(
    ("name", "opened"),
    [("0", (0,)), ("rtsp://me:secret@host/x", ("rtsp://me:secret@host/x", 2.5))],
)
def test_what_opens_a_webcam_and_an_address(
    monkeypatch: pytest.MonkeyPatch, name: str, opened: tuple[Any, ...]
) -> None:
    """Stand-ins for both: what is asked of them, and that their frames arrive."""
    asked: list[tuple[Any, ...]] = []

    class Camera:
        def __init__(self, *arguments: Any) -> None:
            asked.append(arguments)

        def isOpened(self) -> bool:
            return True

        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, Image]:
            return True, make_picture(1)

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(connections, "NetworkCapture", Camera)
    found = sources.Sources([name], selection=Selection(), settings=LiveSettings(timeout=2.5))
    try:
        (frame,) = next(iter(found))
        assert frame.image.shape == make_picture(1).shape
        assert asked[0] == opened
        assert frame.source == ("webcam 0" if name == "0" else "rtsp://host/x")
    finally:
        found.close()


def test_leaving_a_stream_ends_its_threads(detector: Detector, tmp_path: Path) -> None:
    stream = detector.stream(write_video(tmp_path / "v.avi", frames=50))
    next(stream)
    assert any(t.name == "retinart-infer" for t in threading.enumerate())
    stream.close()  # type: ignore[attr-defined]
    assert not any(t.name.startswith("retinart-") for t in threading.enumerate())


def test_an_error_in_the_model_comes_after_the_results_before_it(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = iter(range(100)), Prepared.submit

    def submit(self: Prepared, clock: StageClock) -> Pending:
        if next(calls) == 4:
            raise RuntimeError("out of memory")
        return real(self, clock)

    monkeypatch.setattr(Prepared, "submit", submit)
    seen = []
    with pytest.raises(RuntimeError, match="out of memory"):  # noqa: PT012
        for frame, _ in detector.stream(write_video(tmp_path / "v.avi")):
            seen.append(frame.index)
    assert seen == [0, 1, 2, 3]


def test_stopping_drops_what_has_not_reached_the_detector(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = iter(range(100)), Prepared.submit

    def submit(self: Prepared, clock: StageClock) -> Pending:
        if next(calls) == 4:
            stream.stop()
        return real(self, clock)

    monkeypatch.setattr(Prepared, "submit", submit)
    path = write_video(tmp_path / "v.avi", frames=60)
    with Stream(detector.runner, [str(path)], StreamSettings(buffer=5)) as stream:
        assert [step.frames[0].index for step in stream] == list(range(5))
    counts = stream.sources.all[0].counts
    assert (counts.ended, counts.detected) == ("stopped", 5) and 5 <= counts.read < 60


def test_a_long_file_leaves_nothing_behind(detector: Detector, tmp_path: Path) -> None:
    """A short form of `benchmarks.pipeline --long`: what is held does not grow with frames."""
    path, held = write_video(tmp_path / "v.avi", frames=150), []

    def look(step: Step) -> Step:
        if step.frames[0].index % 25 == 0:  # looking takes a while
            held.append(sum(type(thing) is Frame for thing in gc.get_objects()))
        return step

    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    threads, handles = threading.active_count(), files()
    with Stream(detector.runner, [str(path)], StreamSettings(), stages=[("write", look)]) as stream:
        assert sum(1 for _ in stream) == 150
        running = threading.active_count()
    assert running <= threads + 5 and (threading.active_count(), files()) == (threads, handles)
    # two wait before each of three stages and after the last, one may be under way, and each of
    # five threads has one
    assert max(held) <= 2 * 4 + 1 + 5 + 1
    assert len(stream.times.stages()) == 7 and stream.times.stages()["infer"].count == 150


def test_batches() -> None:
    assert [batch_sizes(n) for n in (1, 2, 3, 7, 8, 21)] == [
        [1],
        [2],
        [2, 1],
        [4, 2, 1],
        [8],
        [8, 8, 4, 1],
    ]


def test_a_live_stream_drops_what_it_cannot_take_and_counts_it(detector: Detector) -> None:
    """A short form of `benchmarks.pipeline --live`, without a limit on times."""
    total, picture = 150, make_picture(0, 240, 320)
    numbers: list[int] = []
    asked = threading.Event()

    def frames(connection: int) -> Iterator[bytes]:
        for number in range(total):
            if number == 40:
                assert asked.wait(60)  # so that the first frames are seen before the last ones
            yield numbered_jpeg(number, picture)

    def look(step: Step) -> Step:
        numbers.extend(number_of(frame.image) for frame in step.frames)
        asked.set()
        return step

    with MJPEGServer(frames) as camera:
        settings = StreamSettings(max_retries=0)
        with Stream(detector.runner, [camera.url], settings, stages=[("write", look)]) as stream:
            steps = list(stream)
            counts = stream.sources.all[0].counts
        assert counts.read == camera.sent == total
    assert counts.taken + counts.dropped == total and counts.broken == counts.skipped == 0
    assert counts.taken == len(steps) == len(numbers) == counts.detected
    assert numbers == sorted(set(numbers)) and numbers[-1] == total - 1
    assert [step.frames[0].index for step in steps] == numbers  # gaps are what was dropped
    assert counts.dropped > 0
    assert [q.capacity for q in stream.queues.values()] == [0, 0, 0, 1, 1]


def test_a_camera_that_changes_its_size_and_sends_junk(detector: Detector) -> None:
    """Each frame keeps its own size."""
    small, large = (240, 320), (480, 640)
    go = threading.Semaphore(2)

    def frames(connection: int) -> Iterator[bytes]:
        for number in range(12):
            go.acquire(timeout=60)
            if number == 3:
                yield b"\xff\xd8 no JPEG at all"
            yield numbered_jpeg(number, make_picture(0, *(small if number < 6 else large)))

    sizes: list[tuple[int, ...]] = []
    with (
        MJPEGServer(frames) as camera,
        Stream(detector.runner, [camera.url], StreamSettings(max_retries=0)) as stream,
    ):
        for step in stream:
            sizes.append(step.frames[0].image.shape[:2])
            assert all((d.xyxy <= (*sizes[-1][::-1],) * 2).all() for d in step.found)
            go.release(4)
        counts = stream.sources.all[0].counts
    assert sizes[0] == small and sizes[-1] == large
    assert counts.read == counts.taken + counts.dropped + counts.broken
    assert counts.read >= 12 and counts.ended == "lost"


def test_numbers_survive_jpeg() -> None:
    image = make_picture(0, 64, 256)
    for number in (0, 1, 77, 12345, 2**24 - 1):
        data = np.frombuffer(numbered_jpeg(number, image), np.uint8)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None and number_of(np.asarray(decoded, np.uint8)) == number


def test_throughput(model_path: Path, detector: Detector, tmp_path: Path) -> None:
    """Several frames are under way at once, and come out in order with what a call finds."""
    path = write_video(tmp_path / "v.avi", frames=20)
    with Detector(model_path, threads=2, throughput=True) as fast:
        in_flight = fast.runner.max_in_flight
        assert detector.runner.max_in_flight == 1
        assert in_flight == 2 * min(2, len(os.sched_getaffinity(0)))
        with Stream(fast.runner, [str(path)], StreamSettings()) as stream:
            pairs = [(step.frames[0], step.found[0]) for step in stream]
            assert stream.queues["finish"].capacity == in_flight - 1
        assert [frame.index for frame, _ in pairs] == list(range(20))
        for frame, found in pairs:
            alone = detector(frame.image)
            assert len(found) == len(alone) > 0
            np.testing.assert_allclose(found.xyxy, alone.xyxy, atol=1e-2)
        left = fast.stream(path)
        next(left)
        left.close()  # type: ignore[attr-defined]
        assert len(fast(pairs[0][0].image)) == len(pairs[0][1])


def test_a_camera_that_never_opens(detector: Detector) -> None:
    """Seen: the loop ended at once, as if the camera had been switched off."""
    settings = StreamSettings(max_retries=0)
    with pytest.raises(BadInput, match=r"nothing was received from rtsp://127\.0\.0\.1:9/x"):
        list(detector.stream("rtsp://127.0.0.1:9/x", settings))
