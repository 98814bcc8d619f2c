"""A detection job in trouble: signals, a disk that fills up, sources that die or never come."""

from __future__ import annotations

import itertools
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinart.benchmarks.pipeline.mjpeg_server import MJPEGServer
from retinart.engine.detector import Detector
from retinart.engine.job.disk import OutOfRoom, check_room
from retinart.engine.job.job import run_job
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.stop import StopRequest, stop_on_signals
from retinart.engine.job.summary import DetectSummary
from retinart.engine.job.text_files import LineFile
from retinart.engine.media.settings import StreamSettings
from support import count_frames, files_below, make_picture, numbered_jpeg, read_lines, write_video

Command = Callable[..., subprocess.CompletedProcess[str]]
WAIT = 60.0
CLOSED = "http://127.0.0.1:9/none.mjpg"  # nothing listens there


@pytest.fixture(scope="module")
def detector(model_path: Path) -> Iterator[Detector]:
    with Detector(model_path, threads=2) as one:
        yield one


def _run(detector: Detector, source: Any, out: Path, **more: Any) -> DetectSummary:
    stop = more.pop("stop", None)
    return run_job(detector, DetectJob(source=source, out=out, **more), stop=stop)


def _whole(out: Path, name: str) -> dict[str, Any]:
    """See that lines, video and summary agree, and that no temporary file is left."""
    said: dict[str, Any] = json.loads((out / "summary.json").read_text())
    frames = said["frames"]["written"]
    assert frames > 0
    assert len(read_lines(out / "detections.jsonl")) == frames == count_frames(out / name)
    assert files_below(out) == sorted([name, "detections.jsonl", "summary.json"])
    f = said["frames"]
    gone = ("skipped", "dropped", "broken", "detected", "abandoned")
    assert f["read"] == sum(f[key] for key in gone)
    return said


