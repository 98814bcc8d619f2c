"""Writes a model's probe: the referee's answers, for the file to carry."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retinart.engine.errors import CheckFailed
from retinart.engine.media.images import Image
from retinart.engine.model.info import CANDIDATES, HEADS, INPUT, ModelInfo
from retinart.engine.model.onnx_bytes import graph_sha256, with_outputs
from retinart.engine.model.probe import Probe
from retinart.engine.runtime.onnxruntime_runner import open_session
from retinart.engine.runtime.runner import Floats
from retinart.engine.self_test.answers import (
    Tensors,
    best_candidates,
    nms_of,
    noise,
    positions_in,
    rows_of,
    short,
)
from retinart.engine.self_test.picture import probe_picture, probe_size

SEEDS = 8  # that are tried for a picture with detections
ENOUGH = 10  # detections


def with_probe(info: ModelInfo, model: bytes, coarser: bytes | None = None) -> ModelInfo:
    """Metadata with a model's probe.

    Args:
        info: the model's metadata.
        model: the bytes of its ONNX file, with any metadata.
        coarser: the same with INT8 weights of one bit less; None for a float file.

    Raises:
        MissingDependency: ONNX Runtime is not installed.
    """
    probe = make_probe(model, info, referee(model), None if coarser is None else referee(coarser))
    return dataclasses.replace(info, probe=probe)


def referee(model: bytes) -> Tensors:
    """A function from names and frames (N, H, W, 3) uint8 BGR to a graph's tensors, by name.

    ONNX Runtime without optimisations computes each node in float as it is written. It fuses
    nothing, so no integer kernel can saturate.
    """

    @functools.cache
    def session(names: tuple[str, ...]) -> Any:
        return open_session(with_outputs(model, names), optimise=False)

    def tensors(names: Sequence[str], frames: Image) -> dict[str, Floats]:
        found = session(tuple(names)).run(list(names), {INPUT: frames})
        return {name: np.asarray(v, np.float32) for name, v in zip(names, found, strict=True)}

    return tensors


def make_probe(
    model: bytes, info: ModelInfo, referee: Tensors, coarser: Tensors | None = None
) -> Probe:
    """The probe of a model file.

    Args:
        model: the file's bytes; only the hash of its graph is taken.
        info: its metadata.
        referee: gives the tensors of the file for frames.
        coarser: the same with INT8 weights of one bit less; None for a float file.

    Raises:
        CheckFailed: a raw output is NaN or infinite.
    """
    size = probe_size(info)
    best: Probe | None = None
    for seed in range(SEEDS):
        picture = probe_picture(seed, size)
        frames, (way_back,) = info.resize.apply([picture])
        tensors = referee((*HEADS, *CANDIDATES), frames)
        _check_finite(tensors)
        found = Probe(
            seed=seed,
            size=size,
            graph_sha256=graph_sha256(model),
            rounding=0.0,
            raw={
                name: tuple(short(v) for v in tensors[name].ravel()[positions])
                for name, positions in positions_in(seed, tensors)
            },
            candidates=rows_of(best_candidates(tensors, info)),
            detections=rows_of(
                way_back.detections_to_source(nms_of(tensors, info, info.thresholds, size))
            ),
        )
        if best is None or len(found.detections) > len(best.detections):
            best = found
        if len(best.detections) >= ENOUGH:
            break
    assert best is not None
    if coarser is not None:
        frames, _ = info.resize.apply([probe_picture(best.seed, size)])
        best = dataclasses.replace(best, rounding=noise(best, coarser(HEADS, frames)))
    return best


def _check_finite(tensors: Mapping[str, Floats]) -> None:
    for name in HEADS:
        if not np.isfinite(tensors[name]).all():
            raise CheckFailed(
                f"the raw output {name} is NaN or infinite",
                why="the weights hold NaN, or their values are far out of range",
                fix="No file was written. Check the checkpoint",
            )
