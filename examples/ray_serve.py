"""Ray Serve: POST a picture, and get JSON. Requests that come together share a batch.

RETINART_MODEL=model.onnx serve run --app-dir examples ray_serve:app
curl --data-binary @picture.jpg localhost:8000
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import retinart

LEAST = 0.3  # the score from which on a detection is sent

if not os.environ.get("RETINART_MODEL"):
    sys.exit("usage: RETINART_MODEL=model.onnx serve run --app-dir examples ray_serve:app")
CPUS = int(os.environ.get("RETINART_CPUS", "1"))  # of a replica
MODEL = str(Path(os.environ["RETINART_MODEL"]).absolute())


@serve.deployment(max_ongoing_requests=16, ray_actor_options={"num_cpus": CPUS})
class Detect:
    """A replica holds one detector; `num_replicas` says how many there are."""

    def __init__(self, model: str, threads: int) -> None:
        self.detect = retinart.Detector(model, threads=threads)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)  # type: ignore[untyped-decorator]
    async def batch(self, frames: list[Any]) -> list[retinart.Detections]:
        """The detections of frames that came together."""
        return self.detect(frames)

    async def __call__(self, request: Request) -> JSONResponse:
        """The detections of a picture."""
        frame = cv2.imdecode(np.frombuffer(await request.body(), np.uint8), cv2.IMREAD_COLOR)
        if frame is None:
            return JSONResponse({"error": "the body is not a picture that OpenCV reads"}, 415)
        found = await self.batch(frame)
        sure, classes = found[found.confidence >= LEAST], self.detect.classes
        return JSONResponse(
            [
                {"class": classes[label], "score": score, "xyxy": box.tolist()}
                for box, score, label in sure
            ]
        )


app = Detect.bind(MODEL, CPUS)  # type: ignore[attr-defined]
