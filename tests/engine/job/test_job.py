"""A detection job: what it writes of images and videos."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from retinart.engine.detector import Detector
from retinart.engine.job import outputs
from retinart.engine.job.job import run_job
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.summary import DetectSummary
from retinart.engine.media.images import Image
from retinart.engine.media.video import VideoReader
from support import count_frames, files_below, make_picture, read_lines, write_images, write_video

LINE_KEYS = ["source", "frame", "time_ms", "width", "height", "detections"]
DETECTION_KEYS = ["box", "score", "class_id", "class"]


@pytest.fixture(scope="module")
def detector(model_path: Path) -> Iterator[Detector]:
    with Detector(model_path, threads=2) as one:
        yield one


def _read(path: Path) -> Image:
    return np.asarray(cv2.imread(str(path)), np.uint8)


def _run(detector: Detector, source: Path | str, out: Path, **more: Any) -> DetectSummary:
    return run_job(detector, DetectJob(source=str(source), out=out, **more))


def test_a_folder(detector: Detector, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "b.png", "a.jpg")
    summary = _run(detector, folder, tmp_path / "out", draw_conf=0.0)
    assert (summary.frames, summary.skipped, summary.announced) == (2, [], None)
    assert files_below(tmp_path / "out") == ["a.jpg", "b.png", "detections.jsonl", "summary.json"]
    lines = read_lines(tmp_path / "out" / "detections.jsonl")
    assert summary.detections == sum(len(line["detections"]) for line in lines) > 2
    for index, (line, name) in enumerate(zip(lines, ["a.jpg", "b.png"], strict=True)):
        assert list(line) == LINE_KEYS
        assert (line["source"], line["frame"]) == (str(folder / name), index)
        assert (line["time_ms"], line["width"], line["height"]) == (None, 128, 96)
        image = cv2.imread(str(folder / name))
        found = detector(np.asarray(image, np.uint8))
        assert len(line["detections"]) == len(found)
        for entry, (box, score, label) in zip(line["detections"], found, strict=True):
            assert list(entry) == DETECTION_KEYS
            np.testing.assert_allclose(entry["box"], box, atol=0.0051)
            assert abs(entry["score"] - score) < 1e-5
            assert entry["class_id"] == label and entry["class"] == detector.classes[label]
        drawn = cv2.imread(str(tmp_path / "out" / name))
        assert image is not None and drawn is not None and drawn.shape == image.shape
        assert (drawn != image).any()


def test_one_image_that_no_encoder_writes_in_colour(detector: Detector, tmp_path: Path) -> None:
    """Such a copy becomes a PNG rather than the end of the job."""
    folder = tmp_path / "in"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "grey.pgm"), make_picture(0)[:, :, 0])
    (folder / "photo").write_bytes(cv2.imencode(".jpg", make_picture(1))[1].tobytes())
    _run(detector, folder / "grey.pgm", tmp_path / "out")
    _run(detector, folder / "photo", tmp_path / "out2")
    assert files_below(tmp_path / "out") == ["detections.jsonl", "grey.pgm.png", "summary.json"]
    assert files_below(tmp_path / "out2") == ["detections.jsonl", "photo.png", "summary.json"]


def test_a_picture_larger_than_its_format_allows(tmp_path: Path) -> None:
    outputs.write_picture(tmp_path / "a.jpg", np.zeros((70_000, 2, 3), np.uint8), set())
    assert files_below(tmp_path) == ["a.jpg.png"]


def test_equal_names_of_several_folders_do_not_meet(detector: Detector, tmp_path: Path) -> None:
    write_images(tmp_path / "in", "one/a.png", "two/a.png", "two/deep/a.png")
    summary = _run(detector, f"{tmp_path}/in/**/*.png", tmp_path / "out")
    assert summary.frames == 3
    assert files_below(tmp_path / "out") == [
        "detections.jsonl",
        "one/a.png",
        "summary.json",
        "two/a.png",
        "two/deep/a.png",
    ]


def test_relative_sources(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, "a.png", "sub/b.png")
    monkeypatch.chdir(tmp_path / "sub")
    _run(detector, "../a.png", Path("out"))
    _run(detector, "b.png", Path("out"))
    assert files_below(tmp_path / "sub" / "out") == [
        "a.png",
        "b.png",
        "detections.jsonl",
        "summary.json",
    ]
    assert [line["source"] for line in read_lines(Path("out/detections.jsonl"))] == ["b.png"]


def test_a_video(detector: Detector, tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4")
    summary = _run(detector, source, tmp_path / "out")
    assert (summary.frames, summary.announced, summary.ended_early) == (12, 12, False)
    assert files_below(tmp_path / "out") == ["clip.mp4", "detections.jsonl", "summary.json"]
    assert count_frames(tmp_path / "out" / "clip.mp4") == 12
    lines = read_lines(tmp_path / "out" / "detections.jsonl")
    assert [line["frame"] for line in lines] == list(range(12))
    np.testing.assert_allclose([line["time_ms"] for line in lines], np.arange(12) * 100, atol=1)
    assert all(list(line) == LINE_KEYS and line["source"] == str(source) for line in lines)
    parts = ["infer: infer", "infer: nms", "infer: results"]
    assert list(summary.stages) == ["decode", "resize", "infer", *parts, "draw", "write"]
    assert all(t.count == 12 for t in summary.stages.values()) and summary.to_result.count == 12
    assert summary.to_detections.count == 12
    assert summary.to_detections.max_ms < summary.to_result.max_ms


def test_a_video_of_odd_size(detector: Detector, tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "odd.avi", size=(97, 131))) as video:
        size = video.size
    _run(detector, tmp_path / "odd.avi", tmp_path / "out")
    assert count_frames(tmp_path / "out" / "odd.mp4") == 12
    line = read_lines(tmp_path / "out" / "detections.jsonl")[0]
    assert (line["height"], line["width"]) == size


def test_coco_and_csv(detector: Detector, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "000042.png", "cat.png")
    coco, rows = tmp_path / "made" / "r.json", tmp_path / "made" / "r.csv"
    summary = _run(detector, folder, tmp_path / "out", coco=coco, csv=rows)
    out = tmp_path / "out"
    assert summary.outputs == [out / "detections.jsonl", coco, rows, out, out / "summary.json"]
    assert files_below(tmp_path / "made") == ["r.csv", "r.json"]
    lines = read_lines(tmp_path / "out" / "detections.jsonl")
    flat = [(line, d) for line in lines for d in line["detections"]]
    results = json.loads(coco.read_text())
    assert len(results) == len(flat) == summary.detections
    for result, (line, d) in zip(results, flat, strict=True):
        names = ["image_index", "file_name", "class_index", "class_name"]
        assert list(result) == [*names, "bbox", "score"]
        assert [result[name] for name in names] == [
            line["frame"], Path(line["source"]).name, d["class_id"], d["class"]
        ]  # fmt: skip
        x, y, w, h = result["bbox"]
        np.testing.assert_allclose([x, y, x + w, y + h], d["box"], atol=0.01)
    with rows.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == [
        "source",
        "frame",
        "time_ms",
        "x1",
        "y1",
        "x2",
        "y2",
        "score",
        "class_id",
        "class",
    ]
    assert len(table) == len(flat)
    for row, (line, d) in zip(table, flat, strict=True):
        assert (row["source"], row["frame"], row["time_ms"]) == (
            line["source"],
            str(line["frame"]),
            "",
        )
        assert [float(row[k]) for k in ("x1", "y1", "x2", "y2")] == d["box"]
        assert (row["class_id"], row["class"]) == (str(d["class_id"]), d["class"])


def test_a_png_in_place_of_a_format_takes_no_other_copys_name(
    detector: Detector, tmp_path: Path
) -> None:
    folder = write_images(tmp_path / "in", "a.pgm.png")
    assert cv2.imwrite(str(folder / "a.pgm"), make_picture(7)[:, :, 0])
    _run(detector, folder, tmp_path / "out", draw_conf=1.1)  # nothing is drawn
    assert files_below(tmp_path / "out") == [
        "a.pgm.png",
        "a.pgm.png.png",
        "detections.jsonl",
        "summary.json",
    ]
    for name, copy in (("a.pgm.png", "a.pgm.png"), ("a.pgm", "a.pgm.png.png")):
        np.testing.assert_array_equal(_read(tmp_path / "out" / copy), _read(folder / name))


def test_a_named_file_is_tried_as_an_image_then_as_a_video(
    detector: Detector, tmp_path: Path
) -> None:
    clip = write_video(tmp_path / "clip.avi")
    for name in ("clip.divx", "clip"):
        path = clip.with_name(name)
        path.write_bytes(clip.read_bytes())
        assert _run(detector, path, tmp_path / "out").frames == 12
    assert files_below(tmp_path / "out") == ["clip.mp4", "detections.jsonl", "summary.json"]
    write_images(tmp_path / "frames.mkv", "a.png")  # a folder, in spite of its name
    assert _run(detector, tmp_path / "frames.mkv", tmp_path / "out").announced is None


def test_coco_without_a_detection_is_an_empty_list(model_path: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "a.png")
    with Detector(model_path, conf=1.0) as detector:
        _run(detector, folder, tmp_path / "out", coco=tmp_path / "r.json", csv=tmp_path / "r.csv")
    assert json.loads((tmp_path / "r.json").read_text()) == []
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1
    assert read_lines(tmp_path / "out" / "detections.jsonl")[0]["detections"] == []


def test_names_that_are_not_utf8(detector: Detector, tmp_path: Path) -> None:
    """Of a file, of a suffix, of the output folder: OpenCV ends the process on such a name."""
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    folder = Path(os.fsdecode(odd))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data = cv2.imencode(".png", make_picture(0))[1].tobytes()
    path, suffix = (Path(os.fsdecode(odd + end)) for end in (b"/\xe9.png", b"/a.pn\xe9"))
    out = Path(os.fsdecode(odd + b"/out"))
    for source in (path, suffix):
        source.write_bytes(data)
        _run(detector, source, out, csv=tmp_path / "r.csv", coco=tmp_path / "r.json")
        assert source.name.encode(errors="surrogateescape") in (tmp_path / "r.csv").read_bytes()
        assert read_lines(out / "detections.jsonl")[0]["source"] == str(source)
    assert files_below(out) == sorted(
        ["detections.jsonl", "summary.json", path.name, f"{suffix.name}.png"]
    )


def _tone(path: Path, sound: str | None) -> Path:
    """A video of two seconds, with a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10, width=128, height=96)
        assert isinstance(video, av.VideoStream)
        audio = None if sound is None else container.add_stream(sound, rate=48000, layout="mono")
        for seed in range(20):
            frame = av.VideoFrame.from_ndarray(make_picture(seed), "bgr24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            assert isinstance(audio, av.AudioStream)
            samples = (8000 * np.sin(np.arange(96_000) / 20)).astype(np.int16)
            for at in range(0, 96_000, 960):
                piece = av.AudioFrame.from_ndarray(samples[None, at : at + 960], "s16", "mono")
                piece.rate, piece.pts = 48000, at
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(
    ("sound", "audio", "became", "note"),
    [
        ("aac", True, "kept", None),
        ("aac", False, "dropped", "annotated videos have no sound; the option `audio` keeps it"),
        (None, True, "none", "clip.mp4 has no sound that could be kept"),
        (None, False, "none", None),
    ],
)
def test_sound(
    detector: Detector,
    tmp_path: Path,
    sound: str | None,
    audio: bool,
    became: str,
    note: str | None,
) -> None:
    source = _tone(tmp_path / "clip.mp4", sound)
    summary = _run(detector, source, tmp_path / "out", audio=audio)
    assert [s.sound for s in summary.sources] == [became]
    notes = [text.replace(f"{tmp_path}/", "") for text in summary.notes if "sound" in text]
    assert notes == ([] if note is None else [note])
    with av.open(str(tmp_path / "out" / "clip.mp4")) as copy:
        assert copy.streams.video[0].frames == 20
        assert len(copy.streams.audio) == (became == "kept")


def test_a_video_that_was_recorded_sideways(detector: Detector, tmp_path: Path) -> None:
    """Its detections and its copy are upright."""
    source = tmp_path / "clip.mp4"
    with av.open(str(source), "w") as container:
        video = container.add_stream("mpeg4", rate=10, width=128, height=96)
        assert isinstance(video, av.VideoStream)
        video.set_display_rotation(90)
        container.mux(video.encode(av.VideoFrame.from_ndarray(make_picture(0), "bgr24")))
        container.mux(video.encode(None))
    _run(detector, source, tmp_path / "out")
    (line,) = read_lines(tmp_path / "out" / "detections.jsonl")
    assert (line["height"], line["width"]) == (128, 96)
    with VideoReader(tmp_path / "out" / "clip.mp4") as made:
        assert made.size == (128, 96)


def test_limits_are_told_once(model_path: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", "a.png", "b.png")
    with Detector(model_path, threads=1, max_det=3) as few:
        summary = _run(few, folder, tmp_path / "out")
    assert sum(note.startswith("2 of 2 images may hold more") for note in summary.notes) == 1
    said = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert said["limits"]["detections"] == summary.limits.to_json()["detections"] == 2
    assert said["notes"] == summary.notes
    with Detector(model_path, threads=1, conf=0.99) as none:
        summary = _run(none, folder, tmp_path / "none")
    assert not any(summary.limits.to_json().values()) and not summary.notes


def test_the_count_begins_no_lower_than_the_detections(model_path: Path, tmp_path: Path) -> None:
    """`--conf 0.5` printed "with a score from 0.3 on"."""
    folder = write_images(tmp_path / "in", "a.png")
    with Detector(model_path, conf=0.5, threads=1) as strict:
        summary = _run(strict, folder, tmp_path / "out", draw_conf=0.3)
    assert summary.draw_conf == 0.5
