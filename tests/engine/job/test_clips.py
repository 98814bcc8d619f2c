"""Clips of events: which frames they have, what they leave on the disk, and what may go wrong."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from retinart import BadInput
from retinart.engine.job import clips as module
from retinart.engine.job.clips import Clips, ClipSource
from retinart.engine.job.settings import ClipSettings, DetectJob
from retinart.engine.keep.counting import Event
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.media.video import VideoReader
from retinart.engine.sinks.sink import Line
from retinart.engine.sinks.webhook import Webhook
from support import files_below, read_lines, write_video

Command = Callable[..., CompletedProcess[str]]
Lines = list[dict[str, Any]]
RATE = 10  # frames a second
START = datetime(2026, 11, 29, 7, 30, tzinfo=timezone.utc)


class _Made:
    """Clips of made sources, whose frames show their number in stripes."""

    def __init__(self, out: Path, *, sources: int = 1, live: bool = False, **settings: Any) -> None:
        self.said, self._live = list[str](), live
        about = [ClipSource(name=f"{'ab'[i]}.mp4", stem="ab"[i], fps=RATE) for i in range(sources)]
        self.clips = Clips(ClipSettings(**settings), out, about, self.said.append)
        self.lines: Lines = []

    def run(self, frames: Sequence[int], events: Sequence[int], *, source: int = 0) -> list[str]:
        """Take frames, and say which clip each event is in."""
        names = []
        for number in frames:
            bits = np.repeat([255 * (number >> bit & 1) for bit in range(7)], 6)
            image = np.zeros((32, 47, 3), np.uint8)
            image[:, : len(bits)] = bits[:, None]
            frame = Frame(
                source="a.mp4", source_index=source, index=number, time_ms=1000 * number / RATE,
                image=image, utc=START + timedelta(seconds=number / RATE) if self._live else None,
            )  # fmt: skip
            kinds = [_event(number)] if number in events else []
            name, lines = self.clips.add(frame, image, kinds)
            names += [str(name)] if kinds else []
            self.lines += lines
        return names

    def close(self) -> Lines:
        self.lines += self.clips.close()
        return self.lines


def _event(number: int) -> Event:
    return Event(
        time=number / RATE, frame=number, kind="cross", area="gate", track=1, class_id=0,
        direction="left",
    )  # fmt: skip


def _numbers(path: Path) -> list[int]:
    """The numbers of a clip's frames."""
    with VideoReader(path) as video:
        pictures: list[Image] = [frame.image for frame in video]
    assert all(picture.shape == (32, 48, 3) for picture in pictures)
    return [
        sum(int(picture[:, 6 * bit + 2 : 6 * bit + 4].mean() > 127) << bit for bit in range(7))
        for picture in pictures
    ]


def test_a_clip_begins_before_its_event_and_ends_behind_it(tmp_path: Path) -> None:
    made = _Made(tmp_path, pre=2, post=1)
    assert made.run(range(80), [37]) == ["clips/00h00m03s-a.mp4"]
    (line,) = made.close()
    # Key frames are a second apart: the one at 1.0 s is the last before 3.7 - 2 s.
    assert _numbers(tmp_path / line["clip"]) == list(range(10, 48))
    assert line == {
        "time": 4.7, "source": "a.mp4", "kind": "clip", "clip": "clips/00h00m03s-a.mp4",
        "begin": 1.0, "end": 4.7, "events": 1,
    }  # fmt: skip
    assert made.clips.counts.written == 1 and not made.said
    assert files_below(tmp_path) == ["clips/00h00m03s-a.mp4"]
    with av.open(str(tmp_path / line["clip"])) as file:
        (video,) = file.streams
        assert isinstance(video, av.VideoStream) and video.codec_context.name == "h264"
        assert (video.pix_fmt, video.frames) == ("yuv420p", 38)
        assert video.duration is not None and video.time_base is not None
        assert float(video.duration * video.time_base) == pytest.approx(38 / RATE, abs=0.11)


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([30, 35], [(10, 45)]),  # the second one while the first one's clip grows
        ([30, 58], [(10, 68)]),  # its clip would begin at 3.8 s, before the first one ends at 4.0
        ([30, 62], [(10, 40), (40, 72)]),  # it begins at 4.2 s, so at the key frame at 4.0
        ([79], [(50, 79)]),  # the video ends
        ([0], [(0, 10)]),
    ],
)
def test_events_that_are_near_share_a_clip(
    tmp_path: Path, events: list[int], wanted: list[tuple[int, int]]
) -> None:
    made = _Made(tmp_path, pre=2, post=1)
    names = made.run(range(80), events)
    lines = made.close()
    assert [_numbers(tmp_path / line["clip"]) for line in lines] == [
        list(range(begin, end + 1)) for begin, end in wanted
    ]
    assert len(set(names)) == len(wanted) and sum(line["events"] for line in lines) == len(events)


