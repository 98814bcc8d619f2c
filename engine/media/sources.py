"""Where frames come from: one `take` for files, images and live sources, and several at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from retinart.engine.common.timing import TimeStage
from retinart.engine.errors import BadInput
from retinart.engine.media import av_capture
from retinart.engine.media.file_sources import ImageSource, VideoSource
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import IMAGE_SUFFIXES, list_images, read_image
from retinart.engine.media.live import Capture, LiveSource
from retinart.engine.media.source import Source
from retinart.engine.media.video import VIDEO_SUFFIXES, VideoReader, open_capture, shown_address
from retinart.engine.settings import LiveSettings, Selection

_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtp", "udp", "tcp", "srt")


class Sources:
    """Several sources as one: each step has a frame of each of them that has one.

    Args:
        names: see `open_source`.
        selection, settings: which frames, and how patient live sources are.
        say: told what happens to live sources.
        time_stage: told how long frames took, as "decode" or "receive".

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
        )
        try:
            for place, name in enumerate(names):
                self.all.append(opened(name, place=place))
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
        """Steps, each of one frame or more, until all sources have ended."""
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

    def stop(self) -> None:
        """End the iteration, in whatever thread it is."""
        self._stopped = True
        self._wake.set()

    def close(self) -> None:
        """Give back what all of them hold."""
        self.stop()
        for source in self.all:
            source.close()


def open_source(
    name: str,
    *,
    place: int,
    selection: Selection,
    settings: LiveSettings,
    wake: threading.Event,
    say: Callable[[str], None],
    time_stage: TimeStage,
) -> Source:
    """A source by its name: a number is a webcam, `scheme://` an address, the rest files.

    An address over HTTP that ends in a video's suffix is read as a file, every frame in order; any
    other is live. `frame_%04d.png` stands for numbered images. A file that is named is tried as an
    image, then as a video, whatever its suffix.

    Raises:
        BadInput: it is nothing of these, or a file that cannot be read.
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
            f"webcam {address}" if isinstance(address, int) else shown_address(str(address)),
            place=place,
            connect=partial(_connect, address, settings.timeout),
            selection=selection,
            settings=settings,
            wake=wake,
            say=say,
            time_stage=time_stage,
        )
    if remote:
        return VideoSource(
            VideoReader(name, place=place, timeout=settings.timeout), selection, time_stage
        )
    reader = _open_video(path, place)
    if reader is not None:
        return VideoSource(reader, selection, time_stage)
    return ImageSource(name, list_numbered(name) or list_images(name), place, selection, time_stage)


def is_live(name: str) -> bool:
    """Whether a name is that of a live source; it is not opened."""
    if "://" in name:
        parts = _split(name)
        file = Path(parts.path).suffix.lower() in VIDEO_SUFFIXES
        return not (file and parts.scheme.startswith("http"))
    path = Path(name)
    return path.is_char_device() or (name.isdecimal() and not path.exists())


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise BadInput(
            f"{shown_address(address)} is no address",
            why=str(error),
            fix="Write it as rtsp://USER:PASSWORD@HOST:PORT/PATH",
        ) from error


def _connect(address: str | int, timeout: float) -> Capture:
    network = isinstance(address, str) and "://" in address
    if network and av_capture.installed():
        return av_capture.AVCapture(str(address), timeout)
    return open_capture(address, timeout)


def list_numbered(pattern: str) -> list[Path]:
    """Images named by one `%d` or `%0Nd` in the file name, by number; none if there is no such."""
    path = Path(pattern)
    parts = re.split(r"%0?\d*d", path.name)
    if len(parts) != 2 or path.exists():
        return []
    name = re.compile(re.escape(parts[0]) + r"(\d+)" + re.escape(parts[1]))
    numbered = [(m, p) for p in path.parent.glob("*") if (m := name.fullmatch(p.name))]
    return [p for m, p in sorted(numbered, key=lambda item: (int(item[0][1]), item[1].name))]


def _open_video(path: Path, place: int) -> VideoReader | None:
    """A path as a video; None for images. A file that is named is tried, whatever its suffix.

    Raises:
        BadInput: it is a file, and neither.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES and not path.is_dir():
        return VideoReader(path, place=place)
    if suffix in IMAGE_SUFFIXES or not path.is_file():
        return None
    try:
        read_image(path)
    except BadInput as no_image:
        try:
            return VideoReader(path, place=place)
        except BadInput:
            raise BadInput(
                f"{path} can be read neither as an image nor as a video",
                why=no_image.why,
                fix="Give an image, a video, a folder of images or an address",
            ) from no_image
    return None
