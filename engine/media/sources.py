"""Sources by their names, and several of them as one."""

from __future__ import annotations

import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from retinart.engine.common.timing import TimeStage
from retinart.engine.errors import BadInput
from retinart.engine.media.address import shown_address
from retinart.engine.media.animation import AnimationReader
from retinart.engine.media.frame import Frame
from retinart.engine.media.header import Header
from retinart.engine.media.header_readers import read_header
from retinart.engine.media.image_source import ImageSource
from retinart.engine.media.images import IMAGE_SUFFIXES, Note, list_images
from retinart.engine.media.live import LiveSource
from retinart.engine.media.settings import LiveSettings, Selection
from retinart.engine.media.source import Source

if TYPE_CHECKING:  # a job on images needs no FFmpeg, whose import takes as long as NumPy's
    from retinart.engine.media.connections import Capture
    from retinart.engine.media.video import VideoReader

VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)
_ANIMATIONS = ("AVIF", "GIF", "PNG", "WEBP")  # several frames of these are not pages
_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtp", "udp", "tcp", "srt")


class Sources:
    """Several sources as one: each step holds a frame of every source that has one.

    Args:
        names: see `open_source`.
        selection: which frames.
        settings: how patient live sources are.
        say: told what happens to live sources.
        time_stage: told how long frames took, as "decode" or "receive".
        note: told what is changed of images.

    Attributes:
        all: the sources, in the order of their names.

    Raises:
        BadInput: a source that is a file or files cannot be read; a live one is tried again.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        selection: Selection,
        settings: LiveSettings,
        say: Callable[[str], None] = lambda text: None,
        time_stage: TimeStage = lambda stage, seconds: None,
        note: Note | None = None,
    ) -> None:
        self._wake, self._stopped = threading.Event(), False
        self.all: list[Source] = []
        opened = partial(
            open_source,
            selection=selection,
            settings=settings,
            wake=self._wake,
            say=say,
            time_stage=time_stage,
            note=note,
        )
        try:
            for source_index, (name, shown) in enumerate(zip(names, _shown(names), strict=True)):
                self.all.append(opened(name, shown=shown, source_index=source_index))
        except BaseException:
            self.close()
            raise
        if not self.all:
            raise BadInput("there is no source", fix="Name a file, a webcam or an address")

    @property
    def live(self) -> bool:
        """Whether any is live."""
        return any(source.live for source in self.all)

    def __iter__(self) -> Iterator[list[Frame]]:
        """Steps of one frame or more, until all sources have ended."""
        while not self._stopped:
            self._wake.clear()
            left = [source for source in self.all if not source.ended]
            if not left:
                return
            step = [frame for source in left if (frame := source.take()) is not None]
            if step:
                yield step
            elif all(source.live for source in left):
                self._wake.wait()

    def check_received(self) -> None:
        """See that a frame arrived, where a live source was given up.

        Raises:
            BadInput: none did, of any source.
        """
        if any(source.counts.taken for source in self.all):
            return
        for source in self.all:
            if source.counts.ended == "lost":
                raise BadInput(
                    f"nothing was received from {source.name}",
                    why=source.counts.why,
                    fix="Check the source, or raise `timeout` or `max_retries`",
                )

    def stop(self) -> None:
        """End the iteration, from any thread."""
        self._stopped = True
        self._wake.set()

    def close(self) -> None:
        """Close all of them."""
        self.stop()
        for source in self.all:
            source.close()


def _shown(names: Sequence[str]) -> Iterator[str]:
    """Names to show. Addresses that differ in what is hidden get numbers."""
    seen: Counter[str] = Counter()
    for name in names:
        shown = shown_address(name)
        seen[shown] += 1
        yield f"{shown} ({seen[shown]})" if "://" in name and seen[shown] > 1 else shown


def open_source(
    name: str,
    *,
    shown: str = "",
    source_index: int,
    selection: Selection,
    settings: LiveSettings,
    wake: threading.Event,
    say: Callable[[str], None],
    time_stage: TimeStage,
    note: Note | None = None,
) -> Source:
    """A source by its name: a number is a webcam, `scheme://` an address, the rest files.

    An HTTP address that ends in a video's suffix is read as a file, every frame in order; any other
    address is live. `frame_%04d.png` stands for numbered images. A file with an unknown suffix is
    tried as an image, then as a video. An animated GIF, PNG, WebP or AVIF file is a video; in a
    folder or by a glob it is an image.

    Args:
        shown: the address as it is shown; by default `shown_address` of it.

    Raises:
        BadInput: it is none of these, or a file that cannot be read.
    """
    path, remote = Path(name), "://" in name
    if remote and (scheme := _split(name).scheme).lower() not in _SCHEMES:
        raise BadInput(
            f"cannot read from {shown_address(name)}",
            why=f"{scheme}:// is not known",
            fix=f"Known are {', '.join(_SCHEMES)}, files and webcams by number",
        )
    if is_live(name):
        address = name if remote or path.exists() else int(name)
        return LiveSource(
            f"webcam {address}" if isinstance(address, int) else shown or shown_address(name),
            source_index=source_index,
            connect=partial(_connect, address, settings.timeout),
            selection=selection,
            settings=settings,
            wake=wake,
            say=say,
            time_stage=time_stage,
        )
    video = partial(
        _read_video, source_index=source_index, selection=selection, time_stage=time_stage
    )
    if remote:
        return video(name, name=shown, timeout=settings.timeout)
    animation = partial(
        AnimationReader, source_index=source_index, selection=selection, time_stage=time_stage
    )
    if (reader := _open_video(path, video, animation)) is not None:
        return reader
    return ImageSource(
        name,
        list_numbered(name) or list_images(name),
        source_index=source_index,
        selection=selection,
        time_stage=time_stage,
        note=note,
    )


def check_files(names: Sequence[str]) -> None:
    """Look whether the files of sources exist; nothing is opened.

    Raises:
        BadInput: there is no such file, no image in a folder or by a glob, or no such webcam.
    """
    for name in names:
        path = Path(name)
        if path.is_dir():
            _ = list_images(name)
        elif "://" in name or path.exists():
            continue
        elif is_live(name):
            _check_webcam(name)
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            raise BadInput(f"there is no video at {path}", fix="Check the path")
        else:
            _ = list_numbered(name) or list_images(name)


def _check_webcam(number: str) -> None:
    """On Linux a webcam has a device file, so one that is absent need not be tried for long."""
    if sys.platform != "linux" or Path(f"/dev/video{int(number)}").exists():
        return
    here = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video[0-9]*"))
    raise BadInput(
        f"there is no webcam {number}",
        why=f"/dev/video{int(number)} does not exist",
        fix=f"Webcams here: {', '.join(here)}" if here else "Plug one in: there is none here",
    )


def is_live(name: str) -> bool:
    """Whether a name stands for a live source; it is not opened."""
    if "://" in name:
        parts = _split(name)
        file = Path(parts.path).suffix.lower() in VIDEO_SUFFIXES
        return not (file and parts.scheme.startswith("http"))
    path = Path(name)
    return path.is_char_device() or (name.isdecimal() and not path.exists())


def is_one_picture(names: Sequence[str]) -> bool:
    """Whether sources are one file that holds one picture."""
    path = Path(names[0])
    if len(names) > 1 or path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
        return False
    try:
        return not read_header(path).several
    except BadInput:
        return True


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise BadInput(
            f"{shown_address(address)} is not an address",
            why=str(error),
            fix="Write it as rtsp://USER:PASSWORD@HOST:PORT/PATH",
        ) from error


def list_numbered(pattern: str) -> list[Path]:
    """The images that a pattern with one `%d` or `%0Nd` in the file name stands for, by number."""
    path = Path(pattern)
    parts = re.split(r"%0?\d*d", path.name)
    if len(parts) != 2 or path.exists():
        return []
    name = re.compile(re.escape(parts[0]) + r"(\d+)" + re.escape(parts[1]))
    numbered = [(m, p) for p in path.parent.glob("*") if (m := name.fullmatch(p.name))]
    return [p for m, p in sorted(numbered, key=lambda item: (int(item[0][1]), item[1].name))]


def _connect(address: str | int, timeout: float) -> Capture:
    from retinart.engine.media.connections import connect

    return connect(address, timeout)


def _read_video(path: str | Path, **how: Any) -> VideoReader:
    from retinart.engine.media.video import VideoReader

    return VideoReader(path, **how)


def _open_video(
    path: Path,
    video: Callable[[Path], VideoReader],
    animation: Callable[[Path, Header], AnimationReader],
) -> VideoReader | AnimationReader | None:
    """A path as a video or an animation; None where it stands for images.

    Raises:
        BadInput: it is a file, but neither an image nor a video.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and not path.is_dir():
        return video(path)
    if not path.is_file():
        return None
    try:
        header = read_header(path)
    except BadInput as no_image:
        if suffix in IMAGE_SUFFIXES:
            return None
        try:
            return video(path)
        except BadInput:
            raise BadInput(
                f"{path} can be read neither as an image nor as a video",
                why=no_image.why,
                fix="Give an image, a video, a folder of images or an address",
            ) from no_image
    animated = header.several and header.format in _ANIMATIONS
    return animation(path, header) if animated else None
