"""`retinart detect`: exit codes, stdout and stderr, and the files it leaves."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from retinart.engine.common.timing import StageClock
from retinart.engine.errors import BadInput
from retinart.engine.media.video import VideoReader
from retinart.engine.runtime.runner import Pending, Prepared
from support import files_below, write_images

Command = Callable[..., CompletedProcess[str]]


def test_detect_on_a_folder(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = retinart("detect", model_path, images, "--out", out)
    assert ran.returncode == 0
    names = (out / "detections.jsonl", out, out / "summary.json")
    assert ran.stdout.splitlines() == [str(p) for p in names]
    limit, said = ran.stderr.splitlines()
    assert limit.startswith("3 of 3 images may hold more") and "raise --max-det" in limit
    assert said.startswith("3 images, ") and "skipped" not in said
    assert files_below(out) == ["0.png", "1.png", "2.png", "detections.jsonl", "summary.json"]
    lines = [json.loads(x) for x in (out / "detections.jsonl").read_text().splitlines()]
    keys = ["source", "frame", "time_ms", "width", "height", "detections"]
    assert [list(line) for line in lines] == [keys] * 3
    assert list(lines[0]["detections"][0]) == ["box", "score", "class_id", "class"]


def test_detect_on_an_image_a_glob_and_with_every_output(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    ran = retinart("detect", model_path, images / "1.png", "--out", tmp_path / "one")
    assert ran.returncode == 0 and files_below(tmp_path / "one") == [
        "1.png",
        "detections.jsonl",
        "summary.json",
    ]
    glob, out = f"{images}/[02].png", tmp_path / "some"
    coco, rows = tmp_path / "r.json", tmp_path / "r.csv"
    ran = retinart("detect", model_path, glob, "--out", out, "--coco", coco, "--csv", rows)
    assert ran.returncode == 0 and files_below(out) == [
        "0.png",
        "2.png",
        "detections.jsonl",
        "summary.json",
    ]
    names = (out / "detections.jsonl", coco, rows, out, out / "summary.json")
    assert ran.stdout.splitlines() == [str(p) for p in names]
    lines = (out / "detections.jsonl").read_text().splitlines()
    count = sum(len(json.loads(line)["detections"]) for line in lines)
    assert len(json.loads(coco.read_text())) == count
    assert len(rows.read_text().splitlines()) == count + 1


def test_detect_on_a_video(
    retinart: Command, model_path: Path, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = retinart("detect", model_path, video, "--out", out, "--conf", "0.5", "--strict")
    assert ran.returncode == 0 and "10 frames, " in ran.stderr
    assert files_below(out) == ["clip.mp4", "detections.jsonl", "summary.json"]
    with VideoReader(out / "clip.mp4") as made:
        assert sum(1 for _ in made) == 10
    lines = [json.loads(x) for x in (out / "detections.jsonl").read_text().splitlines()]
    assert [line["time_ms"] for line in lines] == [100.0 * i for i in range(10)]
    assert all(d["score"] > 0.5 for line in lines for d in line["detections"])


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_bad_images_in_a_folder(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, strict: bool, code: int
) -> None:
    (images / "empty.jpg").touch()
    (images / "cut.png").write_bytes((images / "0.png").read_bytes()[:80])
    out = tmp_path / "out"
    more = ["--strict"] if strict else []
    ran = retinart("detect", model_path, images, "--out", out, *more)
    assert ran.returncode == code
    assert f"skipped {images / 'empty.jpg'}: the file is empty\n" in ran.stderr
    assert f"skipped {images / 'cut.png'}: it is truncated or no image format\n" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("3 images, 2 skipped, ")
    assert files_below(out) == ["0.png", "1.png", "2.png", "detections.jsonl", "summary.json"]


def test_nothing_but_bad_images(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        (folder / name).touch()
    ran = retinart("detect", model_path, folder, "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(
        f"retinart: no image at {folder} can be read: a.jpg: the file is empty. "
        "Give another folder, or copy them again.\n"
    )
    assert files_below(tmp_path) == ["images/a.jpg", "images/b.png"]


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 1)])
def test_a_video_that_ends_in_the_middle_of_a_frame(
    retinart: Command, model_path: Path, video: Path, tmp_path: Path, strict: bool, code: int
) -> None:
    data = video.read_bytes()
    start, end = data.index(b"movi"), data.rindex(b"idx1")
    video.write_bytes(data[: start + (end - start) * 6 // 10])
    out = tmp_path / "out"
    ran = retinart("detect", model_path, video, "--out", out, *(["--strict"] if strict else []))
    assert ran.returncode == code
    with VideoReader(out / "clip.mp4") as made:
        frames = sum(1 for _ in made)
    assert 3 < frames < 9
    assert (
        f"the video ended early: {frames} of 10 frames could be decoded, and those are kept\n"
        in ran.stderr
    )
    assert len((out / "detections.jsonl").read_text().splitlines()) == frames
    assert files_below(out) == ["clip.mp4", "detections.jsonl", "summary.json"]


def test_a_video_that_cannot_be_decoded(
    retinart: Command, model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "v.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 3000)
    ran = retinart("detect", model_path, tmp_path / "v.mp4", "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        f"retinart: cannot decode the video {tmp_path / 'v.mp4'}: it is empty, dama" in ran.stderr
    )
    assert files_below(tmp_path) == ["v.mp4"]


@pytest.mark.parametrize("below", [False, True])
def test_an_output_folder_that_cannot_be_made(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path, below: bool
) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out" if below else tmp_path / "file"
    ran = retinart("detect", model_path, images, "--out", out)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"retinart: cannot write to the folder {out}: " in ran.stderr
    assert ran.stderr.endswith("Choose another output folder or change its permissions.\n")
    assert files_below(tmp_path) == ["file", "images/0.png", "images/1.png", "images/2.png"]
    assert (tmp_path / "file").read_text() == "mine"


def test_the_copies_do_not_overwrite_their_sources(
    retinart: Command, model_path: Path, images: Path
) -> None:
    before = {name: (images / name).read_bytes() for name in files_below(images)}
    ran = retinart("detect", model_path, images, "--out", images)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "would overwrite its source" in ran.stderr and "--out" in ran.stderr
    assert {name: (images / name).read_bytes() for name in files_below(images)} == before


def test_ctrl_c(
    retinart: Command,
    model_path: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = iter(range(100))
    real = Prepared.submit

    def stopped(self: Prepared, clock: StageClock) -> Pending:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return real(self, clock)

    monkeypatch.setattr(Prepared, "submit", stopped)
    out = tmp_path / "out"
    ran = retinart("detect", model_path, video, "--out", out)
    assert ran.returncode == 130
    assert ran.stderr.endswith("interrupted; what was done until then is kept\n")
    names = ["detections.jsonl", "clip.mp4", "summary.json"]
    assert ran.stdout.splitlines() == [str(out / name) for name in names]
    lines = (out / "detections.jsonl").read_text()
    assert lines.endswith("}\n") and len([json.loads(x) for x in lines.splitlines()]) == 4
    with VideoReader(out / "clip.mp4") as made:
        assert sum(1 for _ in made) == 4
    assert files_below(out) == ["clip.mp4", "detections.jsonl", "summary.json"]


def test_the_help_says_what_coco_ids_are(retinart: Command) -> None:
    said = " ".join(retinart("detect", "--help").stdout.split())
    assert "other results have class_index and image_index, from 0, instead" in said
    assert "--annotations" in said and "so that pycocotools takes both files" in said


def test_ctrl_c_at_once(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(self: Prepared, clock: StageClock) -> Pending:
        raise KeyboardInterrupt

    monkeypatch.setattr(Prepared, "submit", stopped)
    ran = retinart("detect", model_path, images, "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (130, "") and ran.stderr.endswith("interrupted\n")
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--conf", "2"], "--conf is 2.0. Give a value from 0 to 1."),
        (["--iou", "-1"], "--iou is -1.0. Give a value from 0 to 1."),
        (["--max-det", "0"], "--max-det is 0. Give a whole number from 1 to 5000."),
        (["--threads", "0"], "--threads is 0. Give a whole number"),
        (["--device", "FOO"], "for the device FOO: "),
        (["--runtime", "onnxruntime", "--iou", "0.9"], "cannot be made looser"),
        (["--every", "0"], "--every is 0. Give a whole number from 1 on."),
        (["--max-fps", "-3"], "--max-fps is -3.0. Give a number above 0."),
        (["--start", "1:30"], "'1:30' is not a position in a video. Give seconds, such as 12.5"),
        (["--end", "2.5"], "holds images, which have no times. Give --start and --end in frames"),
        (["--start", "3f"], "was chosen. Check --start, --end, --every and --max-fps."),
        (["--buffer", "-1"], "--buffer is -1. Give a whole number from 0 to 1000."),
        (["--stats", "-1"], "--stats is -1.0. Give seconds, or 0 for no tables."),
        (["--timeout", "0"], "--timeout is 0.0. Give 0 to 3600 seconds."),
        (["--max-retries", "-2"], "Give numbers from 0, or -1 as --max-retries to retry for ever."),
    ],
)
def test_flags_that_do_not_fit(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    ran = retinart("detect", model_path, images, "--out", tmp_path / "out", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "retinart: " in ran.stderr and message in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_part_of_a_video_keeps_its_times(
    retinart: Command, model_path: Path, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    more = ["--start", "2f", "--end", "0.9", "--every", "3", "--buffer", "1"]
    ran = retinart("detect", model_path, video, "--out", out, *more)
    assert ran.returncode == 0, ran.stderr
    counts = json.loads((out / "summary.json").read_text())["frames"]
    assert (counts["read"], counts["dropped"], counts["skipped"]) == (9, 0, 6)
    lines = [json.loads(x) for x in (out / "detections.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["time_ms"]) for line in lines] == [(2, 200), (5, 500), (8, 800)]
    with VideoReader(out / "clip.mp4") as made:  # 10 frames a second went in
        assert [frame.time_ms for frame in made] == pytest.approx([0, 300, 600], abs=0.2)


def test_several_sources(
    retinart: Command, model_path: Path, video: Path, images: Path, tmp_path: Path
) -> None:
    """Equal names get a number, and indices of images are the lines of detections.jsonl."""
    twin = tmp_path / "other" / "clip.avi"
    twin.parent.mkdir()
    twin.write_bytes(video.read_bytes())
    out, coco = tmp_path / "out", tmp_path / "r.json"
    ran = retinart("detect", model_path, video, images, twin, "--out", out, "--coco", coco)
    assert ran.returncode == 0 and "23 frames, " in ran.stderr
    copies = ["0.png", "1.png", "2.png", "clip-2.mp4", "clip.mp4"]
    assert files_below(out) == sorted([*copies, "detections.jsonl", "summary.json"])
    lines = [json.loads(x) for x in (out / "detections.jsonl").read_text().splitlines()]
    for source, count in ((video, 10), (twin, 10), (images / "1.png", 1)):
        assert sum(line["source"] == str(source) for line in lines) == count
    ids = {r["image_index"] for r in json.loads(coco.read_text())}
    assert ids == {i for i, line in enumerate(lines) if line["detections"]}
    said = json.loads((out / "summary.json").read_text())
    assert [s["written"] for s in said["sources"]] == [10, 3, 10]


def test_the_summary_says_what_each_figure_covers(
    retinart: Command, model_path: Path, video: Path, tmp_path: Path
) -> None:
    more = ("--no-copies", "--stats", "1000")
    ran = retinart("detect", model_path, video, "--out", tmp_path / "out", *more)
    assert files_below(tmp_path / "out") == ["detections.jsonl", "summary.json"]
    said = json.loads((tmp_path / "out" / "summary.json").read_text())
    stages = said["stages_ms"]
    parts = ["infer: infer", "infer: nms", "infer: results"]
    assert list(stages) == ["decode", "resize", "infer", *parts, "write"]
    figures = [*stages.values(), *said["queues"].values()]
    ages = ("capture_to_detections_ms", "capture_to_result_ms")
    figures += [said[name] for name in ("frames", "fps", *ages)]
    assert all(figure["covers"] for figure in figures)
    assert all({"p50", "p95", "p99"} < set(stage) for stage in stages.values())
    assert said["frames"]["read"] == said["frames"]["written"] == 10
    assert list(said["queues"]) == ["resize", "infer", "finish", "write", "results"]
    assert said[ages[0]]["p50"] < said[ages[1]]["p50"]
    assert "capture to detections: p50 " in ran.stderr
    assert "capture to result: p50 " in ran.stderr and "waiting before: resize " in ran.stderr


def test_figures_while_it_runs(
    retinart: Command, model_path: Path, video: Path, tmp_path: Path
) -> None:
    """--stats prints the table at every interval and at the end; without it there is none."""
    ran = retinart("detect", model_path, video, "--out", tmp_path / "out", "--stats", "1e-6")
    assert ran.stderr.count("capture to detections: p50 ") > 5
    counts = re.findall(r"read (\d+), dropped 0, left out 0; detected (\d+), ", ran.stderr)
    read = [int(n) for n, _ in counts]
    assert read == sorted(read) and counts[-1] == ("10", "10")
    assert all(int(detected) <= int(n) for n, detected in counts)
    ran = retinart("detect", model_path, video, "--out", tmp_path / "plain")
    assert ran.returncode == 0 and "capture to detections" not in ran.stderr


def test_one_photo_is_one_line_with_what_people_mean(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    """Seen: 12 lines, and "100 objects", which counted all above 0.05."""
    out, given = tmp_path / "out", ("detect", model_path, images / "1.png")
    assert retinart(*given, "--out", tmp_path / "first").returncode == 0
    (line,) = (tmp_path / "first" / "detections.jsonl").read_text().splitlines()
    found = json.loads(line)["detections"]
    scores = sorted({round(one["score"], 3) for one in found})
    least = scores[len(scores) // 2]
    sure = Counter(one["class"] for one in found if one["score"] >= least)
    weaker = len(found) - sure.total()
    assert sure and weaker > 1
    ran = retinart(*given, "--out", out, "--draw-conf", str(least))
    names = ", ".join(f"{number} {name}" for name, number in sure.most_common())
    many = "1 detection" if sure.total() == 1 else f"{sure.total()} detections"
    assert ran.stderr == (
        f"1 image, {many} with a score from {least:g} on: {names}; the files also hold {weaker} "
        "weaker ones\n"
    )
    said = json.loads((out / "summary.json").read_text())
    assert said["detections"] == len(found)
    assert said["confident"]["value"] == sure.total() and said["confident"]["by_class"] == sure


def test_results_do_not_replace_those_of_another_run(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen: ten lines of detections.jsonl became one, beside ten old pictures."""
    monkeypatch.chdir(tmp_path)
    for number in ("", "2", "3"):
        ran = retinart("detect", model_path, images / f"{number or 1}.png".replace("3", "0"))
        assert ran.returncode == 0 and f"runs/detect{number}/summary.json" in ran.stdout
    ran = retinart("detect", "none.onnx", images, "--out", "runs/detect")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "retinart: runs/detect holds the results of another run. Choose another --out, or replace "
        "them with --overwrite.\n"
    )
    assert len(Path("runs/detect/detections.jsonl").read_text().splitlines()) == 1
    for more in (("--out", "runs/detect"), ()):
        assert retinart("detect", model_path, images, "--overwrite", *more).returncode == 0
        assert len(Path("runs/detect/detections.jsonl").read_text().splitlines()) == 3
    assert sorted(path.name for path in Path("runs").iterdir()) == ["detect", "detect2", "detect3"]


@pytest.mark.parametrize(
    ("source", "throughput"),
    [("clip.mp4", True), ("rtsp://127.0.0.1:9/x", False), ("one.png", False), (".", True)],
)
def test_files_are_run_for_rate_and_cameras_and_one_picture_for_age(
    source: str,
    throughput: bool,
    retinart: Command,
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []

    def detector(*args: Any, **settings: Any) -> Any:
        told.append(settings)
        raise BadInput("not here")

    monkeypatch.setattr("retinart.engine.detector.Detector", detector)
    monkeypatch.chdir(write_images(tmp_path, "one.png"))
    Path("clip.mp4").touch()
    assert retinart("detect", model_path, source).returncode == 2
    assert (told[0]["throughput"], told[0]["gpu_resize"]) == (throughput, False)
    assert retinart("detect", model_path, source, "--gpu-resize").returncode == 2
    assert told[1]["gpu_resize"] is True
