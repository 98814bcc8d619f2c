"""Which operators of a model take how long, and how near its convolutions are to the peak.

    python -m retinart.benchmarks.operators MODEL --threads 2

OpenVINO's own counters give the times. The graph ends at the candidates, so the times leave out
NMS. A large matrix product gives the peak.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.peaks import measure_peaks
from retinart.engine.common.table import Table
from retinart.engine.model.info import CANDIDATES, INPUT, read_info
from retinart.engine.runtime.openvino_api import find_tensors, load_openvino, openvino_core
from retinart.engine.runtime.saturation import avoid_saturation
from retinart.engine.runtime.winograd import use_winograd


@dataclass
class Group:
    """Operators of one kind: milliseconds of each run, and multiply-accumulates of one run."""

    ms: list[float] = field(default_factory=list)
    macs: int = 0
    count: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables. Returns the exit code."""
    parser = new_parser("benchmarks.operators", __doc__)
    parser.add_argument("model", type=Path, help="an ONNX file of retinart with a fixed size")
    parser.add_argument("--threads", type=int, default=2, help="of OpenVINO")
    parser.add_argument("--repeats", type=int, default=10, help="runs")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    here, noise = machine.describe(), [machine.reference()]
    info, peaks = read_info(args.model), measure_peaks(args.threads)
    groups, macs = _profile(args.model, args.threads, args.repeats)
    peaks |= measure_peaks(args.threads)
    noise.append(machine.reference())
    print(
        f"{args.model.name}, {info.precision}, {args.threads} threads, {args.repeats} runs, "
        f"medians; {here.cpu} with {' '.join(here.flags)}, OpenVINO {here.versions['openvino']}; "
        f"peak {peaks}\n"
    )
    peak = peaks.of(info.precision)
    whole = sum(statistics.median(g.ms).value for g in groups.values())
    print(_table(groups, peak, whole).markdown())
    share = 2 * macs / 1e6 / whole / peak
    print(
        f"\nAll of it: {whole:.1f} ms for {macs / 1e9:.2f} GMAC, {share:.0%} of the peak of "
        f"{peak:.0f} GOP/s. The reference workload varied by "
        f"{statistics.spread(noise):.0%}."
    )


def _table(groups: dict[str, Group], peak: float, whole: float) -> Table:
    rows = []
    for name, group in sorted(groups.items(), key=lambda item: -sum(item[1].ms)):
        ms = statistics.median(group.ms).value
        share = f"{2 * group.macs / 1e6 / ms / peak:.0%}" if group.macs and ms else ""
        rows.append((name, group.count, f"{ms:.2f}", f"{ms / whole:.1%}", share))
    return Table(head=("operators", "number", "ms", "of all", "of the peak"), rows=rows)


def _profile(path: Path, threads: int, repeats: int) -> tuple[dict[str, Group], int]:
    """Times by kind of operator, and the multiply-accumulates of all convolutions."""
    info, core = read_info(path), openvino_core(snippets=False)
    whole = core.read_model(path)
    model = load_openvino().Model(find_tensors(whole, CANDIDATES), whole.get_parameters(), "cut")
    height, width = info.resize.canvas_for([(480, 640)])
    model.reshape({INPUT: [1, height, width, 3]})
    macs = {op.get_friendly_name(): _macs(op) for op in model.get_ops()}
    shapes = {op.get_friendly_name(): _kind(op) for op in model.get_ops()}
    if info.precision == "fp32":
        use_winograd(model)
    if info.precision.startswith("int8"):
        avoid_saturation(model, "CPU")
    config = {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True,
    }  # fmt: skip
    request = core.compile_model(model, "CPU", config).create_infer_request()
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    groups: dict[str, Group] = defaultdict(Group)
    for turn in range(repeats + 1):
        request.infer({0: frame}, share_inputs=True)
        if turn:
            _add(groups, request.profiling_info, macs, shapes, first=turn == 1)
    return groups, sum(macs.values())


def _add(
    groups: dict[str, Group], counters: Any, macs: dict[str, int], shapes: dict[str, str], *,
    first: bool,
) -> None:  # fmt: skip
    sums: dict[str, float] = defaultdict(float)
    for one in counters:
        ms = one.real_time.total_seconds() * 1000
        if not ms:
            continue
        convolution = one.node_type == "Convolution" and shapes.get(one.node_name)
        name = f"{shapes[one.node_name]}, {one.exec_type}" if convolution else one.node_type
        sums[name] += ms
        if first:
            groups[name].count += 1
            groups[name].macs += macs.get(one.node_name, 0) if convolution else 0
    for name, ms in sums.items():
        groups[name].ms.append(ms)


def _macs(op: Any) -> int:
    if op.get_type_name() != "Convolution":
        return 0
    out, weight = list(op.output(0).get_shape()), list(op.input_value(1).get_shape())
    return int(math.prod(out) * math.prod(weight[1:]))


def _kind(op: Any) -> str:
    if op.get_type_name() != "Convolution":
        return ""
    kernel = "x".join(map(str, op.input_value(1).get_shape()[2:]))
    stride = op.get_attributes()["strides"][0]
    return f"Convolution {kernel}" + (f" stride {stride}" if stride > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
