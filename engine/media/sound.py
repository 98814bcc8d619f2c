"""The sound of a video file, packet by packet, for its annotated copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.container import OutputContainer

from retinart.engine.errors import BadInput
from retinart.engine.media.video import file_url

# MP4 may hold these and browsers play them, so their packets are copied as they are
_COPIED = frozenset(("aac", "flac", "mp3", "opus"))
_RATE = 48_000  # samples a second of sound that is encoded anew


class Sound:
    """Reads the sound of a video, and shifts it to the first frame of the copy.

    Sound in AAC, FLAC, MP3 and Opus is copied without loss. Other sound is encoded as AAC, in
    stereo where it has two channels or more.

    Args:
        path: the video file.
        container: the copy, whose header is not written yet; it gets a stream for the sound.

    Attributes:
        problem: why the sound ends before the video, or "".

    Raises:
        BadInput: the file cannot be opened or has no sound.
    """

    def __init__(self, path: Path, container: OutputContainer) -> None:
        self.problem = ""
        self._next: av.Packet[av.AudioStream] | None = None
        try:
            self._input = av.open(file_url(path), metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise _no_sound(path, error.strerror or str(error)) from error
        stream = self._input.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise _no_sound(path, "it has none")
        video = self._input.streams.best("video")
        self._origin = 0.0  # of the video's times, in those of the container
        if video is not None and video.start_time is not None and video.time_base is not None:
            self._origin = float(video.start_time * video.time_base)
        self._stream = stream
        if stream.codec_context.codec.canonical_name in _COPIED:
            self._output = container.add_stream_from_template(stream)
            self._read = self._copied
        else:
            layout = "mono" if stream.channels == 1 else "stereo"
            self._output = container.add_stream("aac", rate=_RATE, layout=layout)
            self._read = self._encoded
        self._packets: Iterator[av.Packet[av.AudioStream]] = iter(())

    def begin(self, seconds: float) -> None:
        """Begin at a time of the video, which becomes 0."""
        self._packets = self._read(self._origin + seconds)
        self._advance()

    def until(self, seconds: float) -> Iterator[av.Packet[av.AudioStream]]:
        """The packets before a time of the copy that were not given yet."""
        while (packet := self._next) is not None:
            if packet.pts is not None and float(packet.pts * packet.time_base) >= seconds:
                return
            yield packet
            self._advance()

    def close(self) -> None:
        """Close the file."""
        self._packets, self._next = iter(()), None
        self._input.close()

    def _advance(self) -> None:
        try:
            self._next = next(self._packets, None)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._next, self.problem = None, getattr(error, "strerror", None) or str(error)

    def _copied(self, begin: float) -> Iterator[av.Packet[av.AudioStream]]:
        for packet in self._input.demux(self._stream):
            if packet.pts is None or packet.dts is None:  # the last one, which is empty
                continue
            shift = round(begin / float(packet.time_base))
            packet.pts -= shift
            packet.dts -= shift
            if packet.pts >= 0:
                packet.stream = self._output
                yield packet

    def _encoded(self, begin: float) -> Iterator[av.Packet[av.AudioStream]]:
        for frame in self._input.decode(self._stream):
            if frame.pts is None or frame.time_base is None:
                continue
            frame.pts -= round(begin / float(frame.time_base))
            if frame.pts >= 0:
                yield from self._output.encode(frame)
        yield from self._output.encode(None)


def _no_sound(path: Path, why: str) -> BadInput:
    return BadInput(f"cannot keep the sound of {path}", why=why, fix="Leave out `audio`")
