"""Addresses and answers of inference servers, and the comparison of their detections."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import match

Answered = list[tuple[str, float, list[float]]]  # what a bundle's client gives for a picture
_TRIES, _PAUSE = 120, 0.5  # seconds


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answer(address: str) -> str:
    """The text of an address."""
    with urllib.request.urlopen(address, timeout=10) as reply:
        return str(reply.read().decode())


@contextmanager
def running(
    command: Sequence[str], address: str, log: Path, problems: Callable[[str], str], **more: Any
) -> Iterator[None]:
    """A server in a process, from its being ready to its end.

    Args:
        command: of the server.
        address: of its REST.
        log: file for what it prints.
        problems: picks what to show of the log when it does not start.
        more: for `subprocess.Popen`.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **more)
    try:
        for _ in range(_TRIES):
            try:
                answer(f"{address}/v2/health/ready")
                break
            except OSError:
                assert process.poll() is None, problems(log.read_text(errors="replace"))
                time.sleep(_PAUSE)
        else:
            raise AssertionError(problems(log.read_text(errors="replace")))
        yield
    finally:
        process.terminate()
        process.wait(60)


def check_same(
    detector: Detector, expected: Sequence[Detections], found: Sequence[Answered]
) -> None:
    """Compare a server's detections with the detector's, picture by picture."""
    most = detector.thresholds.detections_per_img
    for one, answered in zip(expected, found, strict=True):
        cut = float(one.confidence[-1]) if len(one) == most else 0.0
        floor = max(cut, detector.thresholds.score_thresh)
        result = match(one, _as_detections(answered, detector.classes), floor=floor)
        assert result.same and result.matched, result


def infer_by_grpc(address: str, model: str, frames: Any, outputs: Sequence[str]) -> dict[str, Any]:
    """The outputs for frames (N, H, W, 3) uint8 BGR; it needs `tritonclient[grpc]`."""
    import tritonclient.grpc as library

    given = library.InferInput("frames", list(frames.shape), "UINT8")
    given.set_data_from_numpy(frames)
    with library.InferenceServerClient(address) as client:
        found = client.infer(model, [given])
    return {name: found.as_numpy(name) for name in outputs}


def _as_detections(answered: Answered, classes: Sequence[str]) -> Detections:
    names, scores, boxes = zip(*answered, strict=True) if answered else ((), (), ())
    ids: Any = [list(classes).index(name) for name in names]
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array(scores, np.float32),
        class_id=np.array(ids, np.int32),
    )
