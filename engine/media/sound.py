"""The sound of a video file, packet by packet, for its annotated copy."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer

from retinart.engine.errors import BadInput
from retinart.engine.media.video import open_file

# MP4 may hold these and browsers play them, so their packets are copied as they are
_COPIED = frozenset(("aac", "flac", "mp3", "opus"))
_RATE = 48_000  # samples a second of sound that is encoded anew
_PIECE = 1024  # samples that AAC encodes at once
_GAP = _RATE // 10  # samples; a later start than this is a gap and not a rounded time


class Sound:
    """Reads the sound of a video, with times that count from the first frame of the copy.

    Sound in AAC, FLAC, MP3 and Opus is copied without loss. Other sound becomes AAC, in stereo if
    it has two channels or more. Damage in it ends no job.

    Args:
        path: the video file.
        container: the copy, whose header is not written yet; it gets a stream for the sound.

    Raises:
        BadInput: the file cannot be opened or has no sound.
    """

    def __init__(self, path: Path, container: OutputContainer) -> None:
        try:
            self._input = open_file(path)
        except (av.FFmpegError, OSError) as error:
            raise _no_sound(path, error.strerror or str(error)) from error
        stream = self._input.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise _no_sound(path, "it has none")
        video = self._input.streams.best("video")
        self._origin = 0.0  # the container's time at which the video begins
        if video is not None and video.start_time is not None and video.time_base is not None:
            self._origin = float(video.start_time * video.time_base)
        self._stream = stream
        self._next: av.Packet[av.AudioStream] | None = None
        self._packets: Iterator[av.Packet[av.AudioStream]] = iter(())
        self._layout = "mono" if stream.channels == 1 else "stereo"
        self._copies = stream.codec_context.codec.canonical_name in _COPIED
        if self._copies:
            self._output = container.add_stream_from_template(stream)
        else:
            self._output = container.add_stream("aac", rate=_RATE, layout=self._layout)

    def begin(self, seconds: float) -> None:
        """Begin at a time of the video, which becomes 0."""
        read = self._copied if self._copies else self._encoded
        self._packets = read(self._origin + seconds)
        self._next = next(self._packets, None)

    def until(self, seconds: float) -> Iterator[av.Packet[av.AudioStream]]:
        """The packets before a time of the copy that were not given yet."""
        while (packet := self._next) is not None:
            if packet.pts is not None and float(packet.pts * packet.time_base) >= seconds:
                return
            yield packet
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the file."""
        self._packets, self._next = iter(()), None
        self._input.close()

    def _read(self) -> Iterator[av.Packet[av.AudioStream]]:
        try:
            yield from self._input.demux(self._stream)
        except (av.FFmpegError, OSError):  # the file ends in the middle of something
            return

    def _copied(self, begin: float) -> Iterator[av.Packet[av.AudioStream]]:
        for packet in self._read():
            if packet.pts is None or packet.dts is None:  # the last one, which is empty
                continue
            shift = round(begin / float(packet.time_base))
            packet.pts -= shift
            packet.dts -= shift
            if packet.pts >= 0:
                packet.stream = self._output
                yield packet

    def _encoded(self, begin: float) -> Iterator[av.Packet[av.AudioStream]]:
        resampler = av.AudioResampler("fltp", self._layout, _RATE, _PIECE)
        position: int | None = None  # of the next sample; times of containers are too coarse for it
        for packet in self._read():
            for frame in _decoded(packet):
                if frame.time is None:
                    continue
                begins = round((frame.time - begin) * _RATE)
                if position is None or begins > position + _GAP:
                    position = begins
                frame.pts = None
                for piece in resampler.resample(frame):
                    piece.pts, piece.time_base = position, Fraction(1, _RATE)
                    position += piece.samples
                    if piece.pts >= 0:
                        yield from self._output.encode(piece)
        yield from self._output.encode(None)


def _decoded(packet: av.Packet[av.AudioStream]) -> list[av.AudioFrame]:
    try:
        return packet.decode()
    except av.FFmpegError:
        return []


def _no_sound(path: Path, why: str) -> BadInput:
    return BadInput(f"cannot keep the sound of {path}", why=why, fix="Leave out `audio`")
