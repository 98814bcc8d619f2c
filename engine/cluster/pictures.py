"""Pictures through one detector: decode, resize and infer in threads of their own, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, Note, why_skipped
from retinart.engine.pipeline import Pipeline
from retinart.engine.runtime.runner import Pending, Prepared, Runner

Read = Callable[[Note], Image]  # reads one picture, and tells what was changed of it


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureResult:
    """What was found in a picture, or why it cannot be read.

    Attributes:
        height, width: in pixels; 0 if it cannot be read.
        detections: in its pixels.
        why: it cannot be read; "" if it can.
        changes: what was changed of it, as (kind, effect).
    """

    height: int = 0
    width: int = 0
    detections: Detections
    why: str = ""
    changes: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; no number is rounded."""
        found = self.detections
        return {
            "size": [self.height, self.width],
            "boxes": found.xyxy.tolist(),
            "scores": found.confidence.tolist(),
            "labels": found.class_id.tolist(),
            "limits": dict(found.limits),
            "why": self.why,
            "changes": [list(change) for change in self.changes],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PictureResult:
        """What `to_json` made."""
        return cls(
            height=data["size"][0],
            width=data["size"][1],
            detections=Detections(
                xyxy=np.array(data["boxes"], np.float32).reshape(-1, 4),
                confidence=np.array(data["scores"], np.float32),
                class_id=np.array(data["labels"], np.int32),
                limits=data["limits"],
            ),
            why=data["why"],
            changes=tuple((kind, effect) for kind, effect in data["changes"]),
        )


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
        nothing = Detections(
            xyxy=np.zeros((0, 4), np.float32),
            confidence=np.zeros(0, np.float32),
            class_id=np.zeros(0, np.int32),
        )
        return PictureResult(detections=nothing, why=decoded.why)
    height, width = decoded.image.shape[:2]
    [found] = pending.result()
    return PictureResult(height=height, width=width, detections=found, changes=decoded.changes)
