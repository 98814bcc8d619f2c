"""A detection job on bad input: what it says, what it keeps, what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retinart.engine.common.timing import StageClock
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.job.job import run_job
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.summary import DetectSummary
from retinart.engine.media.video_writer import VideoWriter
from retinart.engine.runtime.runner import Pending, Prepared
from support import count_frames, files_below, make_picture, read_lines, write_images, write_video


@pytest.fixture(scope="module")
def detector(model_path: Path) -> Iterator[Detector]:
    with Detector(model_path, threads=2) as one:
        yield one


def _run(detector: Detector, source: Path | str, out: Path, **more: Any) -> DetectSummary:
    return run_job(detector, DetectJob(source=str(source), out=out, **more))


def _interrupt(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Press Ctrl-C when so many images were submitted."""
    calls, real = iter(range(1000)), Prepared.submit

    def submit(self: Prepared, clock: StageClock) -> Pending:
        if next(calls) == after:
            raise KeyboardInterrupt
        return real(self, clock)

    monkeypatch.setattr(Prepared, "submit", submit)


def test_bad_images_are_skipped_and_named(detector: Detector, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "a.png", "d.png")
    (folder / "b.jpg").touch()
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes()[:60])
    summary = _run(detector, folder, tmp_path / "out")
    assert summary.frames == 2
    assert summary.skipped == [
        (folder / "b.jpg", "the file is empty"),
        (folder / "c.png", "it is truncated or no image format"),
    ]
    assert files_below(tmp_path / "out") == ["a.png", "d.png", "detections.jsonl", "summary.json"]
    # the index is the place in the list of images, which the bad ones are in
    assert [line["frame"] for line in read_lines(tmp_path / "out/detections.jsonl")] == [0, 3]


def test_no_readable_image_leaves_nothing(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").touch()
    with pytest.raises(BadInput) as raised:
        _run(detector, tmp_path / "in", tmp_path / "out", csv=tmp_path / "r.csv")
    assert str(raised.value) == (
        f"no image at {tmp_path / 'in'} can be read: a.jpg: the file is empty. "
        "Give another folder, or copy them again."
    )
    assert files_below(tmp_path) == ["in/a.jpg"]
    assert not (tmp_path / "out").exists()  # this job made it


def test_a_file_that_is_neither_image_nor_video(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(BadInput) as raised:
        _run(detector, tmp_path / "notes.txt", tmp_path / "out")
    assert str(raised.value) == (
        f"{tmp_path / 'notes.txt'} can be read neither as an image nor as a video: it is truncated "
        "or no image format. Give an image, a video, a folder of images or an address."
    )
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["none", "none.png", "*.webp", "none.mp4"])
def test_no_source_makes_no_folder(detector: Detector, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"no images at|there is no video at"):
        _run(detector, tmp_path / name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.25, 0.52, 0.93])
def test_a_video_cut_in_the_middle_of_a_frame(
    detector: Detector, tmp_path: Path, share: float
) -> None:
    data = write_video(tmp_path / "whole.avi", frames=20).read_bytes()
    cut = tmp_path / "cut.avi"
    start, end = data.index(b"movi"), data.rindex(b"idx1")
    data = data[: start + int(share * (end - start))]
    cut.write_bytes(data)
    begun, complete = data.count(b"\xff\xd8\xff"), data.count(b"\xff\xd9")
    assert 2 < complete < begun < 20  # the cut goes through a frame
    summary = _run(detector, cut, tmp_path / "out")
    assert summary.ended_early and summary.announced == 20
    assert complete - 1 <= summary.frames <= begun
    assert files_below(tmp_path / "out") == ["cut.mp4", "detections.jsonl", "summary.json"]
    assert count_frames(tmp_path / "out" / "cut.mp4") == summary.frames
    lines = read_lines(tmp_path / "out" / "detections.jsonl")
    assert [line["frame"] for line in lines] == list(range(summary.frames))


