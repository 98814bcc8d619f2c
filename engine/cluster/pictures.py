"""Pictures through one detector: decode, resize and infer in threads of their own, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retinart.engine.common.timing import StageClock
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.picture_result import PictureResult
from retinart.engine.media.images import Image, Note, read_image, why_skipped
from retinart.engine.pipeline import Pipeline
from retinart.engine.runtime.runner import Pending, Prepared, Runner

Read = Callable[[Note], Image]  # reads one picture, and tells what was changed of it


def file_reader(path: Path) -> Read:
    """What reads the picture in a file."""
    return lambda note: read_image(path, note=note)


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """A picture, or why there is none."""

    image: Image | None
    why: str = ""
    changes: tuple[tuple[str, str], ...] = ()


def detect_pictures(runner: Runner, reads: Iterable[Read]) -> Iterator[PictureResult]:
    """Read and detect on pictures, each as a batch of its own.

    Args:
        runner: what detects.
        reads: reads the pictures, in order.

    Yields:
        A result for each picture, in order.
    """
    pipeline = (
        Pipeline("decode", map(_decode, reads))
        .then("resize", partial(_resize, runner))
        .then("infer", _submit, capacity=max(1, runner.max_in_flight - 1))
    )
    with pipeline:
        for decoded, pending in pipeline:
            yield _result(decoded, pending)


def _decode(read: Read) -> _Decoded:
    changes = list[tuple[str, str]]()
    try:
        image = read(lambda kind, effect, example: changes.append((kind, effect)))
    except BadInput as error:
        return _Decoded(image=None, why=why_skipped(error))
    return _Decoded(image=image, changes=tuple(changes))


def _resize(runner: Runner, decoded: _Decoded) -> tuple[_Decoded, Prepared | None]:
    return decoded, None if decoded.image is None else runner.prepare([decoded.image])


def _submit(step: tuple[_Decoded, Prepared | None]) -> tuple[_Decoded, Pending | None]:
    decoded, prepared = step
    return decoded, None if prepared is None else prepared.submit(StageClock())


def _result(decoded: _Decoded, pending: Pending | None) -> PictureResult:
    if decoded.image is None or pending is None:
        return PictureResult.unread(decoded.why)
    height, width = decoded.image.shape[:2]
    [found] = pending.result()
    return PictureResult(height=height, width=width, detections=found, changes=decoded.changes)
