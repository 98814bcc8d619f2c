"""The NMS kernel: its own source on a CPU against greedy NMS, its barriers, and its PTX."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from nms_kernel import NmsKernel, compile_kernel
from retinart.engine.model.info import Thresholds
from retinart.engine.runtime.nms import clip_boxes, detect_from_candidates
from retinart.engine.tensorrt.kernels import Kernel, ptx_path, source_path
from retinart.export.nms_plugin import KERNEL, scalars
from support import ROOT, Once

Floats = npt.NDArray[np.float32]
NO_CLIP = np.zeros(4, np.float32)


def crowd(
    seed: int, candidates: int, classes: int, *, objects: int = 30, jitter: float = 0.3,
    steps: int | None = None,
) -> tuple[Floats, Floats]:  # fmt: skip
    """Boxes (C, 4) scattered round a few, and scores (C, K); few steps make equal scores."""
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, objects, candidates)
    center, side = rng.uniform(0, 800, (objects, 2)), rng.uniform(20, 250, (objects, 2))
    center = center[owner] + rng.normal(0, jitter, (candidates, 2)) * side[owner]
    side = side[owner] * np.exp(rng.normal(0, jitter, (candidates, 2)))
    boxes = np.concatenate([center - side / 2, center + side / 2], axis=1).astype(np.float32)
    scores = rng.uniform(0, 0.3, (candidates, classes)).astype(np.float32)
    scores[np.arange(candidates), owner % classes] = rng.uniform(0.2, 1, candidates)
    if steps is not None:
        scores = np.round(scores * steps).astype(np.float32) / np.float32(steps)
    return boxes, scores


def attributes(**changes: Any) -> dict[str, Any]:
    usual = {"score_threshold": 0.05, "iou_threshold": 0.5, "max_pairs": 2000}
    return {**usual, "max_detections": 100, "plus_one": 0, **changes}


@pytest.fixture(scope="module")
def kernel(once: Once) -> NmsKernel:
    return NmsKernel(once)


def compare(
    kernel: NmsKernel, boxes: Floats, scores: Floats, given: dict[str, Any], *,
    limits: Floats = NO_CLIP, threads: int = 8,
) -> list[int]:  # fmt: skip
    """See that the kernel gives greedy NMS's detections to the bit; returns how many a scene has.

    `Thresholds` bounds what a file may ask for; so the judge is given more with `setattr`.
    """
    thresholds = Thresholds(
        score_thresh=given["score_threshold"], nms_thresh=given["iou_threshold"]
    )
    object.__setattr__(thresholds, "nms_candidates", given["max_pairs"])
    object.__setattr__(thresholds, "detections_per_img", given["max_detections"])
    outputs = kernel(boxes, scores, limits, given, threads=threads)
    found = []
    for image, (count, xyxy, confidence, labels) in enumerate(zip(*outputs, strict=True)):
        want = detect_from_candidates(
            boxes[image], scores[image], thresholds, plus_one=bool(given["plus_one"])
        )
        n = int(count[0])
        expected = clip_boxes(want.xyxy, (600, 700)) if limits.any() else want.xyxy
        np.testing.assert_array_equal(xyxy[:n], expected)
        np.testing.assert_array_equal(confidence[:n], want.confidence)
        np.testing.assert_array_equal(labels[:n], want.class_id)
        assert not (xyxy[n:].any() or confidence[n:].any() or labels[n:].any())
        found.append(n)
    return found


SCENES: dict[str, tuple[tuple[int, int], dict[str, Any], dict[str, Any]]] = {
    "few": ((200, 3), {}, {"score_threshold": 0.6}),
    "none": ((200, 3), {}, {"score_threshold": 1.0}),
    "one class": ((600, 1), {}, {}),
    "a thousand classes": ((300, 1000), {}, {}),
    "all kept": ((500, 4), {"jitter": 3.0}, {"max_detections": 1800}),
    "ties": ((700, 4), {"steps": 20}, {"max_detections": 300}),
    "more pairs than may enter": ((1000, 4), {}, {"max_pairs": 500, "max_detections": 500}),
    "ties at the last pair": ((1000, 4), {"steps": 9}, {"max_pairs": 901, "max_detections": 900}),
    "rounds": ((3000, 4), {}, {"max_pairs": 5000, "max_detections": 5000}),
    "rounds of ties": ((3000, 4), {"steps": 20}, {"max_pairs": 5000, "max_detections": 5000}),
    "one score": ((6000, 1), {"steps": 1}, {"max_pairs": 5000, "max_detections": 5000}),
    "plus one": ((700, 4), {"steps": 30}, {"plus_one": 1, "iou_threshold": 0.3}),
    "threshold zero": ((700, 4), {"steps": 30}, {"score_threshold": 0.0}),
    "minus zero": ((700, 4), {}, {"score_threshold": -0.0}),
    "iou zero": ((700, 4), {"objects": 4}, {"iou_threshold": 0.0}),
    "iou one": ((700, 4), {}, {"iou_threshold": 1.0, "max_detections": 2000}),
}


@pytest.mark.parametrize("name", SCENES)
def test_equal_to_greedy_nms(name: str, kernel: NmsKernel) -> None:
    (candidates, classes), how, given = SCENES[name]
    scenes = [crowd(seed, candidates, classes, **how) for seed in range(3)]
    boxes, scores = (np.stack(parts) for parts in zip(*scenes, strict=True))
    if name == "one score":
        scores[:] = 0.5
    found = compare(kernel, boxes, scores, attributes(**given))
    assert (max(found) == 0) if name == "none" else (min(found) > 3)


@pytest.mark.parametrize("threads", [1, 3, 32, 100])
def test_the_size_of_a_block_changes_nothing(threads: int, kernel: NmsKernel) -> None:
    boxes, scores = crowd(5, 1500, 4, steps=25)
    given = attributes(max_pairs=4000, max_detections=700)
    assert compare(kernel, boxes[None], scores[None], given, threads=threads)[0] > 300


def test_boxes_are_clipped_after_nms(kernel: NmsKernel) -> None:
    boxes, scores = crowd(6, 700, 4)
    limits = np.array([700, 600, 700, 600], np.float32)
    assert (boxes < 0).any() and (boxes[:, 3] > 600).any()
    compare(kernel, boxes[None], scores[None], attributes(), limits=limits)


def barriers() -> list[int]:
    """The lines of the kernel's barriers."""
    lines = source_path("nms").read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if "__syncthreads()" in line]