def test_one_kind_of_event(tmp_path: Path) -> None:
    made = _Made(tmp_path, clip_on="enter", pre=1, post=1)
    assert made.run(range(30), [10]) == ["None"] and made.close() == []
    assert files_below(tmp_path) == []


def test_without_seconds_before_and_behind(tmp_path: Path) -> None:
    made = _Made(tmp_path, pre=0, post=0)
    made.run(range(40), [13, 14, 30])
    assert [_numbers(tmp_path / line["clip"]) for line in made.close()] == [
        [10, 11, 12, 13], [10, 11, 12, 13, 14], [30],
    ]  # fmt: skip


def test_a_clip_of_many_events_has_a_longest_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST", 5.0)
    made = _Made(tmp_path, pre=1, post=1)
    made.run(range(100), range(20, 90))
    spans = [(line["begin"], line["end"]) for line in made.close()]
    assert all(end - begin <= 5.1 for begin, end in spans) and len(spans) == 3
    assert spans[0][0] == 1.0 and spans[-1][1] == 9.9


def test_what_waits_in_memory_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 1)  # so one key frame and what follows it
    made = _Made(tmp_path, pre=9, post=1)
    made.run(range(80), [45])
    (line,) = made.close()
    assert line["begin"] == 4.0


def test_each_source_has_its_clips(tmp_path: Path) -> None:
    made = _Made(tmp_path, sources=2, pre=0, post=1)
    for i in range(30):
        made.run([i], [5], source=0)
        made.run([i], [5, 20], source=1)
    assert [line["clip"] for line in sorted(made.close(), key=lambda line: str(line["clip"]))] == [
        "clips/00h00m00s-a.mp4", "clips/00h00m00s-b.mp4", "clips/00h00m02s-b.mp4",
    ]  # fmt: skip


def test_a_live_source_names_its_clips_by_the_time_of_day(tmp_path: Path) -> None:
    made = _Made(tmp_path, live=True, pre=0, post=0)
    first, second = made.run(range(30), [5, 20])
    assert [first, second] == ["clips/20261129T073000Z-a.mp4", "clips/20261129T073002Z-a.mp4"]
    ends = [line["utc"] for line in made.close()]
    assert ends == ["2026-11-29T07:30:00.500Z", "2026-11-29T07:30:02.000Z"]
    assert files_below(tmp_path) == [first, second]


