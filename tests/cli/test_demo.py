"""`retinart demo`, in full and without the extras, and the files that are shipped for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import av
import pytest

from retinart.cli import demo
from retinart.cli.streams import guarded_streams
from retinart.demo import shipped
from retinart.demo.shipped import ASSETS, CHECKPOINT, MODEL
from retinart.demo.steps import Step, full_steps, run_steps
from retinart.engine.common import progress
from retinart.engine.common.files import sha256
from retinart.engine.detector import Detector
from retinart.engine.errors import pip_command
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.matching import Tolerance, pair
from retinart.engine.media.images import list_images, read_image
from retinart.engine.model.info import read_info
from support import count_frames

Command = Callable[..., CompletedProcess[str]]


def test_the_shipped_pictures() -> None:
    """The gate measures on pictures that the calibration has not seen."""
    test, calibration = ({p.name for p in (ASSETS / n).iterdir()} for n in ("test", "calibration"))
    assert len(test) == len(calibration) == 12 and not test & calibration
    dataset = load_coco(ASSETS / "test.json", ASSETS / "test")
    assert {image.path.name for image in dataset.images} == test
    assert dataset.classes == read_info(MODEL).classes
    pictures = [p for p in ASSETS.rglob("*") if p.suffix in (".jpg", ".json")]
    assert sum(p.stat().st_size for p in pictures) < 1e6
    assert "MIT License" in (ASSETS / "LICENSE").read_text("utf-8")


def test_the_shipped_model_is_of_the_shipped_checkpoint() -> None:
    info = read_info(MODEL)
    assert info.provenance["checkpoint_sha256"] == sha256(CHECKPOINT)
    assert info.precision == "fp32" and info.probe is not None


@pytest.mark.slow
def test_the_whole_way(retinart: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    ran = retinart("demo", "--out", out)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(out / "demo.html")
    assert "Next, with a checkpoint of yours: retinart export" in ran.stderr
    page = (out / "demo.html").read_text("utf-8")
    for word in ("export", "calibrate", "check", "eval", "detect", "benchmark"):
        assert f"<code>retinart {word} " in page and f"$ retinart {word} " in ran.stderr
    for words in ("AP on 12 test pictures", "times as fast as FP32 here", "What 12 pictures can"):
        assert words in page
    assert page.count("data:image/jpeg;base64,") == page.count("data:video/mp4;base64,") == 1
    assert count_frames(out / "video" / "blood.mp4") == count_frames(out / "blood.mp4") == 161
    with av.open(out / "video" / "blood.mp4") as video:
        assert video.streams.video[0].codec_context.name == "h264"
    compared = json.loads((out / "compare" / "comparison.json").read_text())
    assert compared["first"]["figures"]["AP"] > 0.6 and compared["drop_points"] < 2
    _same_detections(MODEL, out / "bccd.onnx")
    again = retinart("demo", "--out", out, "--overwrite")
    assert again.returncode == 0, again.stderr


def _same_detections(shipped: Path, new: Path) -> None:
    with Detector(shipped) as first, Detector(new) as second:
        for path in list_images(str(ASSETS / "test"))[:3]:
            a, b = first(read_image(path)), second(read_image(path))
            a, b = a[a.confidence > 0.1], b[b.confidence > 0.1]
            assert len(a) == len(b) == len(pair(a, b, Tolerance(iou=0.99))) > 5


def test_without_the_extras(
    retinart: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs the file that is shipped, and says what the extras add."""
    monkeypatch.setattr(demo, "EXTRA", ("torch", "absent_here"))
    monkeypatch.setattr(shipped, "_STEP", 160)  # pixels a frame: the video is an eighth as long
    ran = retinart("demo", "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "these packages are not installed: absent_here." in ran.stderr
    assert pip_command("demo") in ran.stderr
    assert "It is one file, so you can copy it to another machine:\n" in ran.stderr
    page = (tmp_path / "demo.html").read_text("utf-8")
    assert "What the extras add" in page and "the FP32 file is 58.9" not in page
    assert count_frames(tmp_path / "video" / "blood.mp4") == 21
    lines = (tmp_path / "pictures" / "detections.jsonl").read_text().splitlines()
    assert len(lines) == 12 and sum(len(json.loads(line)["detections"]) for line in lines) > 100
    again = retinart("demo", "--out", tmp_path)
    assert again.returncode == 2 and "holds the results of another run" in again.stderr
    assert page == (tmp_path / "demo.html").read_text("utf-8")


def test_why_a_limit_is_wide_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The demo's gate allows 2 AP, which no CI should copy."""
    run_steps(full_steps(tmp_path), lambda words: 0)
    assert "The limit is 2 because 12 pictures are few: with a few hundred, use 0.5." in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("code", "count"), [(0, 3), (1, 3), (2, 2), (130, 2)])
def test_a_failed_check_does_not_end_the_demo_and_an_error_does(code: int, count: int) -> None:
    ran: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> int:
        ran.append(words)
        print("said", len(ran))
        return code if len(ran) == 2 else 0

    steps = [Step(title=t, why="", words=(t,), brief=t == "b") for t in "abc"]
    done = run_steps(steps, run)
    assert [d.code for d in done] == [0, code, 0][:count]
    assert [d.output for d in done] == ["said 1\n", "said 2\n", "said 3\n"][:count]


def test_the_page_holds_no_lines_of_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen above a benchmark's table: "24/30 rounds 2 s left"."""
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)

    def run(words: Sequence[str]) -> int:
        with guarded_streams():
            progress.Progress().update(1, 3, f"rounds of {words[0]}")
            print("a result", file=sys.stderr)
        return 0

    steps = [Step(title=t, why="", words=(t,), brief=t == "b") for t in "ab"]
    assert [d.output for d in run_steps(steps, run)] == ["a result\n"] * 2
    said = capsys.readouterr().err
    assert "1/3 rounds of a\na result\n" in said and said.endswith(
        "$ retinart b\n1/3 rounds of b\n"
    )