def test_a_thread_sanitizer_finds_no_race_and_needs_every_barrier(tmp_path: Path) -> None:
    """It is silent over the kernel as it is, and speaks up when any one barrier is left out."""
    program = compile_kernel(tmp_path / "program", "-O1", "-g", "-fsanitize=thread")
    scenes = [crowd(seed, 1200, 4, objects=40, jitter=0.5, steps=40) for seed in range(2)]
    boxes, scores = (np.stack(parts) for parts in zip(*scenes, strict=True))
    # two rounds, the first of which finds too many pairs for its list
    numbers = scalars(1200, 4, attributes(max_pairs=3500, max_detections=3000))[:6]
    scene = tmp_path / "scene"
    scene.write_bytes(
        np.array([*numbers, len(boxes), 4], np.int32).tobytes()
        + b"".join(a.tobytes() for a in (boxes, scores, NO_CLIP))
    )

    def run(without: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, scene, str(without)],
            env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1 exitcode=66"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    whole = run(-1)
    if "unexpected memory mapping" in whole.stderr:
        pytest.skip("this kernel's memory layout is not one that the thread sanitizer knows")
    assert (whole.returncode, whole.stderr) == (0, "")
    silent = [line for line in barriers() if run(line).returncode != 66]
    assert len(barriers()) >= 8 and silent == []


@pytest.mark.parametrize("kernel_name", get_args(Kernel))
def test_the_ptx_is_that_of_the_source(kernel_name: Kernel) -> None:
    text = ptx_path(kernel_name).read_text(encoding="ascii")
    digest = hashlib.sha256(source_path(kernel_name).read_bytes()).hexdigest()
    assert digest in text.splitlines()[1], (
        "the source has changed since: run .ci/ptx engine/tensorrt"
    )
    assert "\n.version 7.8\n" in text and "\n.target sm_75\n" in text
    assert kernel_name != "nms" or f".entry {KERNEL}(" in text


def test_nvcc_compiles_the_same_ptx(tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc")
    for shipped in map(ptx_path, get_args(Kernel)):
        made_by = re.search(r"nvcc ([\d.]+)", shipped.read_text(encoding="ascii"))
        version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True)
        assert made_by
        if f"V{made_by[1]}" not in version.stdout:
            pytest.skip(f"{shipped.name} was made by nvcc {made_by[1]}, and another one is here")
    subprocess.run([ROOT / ".ci" / "ptx", tmp_path], check=True)
    for shipped in map(ptx_path, get_args(Kernel)):
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes()
