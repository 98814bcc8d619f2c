"""The time table of an MP4 file: OpenCV writes a constant rate, and this makes it the frames' own.

An MP4 holds the length of each frame in its index (ISO/IEC 14496-12): `moov` > `trak` > `mdia` >
`minf` > `stbl` > `stts`. OpenCV's MPEG-4 encoder makes no B-frames, so frames lie in the order in
which they are shown, and its index comes last in the file, so that it may change its length.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from pathlib import Path

_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
Box = tuple[bytes, int, int, int]  # its kind, and where it, its content and what follows it begin


def set_times(path: Path, times_ms: Sequence[float], *, last_ms: float) -> None:
    """Give the frames of a video of one track their times.

    Args:
        path: an MP4 file as OpenCV writes it.
        times_ms: of each frame; only the differences count.
        last_ms: how long the last frame is shown.

    Raises:
        ValueError: the file is not of that form.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        boxes = _boxes(_reader(file.fileno()), 0, size)
        start, end = next(((b[1], b[3]) for b in boxes if b[0] == b"moov"), (0, 0))
        if not end or end != size:
            raise ValueError(f"{path} does not end in an index")
        index = os.pread(file.fileno(), end - start, start)
        changed = _retime(index, times_ms, last_ms)
        file.seek(start)
        file.write(changed)
        file.truncate()


def has_sound(path: Path) -> bool | None:
    """Whether an MP4 or QuickTime file has a sound track; None when the file is neither."""
    with path.open("rb") as file:
        read = _reader(file.fileno())
        size = file.seek(0, os.SEEK_END)
        try:
            handlers = [
                read(content + 8, 4) for kind, content in _walk(read, 0, size) if kind == b"hdlr"
            ]
        except ValueError:
            return None
    return any(handler == b"soun" for handler in handlers) if handlers else None


def _retime(index: bytes, times_ms: Sequence[float], last_ms: float) -> bytes:
    read = _bytes_reader(index)
    found = dict(_walk(read, 0, len(index)))
    if sum(kind == b"stts" for kind, _ in _walk(read, 0, len(index))) != 1 or b"ctts" in found:
        raise ValueError("not one track without reordered frames")
    movie_scale = _scale(index, found[b"mvhd"])
    media_scale = _scale(index, found[b"mdhd"])
    shown = accumulate((*times_ms, max(times_ms) + last_ms), max)  # time never runs backwards
    ticks = [round((t - times_ms[0]) * media_scale / 1000) for t in shown]
    steps = [max(1, b - a) for a, b in pairwise(ticks)]
    runs = [(len(list(group)), step) for step, group in groupby(steps)]
    table = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs)
    media = sum(steps)
    movie = round(media * movie_scale / media_scale)
    data = bytearray(index)
    _set_duration(data, found[b"mdhd"], media, after=8)
    _set_duration(data, found[b"mvhd"], movie, after=8)
    _set_duration(data, found[b"tkhd"], movie, after=12)
    if b"elst" in found:  # version and flags, count, then the first entry's length
        content = found[b"elst"]
        struct.pack_into(">Q" if data[content] else ">I", data, content + 8, min(movie, 2**32 - 1))
    return _replace(bytes(data), b"stts", table)


def _replace(data: bytes, kind: bytes, content: bytes) -> bytes:
    """Boxes with the content of one kind replaced, and the lengths of those around it."""
    out = b""
    for name, start, begin, end in _boxes(_bytes_reader(data), 0, len(data)):
        body = data[begin:end]
        if name == kind:
            body = content
        elif name in _CONTAINERS:
            body = _replace(body, kind, content)
        elif begin - start != 8:
            raise ValueError("a box of 64 bits in the index")
        out += struct.pack(">I4s", 8 + len(body), name) + body
    return out


def _scale(index: bytes, content: int) -> int:
    """Ticks a second, of an mvhd or mdhd."""
    place = content + (20 if index[content] else 12)
    return int(struct.unpack_from(">I", index, place)[0])


def _set_duration(data: bytearray, content: int, value: int, *, after: int) -> None:
    """Set the length in an mvhd, mdhd or tkhd: behind two times and `after - 4` bytes more."""
    if data[content]:  # version 1: times and length of 64 bits
        struct.pack_into(">Q", data, content + 4 + 16 + (after - 4), value)
    else:
        struct.pack_into(">I", data, content + 4 + 8 + (after - 4), min(value, 2**32 - 1))


def _walk(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """(kind, where its content begins) of every box, those within others too."""
    for kind, _, content, stop in _boxes(read, start, end):
        yield kind, content
        if kind in _CONTAINERS:
            yield from _walk(read, content, stop)


def _boxes(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[Box]:
    while start + 8 <= end:
        length, kind = struct.unpack(">I4s", read(start, 8))
        content = start + 8
        if length == 1:
            (length,) = struct.unpack(">Q", read(content, 8))
            content += 8
        stop = end if length == 0 else start + length
        if not content <= stop <= end:
            raise ValueError(f"a box of {length} bytes at {start}")
        yield kind, start, content, stop
        start = stop


def _reader(descriptor: int) -> Callable[[int, int], bytes]:
    def read(start: int, length: int) -> bytes:
        data = os.pread(descriptor, length, start)
        if len(data) != length:
            raise ValueError("the file ends within a box")
        return data

    return read


def _bytes_reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda start, length: data[start : start + length]
