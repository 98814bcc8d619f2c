"""Where annotated copies go, and which sources can keep their sound."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from retinart.engine.errors import BadInput
from retinart.engine.job.copies import Copy, plan_copies
from retinart.engine.job.settings import DetectJob
from retinart.engine.media.frame import Frame
from retinart.engine.media.source import SourceCounts

OUT = Path("out")


@dataclass
class Stated:
    """A source that only says what it is."""

    name: str
    live: bool = False
    stills: bool = False
    files: tuple[Path, ...] = ()
    rate: float | None = None
    size: tuple[int, int] | None = None
    has_sound: bool | None = None
    counts: SourceCounts = field(default_factory=SourceCounts)
    unreadable: tuple[tuple[Path, str], ...] = ()
    ended: bool = False

    def take(self) -> Frame | None:
        return None

    def close(self) -> None:
        pass


def _video(name: str, *, has_sound: bool = True) -> Stated:
    return Stated(name, files=(Path(name),), rate=30.0, size=(4, 6), has_sound=has_sound)


_IMAGES = Stated("in", stills=True, files=(Path("in/a.png"), Path("in/b.png")), has_sound=False)
_CAMERA = Stated("rtsp://host:9/x.y", live=True)
_ADDRESS = Stated("http://host/clip.mp4", rate=24.0, has_sound=True)


def test_each_kind_of_source() -> None:
    copies = plan_copies([_video("clip.avi"), _IMAGES, _CAMERA, _ADDRESS], OUT)
    assert copies == [
        Copy(path=OUT / "clip.mp4", fps=30.0, size=(4, 6)),
        Copy(pictures={"in/a.png": OUT / "a.png", "in/b.png": OUT / "b.png"}),
        Copy(path=OUT / "host_9_x_y.mp4", fps=25.0),
        Copy(path=OUT / "host_clip_mp4.mp4", fps=24.0),
    ]


def test_equal_names_get_numbers() -> None:
    names = ["a/v.mp4", "b/v.mp4", "c/v.avi", "v-2.mp4", "summary.mp4"]
    copies = plan_copies([_video(name) for name in names], OUT)
    found = [copy.path.name for copy in copies if copy.path is not None]
    assert found == ["v.mp4", "v-2.mp4", "v-3.mp4", "v-2-2.mp4", "summary-2.mp4"]


def test_sound_of_one_video_file() -> None:
    (copy,) = plan_copies([_video("clip.mp4")], OUT, audio=True)
    assert copy.sound == Path("clip.mp4")
    (copy,) = plan_copies([_video("clip.mp4", has_sound=False)], OUT, audio=True)
    assert copy.sound is None
    (copy,) = plan_copies([_video("clip.mp4")], OUT)
    assert copy.sound is None


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            [_video("a.mp4"), _video("b.mp4")],
            "sound is kept of one source only: 2 are given. Leave out `audio`, or give one video",
        ),
        ([_IMAGES], "the sound of in cannot be kept: it holds images. Leave out `audio`, or "),
        ([_CAMERA], "the sound of rtsp://host:9/x.y cannot be kept: it is not a file. Leave "),
        ([_ADDRESS], "the sound of http://host/clip.mp4 cannot be kept: it is not a file. Leave "),
    ],
)
def test_sound_that_cannot_be_kept(sources: list[Stated], message: str) -> None:
    with pytest.raises(BadInput) as raised:
        plan_copies(sources, OUT, audio=True)
    assert str(raised.value).startswith(message)


def test_sound_needs_an_annotated_video() -> None:
    with pytest.raises(BadInput) as raised:
        DetectJob(source="clip.mp4", out=OUT, audio=True, copies=False)
    assert str(raised.value) == (
        "sound cannot be kept: it goes into the annotated video, and none is written. Leave out "
        "either `audio` or `copies=False`."
    )