@pytest.mark.parametrize(
    ("number", "code", "by"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
    ids=["SIGINT", "SIGTERM"],
)
def test_signals_end_a_job_in_order(
    model_path: Path, tmp_path: Path, number: signal.Signals, code: int, by: str
) -> None:
    """A camera that never ends; JSON lines can be read while they are written."""

    def frames(connection: int) -> Iterator[bytes]:
        for i in range(10**6):
            time.sleep(0.005)
            yield numbered_jpeg(i, make_picture(0))

    out = tmp_path / "out"
    with MJPEGServer(frames) as camera:
        command = [sys.executable, "-m", "retinart", "detect", str(model_path), camera.url]
        process = subprocess.Popen(
            [*command, "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        give_up = time.monotonic() + WAIT
        while not (out / "detections.jsonl").exists() or len(_lines(out)) < 5:
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.02)
        process.send_signal(number)
        output, errors = process.communicate(timeout=WAIT)
    assert process.returncode == code, errors
    name = camera.url.split("://")[1].replace(".", "_").replace(":", "_").replace("/", "_")
    said = _whole(out, f"{name}.mp4")
    assert (said["ended"], said["stopped_by"]) == ("interrupted", by)
    assert output.splitlines()[-1] == str(out / "summary.json")
    assert "what was done until then is kept" in errors and "Traceback" not in errors


def _lines(out: Path) -> list[str]:
    return (out / "detections.jsonl").read_text().splitlines()


def test_the_second_signal_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals(StopRequest()) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_may_stop_a_job(detector: Detector, tmp_path: Path) -> None:
    """After the first result: a job without one leaves nothing."""
    stop, gone, lines = StopRequest(), threading.Event(), tmp_path / "out" / "detections.jsonl"

    def frames(connection: int) -> Iterator[bytes]:
        for i in range(10**6):
            if lines.exists():
                stop.request("the operator")
            if gone.wait(0.005):
                return
            yield numbered_jpeg(i, make_picture(0))

    with MJPEGServer(frames) as camera:
        summary = _run(detector, camera.url, tmp_path / "out", stop=stop)
        gone.set()
    assert summary.interrupted and summary.stop_reason == "the operator"
    assert summary.sources[0].counts.ended == "stopped"


def test_a_stop_before_the_first_result_leaves_nothing(detector: Detector, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.request("SIGTERM")
    settings = StreamSettings(max_retries=-1)
    with pytest.raises(KeyboardInterrupt):
        _run(detector, [CLOSED], tmp_path / "out", stop=stop, stream=settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("replaced", [False, True])
def test_an_output_folder_that_is_deleted_while_the_job_runs(
    detector: Detector, tmp_path: Path, replaced: bool
) -> None:
    """The job went on for hours, and named a file that was not there."""
    out, gone = tmp_path / "out", threading.Event()

    def frames(connection: int) -> Iterator[bytes]:
        for i in range(10**6):
            if gone.wait(0.005):
                return
            written = (out / "detections.jsonl").exists()
            if written and i > 20 and not (tmp_path / "done").exists():
                (tmp_path / "done").touch()
                shutil.rmtree(out, ignore_errors=True)
                if replaced:
                    out.mkdir()
                    (out / "detections.jsonl").write_text("")
            yield numbered_jpeg(i, make_picture(0))

    with MJPEGServer(frames) as camera:
        summary = _run(detector, camera.url, out, copies=False)
        gone.set()
    assert summary.ended == "failed"
    wanted = r"detections\.jsonl: it was deleted or replaced while the job ran\. Run the job again"
    assert re.search(wanted, str(summary.error))
    assert summary.outputs == [out / "summary.json"]


def test_an_output_folder_that_goes_between_the_check_and_the_writing(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error was `[Errno 2] No such file or directory`, once in many runs."""
    out, real, asked = tmp_path / "out", shutil.disk_usage, itertools.count()

    def disk_usage(path: Path) -> object:
        if next(asked) == 3:
            shutil.rmtree(out)
        return real(path)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    summary = _run(detector, str(write_video(tmp_path / "clip.mp4", frames=8)), out)
    assert summary.ended == "failed" and summary.frames == 3
    assert "detections.jsonl: it was deleted or replaced" in str(summary.error)


def test_a_disk_that_fills_up(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job stops before the disk is full, so it can close the files."""
    free = iter([10**9] * 7)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free, 3 * 2**20))
    )
    out = tmp_path / "out"
    summary = _run(detector, str(write_video(tmp_path / "clip.mp4", frames=30)), out)
    assert summary.ended == "failed" and summary.frames == 7 and summary.incomplete
    assert str(summary.error) == (
        f"the disk of {out} is full: 3.0 MiB are left, which are needed to complete the files. "
        "Make room, or choose another `out`."
    )
    said = _whole(out, "clip.mp4")
    assert said["ended"] == "failed" and said["error"].startswith("the disk of ")


def test_a_limit_on_file_sizes(model_path: Path, tmp_path: Path) -> None:
    """A real one, of the operating system, in a process of its own."""
    source = write_video(tmp_path / "clip.avi", frames=400, size=(240, 320))
    limit = 3 * 2**20
    ran = subprocess.run(
        [sys.executable, "-m", "retinart", "detect", str(model_path), str(source)],
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2, ran.stderr
    assert "an output in runs/detect has almost reached 3.0 MiB" in ran.stderr
    assert "(ulimit -f). Raise the limit." in ran.stderr
    assert "what was done until then is kept" in ran.stderr and "Traceback" not in ran.stderr
    said = _whole(tmp_path / "runs" / "detect", "clip.mp4")
    assert 5 < said["frames"]["written"] < 400 and said["ended"] == "failed"


class OnDisk:
    """A file on a disk that has room for so many bytes more; None for any number."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.room: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        if self.room == 0:
            raise OSError(28, "No space left on device")
        written: int = self._file.write(data[: self.room])
        if self.room is not None:
            self.room -= written
        return written


def test_half_a_line_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk leaves of a line: here its first four bytes."""
    real, files = Path.open, list[OnDisk]()

    def opened(path: Path, *how: Any, **more: Any) -> OnDisk:
        files.append(OnDisk(real(path, *how, **more)))
        return files[-1]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", opened)
        lines = LineFile(tmp_path / "a.jsonl")
    (disk,) = files
    assert not (tmp_path / "a.jsonl").exists()
    lines.write("first\n")
    assert (tmp_path / "a.jsonl").read_text() == "first\n"
    disk.room = 4
    with pytest.raises(OSError, match="No space left"):
        lines.write("second\n")
    assert (tmp_path / "a.jsonl").read_text() == "first\n"
    disk.room = None
    lines.write("third\n")
    lines.close()
    assert (tmp_path / "a.jsonl").read_text() == "first\nthird\n"
    assert files_below(tmp_path) == ["a.jsonl"]


def test_room_grows_with_the_index_that_is_still_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    video = tmp_path / "v.mp4"
    video.touch()
    check_room([tmp_path], {video: 1000})
    with pytest.raises(OutOfRoom):
        check_room([tmp_path], {video: 10**6})


@pytest.mark.parametrize("kind", ["csv", "coco"])
def test_the_disk_of_a_further_output_fills_up(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The output may be on another disk than --out."""
    other = tmp_path / "other"
    other.mkdir()
    free = iter([10**9] * 4)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: SimpleNamespace(free=next(free, 2**20) if path == other else 10**9),
    )
    clip = str(write_video(tmp_path / "clip.mp4", frames=10))
    summary = _run(detector, clip, tmp_path / "out", **{kind: other / "r"})
    assert str(summary.error).startswith(f"the disk of {other} is full")
    assert summary.frames == 4 and files_below(other) == ["r"]
    _whole(tmp_path / "out", "clip.mp4")


def test_a_further_output_near_the_largest_size(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "retinart.engine.job.disk.largest_file", lambda: 2**20 - 1
    )  # all is held back
    clip = str(write_video(tmp_path / "clip.mp4", frames=10))
    table = tmp_path / "other" / "r.csv"
    table.parent.mkdir()
    with pytest.raises(OutOfRoom, match=f"an output in {table.parent} has almost reached 1.0 MiB"):
        _run(detector, clip, tmp_path / "out", csv=table, copies=False)
    assert files_below(tmp_path) == ["clip.mp4"]


def test_one_source_that_dies_does_not_stop_the_others(
    retinart: Command, model_path: Path, tmp_path: Path
) -> None:
    source, out = write_video(tmp_path / "clip.mp4", frames=25), tmp_path / "out"
    arguments = ["detect", model_path, CLOSED, source, "--out", out, "--max-retries", "1"]
    ran = retinart(*arguments)
    assert ran.returncode == 0
    assert f"{CLOSED} was lost: cannot be opened (Connection refused)\n" in ran.stderr
    assert _whole(out, "clip.mp4")["ended"] == "complete"
    assert [line["frame"] for line in read_lines(out / "detections.jsonl")] == list(range(25))
    assert retinart(*arguments, "--strict", "--overwrite").returncode == 1


def test_a_camera_that_comes_back(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It hangs up, it stalls, it is gone for good; all results are in one file."""
    done = threading.Event()

    def frames(connection: int) -> Iterator[bytes]:
        for i in range(4 if connection < 3 else 0):
            yield numbered_jpeg(10 * connection + i, make_picture(connection, 240, 320))
        if connection == 1:
            done.wait(WAIT)

    with MJPEGServer(frames) as camera:
        settings = StreamSettings(timeout=2.0, max_retries=1, backoff=0.01)
        summary = _run(detector, camera.url, tmp_path / "out", stream=settings)
        done.set()
    counts = summary.sources[0].counts
    assert (counts.read, counts.reconnects, counts.ended) == (12, 3, "lost")
    indices = [line["frame"] for line in read_lines(tmp_path / "out" / "detections.jsonl")]
    assert len(indices) == summary.frames >= 3 and indices == sorted(set(indices))
    said = [x.split(": ")[1] for x in capsys.readouterr().err.splitlines() if "; " in x]
    assert said == [
        "the stream ended or broke off; retry 1 of 1 in 0.0 s",
        "no frame for 2 s; retry 1 of 1 in 0.0 s",
        "the stream ended or broke off; retry 1 of 1 in 0.0 s",
        "cannot be opened (Input/output error); given up after 1 retry",
    ]


def test_a_source_that_never_comes(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    ran = retinart(
        "detect", model_path, CLOSED.replace("://", "://me:secret@"), "--max-retries", "0",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    why = "cannot be opened (Connection refused)"
    assert f"retinart: nothing was received from {CLOSED}: {why}. Check " in ran.stderr
    assert "secret" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_camera_that_is_lost(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jpegs = [numbered_jpeg(i, make_picture(i)) for i in range(5)]
    with MJPEGServer(lambda connection: iter(jpegs if connection == 0 else [])) as camera:
        ran = retinart("detect", model_path, camera.url, "--max-retries", "0", "--out", out)
    assert ran.returncode == 2 and ran.stderr.endswith(
        "retinart: every source was lost. Check the sources, or raise --timeout or --max-retries.\n"
    )
    said = json.loads((out / "summary.json").read_text())
    assert said["ended"] == "lost" and said["sources"][0]["read"] == 5
    assert said["frames"]["written"] == len(read_lines(out / "detections.jsonl")) > 0
    assert ran.stdout.splitlines()[0] == str(out / "detections.jsonl")


def test_an_output_that_cannot_be_ended_leaves_the_others(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = str(write_video(tmp_path / "clip.mp4")), tmp_path / "out"

    def broken(*args: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("retinart.engine.job.records.COCOResults.close", broken)
    summary = _run(detector, source, out, coco=tmp_path / "r.json", csv=tmp_path / "r.csv")
    assert [str(p) for p in summary.problems] == ["[Errno 5] Input/output error"]
    assert summary.incomplete and summary.frames == 12
    _whole(out, "clip.mp4")
    assert not (tmp_path / "r.json").exists() and (tmp_path / "r.csv").exists()
