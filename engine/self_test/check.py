"""Does this machine compute a model file as it should? The file's probe says what is right.

A check goes stage by stage, and the first stage that is wrong tells the cause: the raw outputs of
the network, the candidates that they are decoded to, and the detections that NMS keeps of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.timing import StageClock
from retinart.engine.common.user_cache import Remembered
from retinart.engine.detections import Detections
from retinart.engine.errors import CheckFailed
from retinart.engine.model.info import CANDIDATES, HEADS, ModelInfo
from retinart.engine.model.onnx_bytes import graph_sha256
from retinart.engine.model.probe import Probe
from retinart.engine.runtime.runner import Floats, Runner
from retinart.engine.self_test.answers import nms_of, noise, rows_of
from retinart.engine.self_test.picture import probe_picture


@dataclass(frozen=True, kw_only=True)
class Bar:
    """How far a machine may be from the file.

    Attributes:
        noise: root of mean squared error over standard deviation of the raw outputs.
        corner: two boxes are alike when their corners differ by at most this share of the longer
            side, and half a pixel.
        score: and their scores by at most this.
        share: of them that must be alike.
    """

    noise: float
    corner: float
    score: float
    share: float


EXACT = Bar(noise=1e-3, corner=0.01, score=5e-3, share=0.98)
# By what the layers are computed in. What was measured stands in docs/self-test.md.
BARS = {
    "fp32": EXACT,
    "fp32-direct": EXACT,
    "fp16": Bar(noise=0.02, corner=0.03, score=0.02, share=0.95),
    "bf16": Bar(noise=0.06, corner=0.1, score=0.05, share=0.85),
    "int8": Bar(noise=0.08, corner=0.3, score=0.15, share=0.75),
    "int8+fp16": Bar(noise=0.08, corner=0.3, score=0.15, share=0.75),
    "int8+bf16": Bar(noise=0.08, corner=0.3, score=0.15, share=0.75),
    "fp8": Bar(noise=0.25, corner=0.3, score=0.15, share=0.75),
    "fp8+fp16": Bar(noise=0.25, corner=0.3, score=0.15, share=0.75),
    "fp8+bf16": Bar(noise=0.25, corner=0.3, score=0.15, share=0.75),
}
PASSED_BEFORE = "self-test passed before"  # begins what `check_once` returns of a known file
ROOM = 1.5  # times the rounding of INT8 weights of one bit less


@dataclass(frozen=True)
class Stage:
    """One comparison.

    Attributes:
        name: of the stage.
        good: whether it is near enough.
        text: how far it is, and how far it may be.
    """

    name: str
    good: bool
    text: str


@dataclass(frozen=True)
class CheckReport:
    """The stages in order, and what is wrong.

    Attributes:
        stages: what was compared.
        cause: what is likely wrong; "" when all is right.
        fix: what to do about it.
    """

    stages: tuple[Stage, ...]
    cause: str = ""
    fix: str = ""

    @property
    def good(self) -> bool:
        """Whether something was compared, and every stage is near enough."""
        return bool(self.stages) and all(stage.good for stage in self.stages)


def check_once(runner: Runner, info: ModelInfo, precision: str, path: Path, *, engine: bool) -> str:
    """Check a model, unless it was found good before on this machine.

    Args:
        path: the model's file.
        engine: whether it is an engine.

    Returns:
        What was found, one line.

    Raises:
        CheckFailed: this machine computes the file otherwise than its precision allows.
    """
    probe = info.probe
    if probe is None:
        return "no self-test: the file carries no probe, export it again for one"
    state, known = path.stat(), Remembered("self-tests")
    key = (
        probe.graph_sha256, state.st_size, state.st_mtime_ns, *runner.identity, precision,
        repr(runner.thresholds), repr(runner.info.resize), cpu_name(), *sorted(instruction_sets()),
        os.environ.get("ONEDNN_MAX_CPU_ISA", ""), version("retinart"),
    )  # fmt: skip
    before = known.get(*key)
    if before is not None:
        return before
    report = check_model(runner, info, precision, probe, None if engine else path)
    if not report.stages:
        return "no self-test: nothing can be compared"
    if not report.good:
        worst = report.stages[-1]
        raise CheckFailed(
            f"{path} is computed wrongly here ({worst.name}: {worst.text})",
            why=report.cause,
            fix=f"{report.fix}. `retinart check {path}` shows the stages; "
            "`check=False` runs the file all the same",
        )
    seen = "; ".join(
        f"{stage.name} {stage.text}" for stage in report.stages if stage.name != "graph"
    )
    known.set(f"{PASSED_BEFORE}: {seen}", *key)
    return f"self-test passed: {seen}"


def check_model(
    runner: Runner, info: ModelInfo, precision: str, probe: Probe, path: Path | None = None
) -> CheckReport:
    """Compare a loaded model with its file's probe.

    Args:
        runner: the model as it runs here.
        info: of the file; the runner's has another resize rule where another size was asked for.
        precision: what its layers are computed in, one of BARS.
        probe: of its file.
        path: the ONNX file, whose graph must be the one that the probe was made of; None for an
            engine, which has a hash of its own.
    """
    bar = BARS[precision]
    stages: list[Stage] = []

    def report(*wrong: str) -> CheckReport:
        return CheckReport(tuple(stages), *wrong)

    if path is not None:
        stages.append(graph := _compare_graph(path, probe))
        if not graph.good:
            return report(
                "the file's weights or nodes are not those that were exported",
                "Copy the file again, or export it again",
            )
    picture = probe_picture(probe.seed, probe.size)
    frames, (way_back,) = info.resize.apply([picture])
    tensors = runner.tensors((*HEADS, *CANDIDATES), frames)
    if tensors is not None:
        limit = max(bar.noise, ROOM * probe.rounding)
        stages.append(raw := _compare_raw(probe, tensors, limit))
        if not raw.good:
            swapped = np.ascontiguousarray(frames[..., ::-1])
            other = runner.tensors(HEADS, swapped) or {}
            return report(*_why_raw(precision, tensors, _compare_raw(probe, other, limit).good))
        stages.append(candidates := _compare_candidates(info, probe, tensors, bar))
        if not candidates.good:
            return report(
                "the raw outputs are right, but boxes or scores are decoded otherwise: anchors in "
                "another order or of other sizes, or other box weights",
                "Report it with the runtime's version; no setting of yours can cause it",
            )
    if runner.info.resize != info.resize:  # NMS would see another picture
        return report()
    (found,) = runner.prepare([picture]).submit(StageClock()).result()
    if tensors is not None:
        kept = way_back.detections_to_source(nms_of(tensors, info, runner.thresholds, probe.size))
        stages.append(
            nms := _compare("NMS", rows_of(kept, len(kept)), found, replace(EXACT, share=0.95))
        )
        if not nms.good:
            return report(
                "NMS keeps other detections than its thresholds tell",
                "Report it with the runtime's version",
            )
    elif _same_nms(runner) and probe.detections:
        least = runner.thresholds.score_thresh
        rows = tuple(row for row in probe.detections if row[4] > least)
        stages.append(detections := _compare("detections", rows, found, bar))
        if not detections.good:
            return report(
                "the engine detects otherwise than the file that it was built of",
                "Build it again on this machine; if that does not help, build it in FP32",
            )
    return report()


def _compare_graph(path: Path, probe: Probe) -> Stage:
    same = graph_sha256(path.read_bytes()) == probe.graph_sha256
    return Stage("graph", same, "as it was written" if same else "changed since it was written")


def _compare_raw(probe: Probe, tensors: dict[str, Floats], limit: float) -> Stage:
    error = noise(probe, tensors) if tensors else float("nan")
    if not np.isfinite(error):
        return Stage("raw outputs", False, "NaN or infinite")
    text = f"noise over signal {error:.2g} (limit {limit:.2g})"
    return Stage("raw outputs", error <= limit, text)


def _why_raw(precision: str, tensors: dict[str, Floats], swapped: bool) -> tuple[str, str]:
    """The likely cause of wrong raw outputs, and what to do."""
    if not all(np.isfinite(tensors[name]).all() for name in HEADS):
        return (
            "values overflow: a layer in half precision exceeds 65504",
            "Convert the file again with --images, so that such layers stay in FP32",
        )
    if swapped:
        return "red and blue are swapped on their way to the network", "Hand over BGR pictures"
    if precision.startswith("int8"):
        return (
            "products of 8-bit integers overflow on this CPU, or its INT8 kernels are wrong",
            "Calibrate again with --weight-bits 7, or run the FP32 file here",
        )
    return (
        "this runtime computes the network otherwise than the file says",
        "Try another --runtime or --compute, and report it with the runtime's version",
    )


def _same_nms(runner: Runner) -> bool:
    """Whether the thresholds in force differ from the file's in the score alone."""
    built = replace(runner.info.thresholds, score_thresh=runner.thresholds.score_thresh)
    return built == runner.thresholds


