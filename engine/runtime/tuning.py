"""Convolutions timed on this machine, directly and by Winograd's algorithm, and kept for later.

One file holds the times for a CPU, a version of OpenVINO and a number of threads. What is not in it
comes from the model of costs in `winograd.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retinart.engine.common.bounded_reading import MIB, parse_json, read_text
from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.files import write_json
from retinart.engine.common.user_cache import user_cache
from retinart.engine.errors import BadInput, KeptFileWarning
from retinart.engine.runtime.openvino_api import load_openvino, openvino_core
from retinart.engine.runtime.options import Tune
from retinart.engine.runtime.winograd import (
    Times,
    convolutions,
    expected_times,
    use_winograd,
)
from retinart.engine.runtime.winograd_graph import Sizes, sizes_of

SECONDS = 4.0  # of a model's measurements; what is not measured by then is modelled
_RUNS = 5  # of each way at most, in turns; the fastest counts
_ENOUGH = 0.3  # seconds of one convolution, after two turns
_HOPELESS = 1.6  # expected times of the direct sum, above which Winograd is not tried
_OF_HEADS: Sizes = (256, 256, 38, 50)  # R50 at 600, the second level
_MOST = 10_000  # convolutions in a file


class ConvolutionTimes:
    """How long a convolution takes on this machine, directly and by Winograd's algorithm.

    Args:
        tune: see `Detector`.
        threads: of inference; None is OpenVINO's choice.

    Attributes:
        complete: all that was asked for was measured.
    """

    def __init__(self, tune: Tune, threads: int | None) -> None:
        self._tune, self._threads, self.complete = tune, threads, True
        self._known: dict[Sizes, Times] = {}
        self._path = None if tune == "off" else _path(threads)
        if self._path is not None and self._path.exists():
            self._known = _read(self._path)

    @property
    def state(self) -> str:
        """Names the times that are known, for what depends on them; "" without any."""
        if not self._known and self._tune != "on":
            return ""
        text = json.dumps([self._tune == "on", sorted(self._known.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def of(self, sizes: Sizes) -> Times:
        """A convolution's times: measured here, or expected."""
        return self._known.get(sizes) or expected_times(sizes)

    def measure(self, model: Any) -> None:
        """Time the convolutions of an `openvino.Model` that are not known.

        The slowest ones come first. It ends after SECONDS; then `complete` is False.
        """
        if self._tune != "on":
            return
        expected = {sizes: expected_times(sizes) for sizes in map(sizes_of, convolutions(model))}
        unknown = [
            s for s, (d, f) in expected.items() if s not in self._known and f < _HOPELESS * d
        ]
        end = time.perf_counter() + SECONDS
        for sizes in sorted(unknown, key=expected.__getitem__, reverse=True):
            if time.perf_counter() > end:
                self.complete = False
                break
            self._known[sizes] = _measured(sizes, self._threads)
        if unknown and self._path is not None:
            with suppress(OSError, BadInput):  # it is measured again then
                self._path.parent.mkdir(exist_ok=True)
                write_json(self._path, {_text(s): list(t) for s, t in self._known.items()})


Way = Literal["direct", "winograd", "int8"]


def layer(sizes: Sizes, threads: int | None, way: Way) -> Any:
    """An `openvino.InferRequest` of one convolution with bias and ReLU, with random weights."""
    openvino = load_openvino()
    ops = openvino.opset13
    channels, outputs, height, width = sizes
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, channels, 3, 3), np.float32)
    weight *= (2 / (9 * channels)) ** 0.5
    x = ops.parameter([1, channels, height, width], np.float32)
    of_x, kernel = x, ops.constant(weight)
    if way == "int8":
        of_x = ops.fake_quantize(x, *(np.float32(v) for v in (0, 255, 0, 255)), 256)
        steps = ops.constant((127 * np.clip(weight, -1, 1)).astype(np.int8))
        kernel = ops.multiply(ops.convert(steps, "f32"), np.float32(1 / 127))
    y = ops.convolution(of_x, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    y = ops.relu(ops.add(y, ops.constant(np.full((1, outputs, 1, 1), 0.1, np.float32))))
    model = openvino.Model([y], [x], "a layer")
    if way == "winograd":
        use_winograd(model, always=True)
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    config |= {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    return openvino_core().compile_model(model, "CPU", config).create_infer_request()


def int8_and_fp32(threads: int | None) -> tuple[float, float]:
    """Milliseconds of a convolution of RetinaNet's heads in INT8, and in FP32 the faster way."""
    int8, direct, fast = _milliseconds(_OF_HEADS, threads, ("int8", "direct", "winograd"))
    return int8, min(direct, fast)


def _measured(sizes: Sizes, threads: int | None) -> Times:
    direct, fast = _milliseconds(sizes, threads, ("direct", "winograd"))
    return direct, fast


def _milliseconds(sizes: Sizes, threads: int | None, ways: Sequence[Way]) -> list[float]:
    """The fastest of some runs of a convolution in each way, in turns."""
    channels, _, height, width = sizes
    x = np.random.default_rng(1).standard_normal((1, channels, height, width), np.float32)
    requests = [layer(sizes, threads, way) for way in ways]
    works = [partial(request.infer, {0: x}, share_inputs=True) for request in requests]
    for work in works:  # which makes what is made at the first run
        work()
    best, begin = [math.inf] * len(works), time.perf_counter()
    for turn in range(_RUNS):
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[i] = min(best[i], 1000 * (time.perf_counter() - start))
        if turn > 0 and time.perf_counter() - begin > _ENOUGH:
            break
    return best


def _path(threads: int | None) -> Path | None:
    folder = user_cache("convolutions")
    if folder is None:
        return None
    form = Path(__file__).with_name("winograd_graph.py").read_bytes()
    key = json.dumps([
        cpu_name(), sorted(instruction_sets()), os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        load_openvino().__version__, threads, hashlib.sha256(form).hexdigest(),
    ])  # fmt: skip
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> dict[Sizes, Times]:
    """The times in a file. One that cannot be read is removed, with a warning."""
    try:
        return _parse(parse_json(read_text(path, most=MIB)))
    except (BadInput, ValueError) as error:
        why = error.why if isinstance(error, BadInput) else str(error)
        warnings.warn(
            f"the times of convolutions in {path} cannot be read, and are left out: {why}. "
            "`tune` on measures them again",
            KeptFileWarning,
            stacklevel=2,
        )
        with suppress(OSError):
            path.unlink()
        return {}


def _parse(found: Any) -> dict[Sizes, Times]:
    if not isinstance(found, Mapping) or len(found) > _MOST:
        raise ValueError("it holds no times")
    known: dict[Sizes, Times] = {}
    for key, value in found.items():
        sizes = key.split("x")
        if not (len(sizes) == 4 and all(s.isascii() and s.isdecimal() for s in sizes)):
            raise ValueError(f"{key[:40]!r} is not the sizes of a convolution")
        if not (
            isinstance(value, list)
            and len(value) == 2
            and all(isinstance(v, float) and 0 < v < math.inf for v in value)
        ):
            raise ValueError(f"the times of {key[:40]} are not two positive numbers")
        c, o, h, w = map(int, sizes)
        known[c, o, h, w] = (value[0], value[1])
    return known


def _text(sizes: Sizes) -> str:
    return "x".join(map(str, sizes))
