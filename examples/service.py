"""A web service: POST a picture to /detect, and get JSON.

RETINART_MODEL=model.onnx uvicorn --app-dir examples service:app
curl --data-binary @picture.jpg -H "Content-Type: image/jpeg" localhost:8000/detect
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import Body, FastAPI, HTTPException, Request

import retinart

MODEL = os.environ.get("RETINART_MODEL", "")
if not MODEL:
    sys.exit("usage: RETINART_MODEL=model.onnx uvicorn --app-dir examples service:app")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model before the first request, and close it after the last."""
    with retinart.Detector(MODEL) as detect:
        app.state.detect = detect
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
def healthz() -> str:
    """For probes: the server listens only when the model is loaded."""
    return "ok"


@app.post("/detect")
def detect_on(
    request: Request, picture: Annotated[bytes, Body(media_type="image/jpeg")], least: float = 0.3
) -> list[dict[str, Any]]:
    """The detections from a score on. FastAPI calls it in threads; they share one detector."""
    frame = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise HTTPException(415, "the body is not a picture that OpenCV reads")
    detect: retinart.Detector = request.app.state.detect
    found = detect(frame)
    return [
        {"class": detect.classes[class_id], "score": score, "xyxy": box.tolist()}
        for box, score, class_id in found[found.confidence >= least]
    ]