@pytest.mark.parametrize(
    "content", [b"", b"no video", b"\0" * 5000, b"RIFF\x10\0\0\0AVI LIST"], ids=len
)
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_without_a_frame(
    detector: Detector, tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"v{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInput) as raised:
        _run(detector, path, tmp_path / "out")
    assert str(raised.value) == (
        f"cannot decode the video {path}: it is empty, damaged, or of a format that FFmpeg does "
        "not know. Play it with ffplay to see what it is, and convert it with ffmpeg -i IN OUT.mp4."
    )
    assert files_below(tmp_path) == [path.name] and not (tmp_path / "out").exists()


def test_an_mp4_without_its_index(detector: Detector, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])
    with pytest.raises(BadInput, match=r"cannot decode the video .*v\.mp4: it is empty, damaged"):
        _run(detector, path, tmp_path / "out")
    assert files_below(tmp_path) == ["v.mp4"]


@pytest.mark.parametrize("where", ["out", "out/below", "coco", "csv"])
def test_an_output_that_cannot_be_written(detector: Detector, tmp_path: Path, where: str) -> None:
    folder = write_images(tmp_path / "in", "a.png")
    (tmp_path / "file").write_text("mine")
    targets: dict[str, Any] = {"out": tmp_path / "out"}
    blocked = tmp_path / "file" if where == "out" else tmp_path / "file" / "below"
    key = where.split("/")[0]
    targets[key] = blocked if key == "out" else blocked / "r.txt"
    with pytest.raises(BadInput) as raised:
        _run(detector, folder, **targets)
    assert str(raised.value).startswith(f"cannot write to the folder {blocked}: ")
    assert str(raised.value).endswith("Choose another output folder or change its permissions.")
    assert files_below(tmp_path) == ["file", "in/a.png"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["detections.jsonl", "clip.mp4", "r.json"])
def test_a_folder_in_the_place_of_an_output(detector: Detector, tmp_path: Path, name: str) -> None:
    """Found before the work, not by the rename after it."""
    source = write_video(tmp_path / "clip.avi")
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(BadInput) as raised:
        _run(detector, source, tmp_path / "out", coco=tmp_path / "out" / "r.json")
    assert str(raised.value) == (
        f"cannot write {tmp_path / 'out' / name}: it is a folder. Choose another name."
    )
    assert files_below(tmp_path) == ["clip.avi"]


def test_copies_never_overwrite_their_sources(detector: Detector, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "a.png", "b.png")
    clip = write_video(folder / "clip.mp4")
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    for source, out in ((folder, folder), (folder / "b.png", link), (clip, folder), (clip, link)):
        with pytest.raises(BadInput) as raised:
            _run(detector, source, out)
        assert str(raised.value).startswith("the output ")
        assert "would overwrite its source " in str(raised.value)
        assert str(raised.value).endswith("Choose another `out`, or another name.")
        assert {p: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("coco", "csv", "message"),
    [
        ("r", "r", "two outputs would be written to "),
        ("r", "new/../r", "two outputs would be written to "),
        ("out/detections.jsonl", None, "two outputs would be written to "),
        (None, "out/a.png", "two outputs would be written to "),
        (None, "in/a.png", "would overwrite its source "),
    ],
)
def test_outputs_do_not_overwrite_each_other(
    detector: Detector, tmp_path: Path, coco: str | None, csv: str | None, message: str
) -> None:
    """Said before any work; the later rename would have won in silence."""
    folder = write_images(tmp_path / "in", "a.png")
    before = (folder / "a.png").read_bytes()
    more = {k: tmp_path / v for k, v in (("coco", coco), ("csv", csv)) if v is not None}
    with pytest.raises(BadInput, match=message):
        _run(detector, folder, tmp_path / "out", **more)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert (folder / "a.png").read_bytes() == before


