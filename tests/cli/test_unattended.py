"""`retinart detect` that a service manager starts again, and that runs for weeks."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from retinart.benchmarks.pipeline.mjpeg_server import MJPEGServer
from retinart.engine.common import utc
from retinart.engine.sinks.sink import Line
from retinart.engine.sinks.webhook import Webhook
from support import files_below, make_picture, numbered_jpeg, read_lines

Command = Callable[..., CompletedProcess[str]]


def test_the_same_command_starts_again(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen: after a crash, each start of a fixed --out ended with 2."""
    starts = [datetime(2026, 11, 29, 16, 42, second, tzinfo=timezone.utc) for second in (0, 9)]
    words = [model_path, images / "0.png", "--no-copies", "--out", tmp_path / "out" / "{start}"]
    words += ["--csv", tmp_path / "out" / "rows-{start}.csv"]
    for start in starts:
        monkeypatch.setattr(utc, "now", lambda start=start: start)
        ran = retinart("detect", *words)
        assert ran.returncode == 0, ran.stderr
    names = ["20261129T164200Z", "20261129T164209Z"]
    lines = [f"{n}/{file}" for n in names for file in ("detections.jsonl", "summary.json")]
    assert files_below(tmp_path / "out") == sorted(
        [*lines, *(f"rows-{name}.csv" for name in names)]
    )
    again = retinart("detect", *words)  # in the second of the last start
    assert again.returncode == 2 and f"{names[1]} holds the results of another run" in again.stderr
    ran = retinart("detect", *words, "--ray")
    assert ran.returncode == 2 and ran.stderr == (
        "retinart: --out has {start}, and Ray does the work: with --ray, the same command goes on "
        "in the folder of the job that ended. Give a folder without {start}.\n"
    )


def test_without_the_file_that_grows_without_end(
    retinart: Command,
    model_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its lines go to sinks all the same; a job that leaves nothing is refused."""
    sent: list[Line] = []
    monkeypatch.setattr(Webhook, "send", lambda _, lines: sent.extend(lines))
    words = [model_path, images, "--no-copies", "--no-detections-file", "--out"]
    ran = retinart("detect", *words, tmp_path / "out", "--sink", "http://127.0.0.1:1/")
    assert ran.returncode == 0, ran.stderr
    assert files_below(tmp_path / "out") == ["summary.json"] and len(sent) == 3
    assert ran.stdout.splitlines() == [str(tmp_path / "out" / "summary.json")]
    ran = retinart("detect", *words, tmp_path / "none")
    assert ran.returncode == 2 and ran.stderr == (
        "retinart: the job would leave nothing but counts in summary.json: --no-detections-file "
        "is given, and no other output. Leave it out, or give --csv, --coco, --sink, --metrics, "
        "--view, or --track and --region with lines or zones.\n"
    )


def test_a_camera_tells_the_time_of_day(
    retinart: Command, model_path: Path, tmp_path: Path
) -> None:
    """Seen: no line of a live source said when something happened."""
    pytest.importorskip("trackers", reason="tracking needs retinart[track]")

    def frames(connection: int) -> Iterator[bytes]:
        for i in range(10**6):
            time.sleep(0.02)
            yield numbered_jpeg(i, make_picture(0))

    out, areas, rows = tmp_path / "out", tmp_path / "areas.json", tmp_path / "rows.csv"
    points = [[0, 0], [128, 0], [128, 96], [0, 96]]
    areas.write_text(json.dumps({"size": [128, 96], "zones": [{"name": "all", "points": points}]}))
    more = ["--track", "--region", areas, "--clip-on", "enter", "--conf", "0.1", "--end", "12f"]
    begun = utc.iso(utc.now())
    with MJPEGServer(frames) as camera:
        ran = retinart("detect", model_path, camera.url, *more, "--out", out, "--csv", rows)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((out / "summary.json").read_text())
    lines = {line["frame"]: line for line in read_lines(out / "detections.jsonl")}
    times = [line["utc"] for line in lines.values()]
    assert begun <= summary["started"] < times[0] < times[-1] <= utc.iso(utc.now())
    *events, clip = read_lines(out / "events.jsonl")
    assert events and all(event["utc"] == lines[event["frame"]]["utc"] for event in events)
    assert (clip["kind"], clip["utc"] >= events[-1]["utc"]) == ("clip", True)
    day, second = events[0]["utc"][:10].replace("-", ""), events[0]["utc"][11:19].replace(":", "")
    assert clip["clip"].startswith(f"clips/{day}T{second}Z-")
    with rows.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[-1] == "utc" and {row["utc"] for row in table} <= set(times)