def test_the_oldest_clips_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an earlier run go first; files of others stay, whatever their names."""
    old = _Made(tmp_path, live=True, pre=0, post=0)
    (earlier,) = old.run(range(10), [5])
    old.close()
    other = write_video(tmp_path / "clips" / "00h00m01s-a.mp4")
    size = (tmp_path / earlier).stat().st_size
    made = _Made(tmp_path, pre=0, post=0, keep=0.001)
    monkeypatch.setattr(made.clips._folder, "_keep", 3.5 * size)
    names = made.run(range(60), [5, 15, 25, 35, 45])
    lines = made.close()
    assert names[1] == "clips/00h00m01s-a-2.mp4"  # the other file has that name
    counts = made.clips.counts
    assert (counts.written, counts.lost, len(lines)) == (5, 0, 5)
    left = files_below(tmp_path)
    assert earlier not in left and names[0] not in left and "clips/00h00m01s-a.mp4" in left
    assert names[-1] in left and counts.deleted == 6 - (len(left) - 1)
    assert sum((tmp_path / n).stat().st_size for n in left if tmp_path / n != other) <= 3.5 * size


def test_a_clip_that_outgrows_the_room_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _Made(tmp_path, pre=0, post=60, keep=0.001)
    monkeypatch.setattr(made.clips._folder, "_keep", 5000)
    made.run(range(120), [0])
    (line,) = made.close()
    assert 0 < line["end"] < 11 and made.clips.counts.written == 1


@pytest.mark.parametrize("when", ["before", "during", "end"])
def test_a_full_disk_loses_the_clip_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    made = _Made(tmp_path, pre=1, post=1)
    made.run(range(20 if when == "before" else 25), [20])
    with monkeypatch.context() as patch:
        if when == "end":
            patch.setattr("retinart.engine.common.files.AtomicFile.commit", _raise_full)
        else:
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 << 20))
        events = [20, 30] if when == "end" else [20, 30, 40]
        made.run(range(20 if when == "before" else 25, 55), events)
        assert files_below(tmp_path) == []
    made.run(range(55, 90), [60])
    made.close()
    counts = made.clips.counts
    assert counts.written == 1 and counts.lost >= 1
    assert len(made.said) == 1  # of several in a row
    assert made.said[0].startswith("lost a clip of a.mp4, and the job goes on: ")
    assert [line["lost"] for line in made.lines if "lost" in line] == [True] * counts.lost
    (left,) = files_below(tmp_path)
    assert _numbers(tmp_path / left) == list(range(50, 71))


def _raise_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "settings", [{"pre": -1}, {"pre": 61}, {"post": 301}, {"keep": 0}, {"keep": float("nan")}]
)
def test_settings_that_make_no_sense(settings: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=f"`{next(iter(settings))}` is "):
        ClipSettings(**settings)  # type: ignore[arg-type]


def test_clips_need_events(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there are no events to make clips of"):
        DetectJob(source="a.mp4", out=tmp_path, clips=ClipSettings())


def _areas(path: Path) -> Path:
    lines = [{"name": "gate", "start": [64, 0], "end": [64, 96]}]
    corners = [[0, 0], [128, 0], [128, 96], [0, 96]]
    zones = [{"name": "all", "points": corners}]
    path.write_text(json.dumps({"size": [128, 96], "lines": lines, "zones": zones}))
    return path


def test_the_command_lists_its_clips(
    retinart: Command, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sinks get the same lines, the last clip's too."""
    sent = list[Line]()
    monkeypatch.setattr(Webhook, "send", lambda _, lines: sent.extend(lines))
    pytest.importorskip("trackers", reason="tracking needs retinart[track]")
    video, out = write_video(tmp_path / "v.mp4"), tmp_path / "out"
    more = ["--track", "--region", _areas(tmp_path / "areas.json"), "--conf", "0.1", "--out", out]
    more += ["--no-copies", "--sink", "http://127.0.0.1:1/"]
    ran = retinart("detect", model_path, video, *more, "--clip-on", "event")
    assert ran.returncode == 0, ran.stderr
    (name,) = [f for f in files_below(out) if f.startswith("clips/")]
    said = json.loads((out / "summary.json").read_text())["clips"]
    assert (said["written"], said["lost"], said["files"][0]["clip"]) == (1, 0, name)
    *events, last = read_lines(out / "events.jsonl")
    assert events and all(event["clip"] == name for event in events)
    assert (last["kind"], last["clip"], last["events"]) == ("clip", name, len(events))
    assert {line.source for line in sent} == {str(video)}
    lines = [json.loads(line.text) for line in sent]
    assert [one for one in lines if "kind" in one] == [*events, last]
    assert [one for one in lines if "kind" not in one] == read_lines(out / "detections.jsonl")
    assert "1 clip of events\n" in ran.stderr and str(out / "clips") in ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pre", "3"], "--pre is for clips, and none are written. Give --clip-on."),
        (["--clip-on", "cross"], "no events to make clips of: events are of tracked objects"),
        (["--clip-on", "cross", "--post", "-1"], "--post is -1.0. Give 0 to 300 seconds."),
    ],
)
def test_options_that_do_not_fit(
    retinart: Command, model_path: Path, images: Path, options: list[str], message: str
) -> None:
    ran = retinart("detect", model_path, images, *options)
    assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr


def test_images_have_no_clips(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trackers", reason="tracking needs retinart[track]")
    more = ["--track", "--region", _areas(tmp_path / "areas.json"), "--clip-on", "event"]
    ran = retinart("detect", model_path, images, *more, "--out", tmp_path / "out")
    assert ran.returncode == 2 and "there are no clips of images" in ran.stderr