def test_an_overwrite_is_found_before_the_first_copy(detector: Detector, tmp_path: Path) -> None:
    """`in/z` would go to `in/z/...`: only the second source meets its own copy."""
    write_images(tmp_path, "a/x.png", "b/y.png")
    with pytest.raises(BadInput, match="would overwrite its source"):
        _run(detector, f"{tmp_path}/*/*.png", tmp_path)
    assert files_below(tmp_path) == ["a/x.png", "b/y.png"]


def test_ctrl_c_keeps_whole_lines_and_a_playable_video(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "clip.mp4")
    _interrupt(monkeypatch, after=5)
    summary = _run(
        detector, source, tmp_path / "out", coco=tmp_path / "r.json", csv=tmp_path / "r.csv"
    )
    assert summary.interrupted and not summary.ended_early and summary.frames == 5
    assert files_below(tmp_path) == [
        "clip.mp4",
        "out/clip.mp4",
        "out/detections.jsonl",
        "out/summary.json",
        "r.csv",
        "r.json",
    ]
    assert [x["frame"] for x in read_lines(tmp_path / "out/detections.jsonl")] == list(range(5))
    assert count_frames(tmp_path / "out" / "clip.mp4") == 5
    assert {r["image_index"] for r in json.loads((tmp_path / "r.json").read_text())} <= set(
        range(5)
    )


def test_ctrl_c_before_the_first_image_leaves_earlier_results(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "clip.mp4")
    _run(detector, source, tmp_path / "out")
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    _interrupt(monkeypatch, after=0)
    with pytest.raises(KeyboardInterrupt):
        _run(detector, source, tmp_path / "out")
    assert {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)} == before


def test_a_line_is_written_in_one_call(detector: Detector, tmp_path: Path) -> None:
    """Ctrl-C can come between two calls, not within one."""
    from retinart.engine.evaluation.problems import Problems
    from retinart.engine.evaluation.result_ids import ResultIds
    from retinart.engine.job.records import COCOResults, CSVRows, Record

    class Calls(list[str]):
        def write(self, text: str) -> None:
            self.append(text)

    found = detector(make_picture(0))
    record = Record(source="a", frame=0, time_ms=None, width=1, height=1, detections=found)
    rows: Any = Calls()
    CSVRows(rows, detector.classes).write(record)
    assert all(row.endswith("\r\n") for row in rows) and len(rows) == len(found) + 1
    results: Any = Calls()
    ids = ResultIds(classes=detector.classes)
    COCOResults(results, ids, Problems().add).write(record)
    assert len(results) == len(found) + 1
    assert json.loads("".join(results) + "]")


def test_an_error_in_the_middle_keeps_what_was_done(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "clip.mp4")
    calls = iter(range(100))

    real = VideoWriter.write

    def fail(*args: Any) -> None:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        real(*args)

    monkeypatch.setattr(VideoWriter, "write", fail)
    summary = _run(detector, source, tmp_path / "out", csv=tmp_path / "r.csv")
    assert summary.ended == "failed" and "No space left" in str(summary.error)
    assert summary.frames == 3 and summary.incomplete
    assert len(read_lines(tmp_path / "out" / "detections.jsonl")) == 3
    assert count_frames(tmp_path / "out" / "clip.mp4") == 3
    said = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (said["ended"], said["frames"]["written"]) == ("failed", 3)
    assert "No space left" in said["error"]
    out = ["out/clip.mp4", "out/detections.jsonl", "out/summary.json"]
    assert files_below(tmp_path) == ["clip.mp4", *out, "r.csv"]


def test_an_error_at_the_first_frame_leaves_nothing(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoWriter, "write", fail)
    source = write_video(tmp_path / "clip.mp4")
    with pytest.raises(OSError, match="No space left"):
        _run(detector, source, tmp_path / "out", csv=tmp_path / "r.csv")
    assert files_below(tmp_path) == ["clip.mp4"]