def _compare_candidates(
    info: ModelInfo, probe: Probe, tensors: dict[str, Floats], bar: Bar
) -> Stage:
    """Whether each candidate of the probe is among all candidates here."""
    boxes, scores = (tensors[name][0] for name in CANDIDATES)
    rows = np.array(probe.candidates, np.float32).reshape(-1, 6)
    near = _near(rows[:, :4], boxes, bar.corner)
    ids = np.array(info.class_ids)
    channel = np.searchsorted(ids, rows[:, 5]).clip(max=len(ids) - 1)
    near &= (ids[channel] == rows[:, 5])[:, None]  # a class that is left out has no channel
    alike = near & (np.abs(scores[:, channel].T - rows[:, 4:5]) <= bar.score)
    count = int(alike.any(axis=1).sum())
    text = f"{count} of {len(rows)} alike (needed: {bar.share:.0%})"
    return Stage("candidates", count >= bar.share * len(rows), text)


def _compare(name: str, rows: Sequence[Sequence[float]], found: Detections, bar: Bar) -> Stage:
    """Whether rows (x1, y1, x2, y2, score, class) and the best detections have their like."""
    expected = np.array(rows, np.float32).reshape(-1, 6)
    alike = (
        _near(expected[:, :4], found.xyxy, bar.corner)
        & (np.abs(expected[:, 4:5] - found.confidence) <= bar.score)
        & (expected[:, 5:6] == found.class_id)
    )
    # The probe holds the first KEPT alone, so more may be found.
    counts = int(alike.any(axis=1).sum()), int(alike[:, : len(expected)].any(axis=0).sum())
    missing = len(expected) - len(found)
    text = f"{min(counts)} of {len(expected)} alike (needed: {bar.share:.0%})"
    if not len(expected) and not len(found):
        text = "not tested: no detections"
    if missing > 0:
        text += f"; {len(found)} found"
    return Stage(name, min(counts) >= bar.share * len(expected), text)


def _near(a: Floats, b: Floats, corner: float) -> npt.NDArray[np.bool_]:
    """(A, B) whether boxes (A, 4) and (B, 4), xyxy, have nearly the same corners."""
    slack = 0.5 + corner * (a[:, 2:] - a[:, :2]).max(axis=1, initial=0)
    near: npt.NDArray[np.bool_] = np.abs(a[:, None] - b).max(axis=2) <= slack[:, None]
    return near
