"""The paper's grid against torchvision eager: R50 and R101 at 400 to 800, in each precision.

    python -m retinart.benchmarks.grid --images DIR --prepare-only
    python -m retinart.benchmarks.grid --images DIR --out runs/paper_grid

The first command makes what is slow to make and needs no quiet machine: weights, exports, INT8
files. The second one times, a point (backbone and scale) after the other: FP32, INT8, both with
bf16 where the CPU has it, and torchvision in turn, image by image. What is done is kept: a run that
was stopped goes on. With --report-only the results are written again from what was timed last.

Weights are random, as time does not depend on them, but their scores are scaled on a real image so
that NMS has about as many candidates as a trained network gives it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.benchmarks.grid.report import report, write_results
from retinart.benchmarks.grid.settings import PEER, GridSettings, the_peer
from retinart.benchmarks.grid.steps import Grid
from retinart.benchmarks.peers import torchvision_shim
from retinart.engine.common.files import new_folder
from retinart.engine.errors import RetinartError

# times as fast as the peer, end to end
REACH = {"fp32": 1.35, "bf16": 1.35, "int8": 4.5, "int8+bf16": 4.5}


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, measure, write. Returns the exit code."""
    args = _parser().parse_args(argv)
    settings = GridSettings(
        images=args.images,
        backbones=tuple(args.backbones),
        imgsz=tuple(args.imgsz),
        num_images=args.num_images,
        repeats=args.repeats,
        threads=args.threads,
        calibration_num=args.calibration_num,
        num_classes=args.num_classes,
        work=args.work,
        peers=args.peers,
    )
    pairs = list(itertools.product(settings.backbones, settings.imgsz))
    try:
        if args.report_only:
            grid = Grid(settings)
            result = summary([grid.kept_timing(*pair) for pair in pairs])
        else:
            torchvision_shim.check_installed(args.peers)
            with new_folder(args.work):
                grid = Grid(settings)
            for pair in pairs:
                grid.files(*pair)
            if args.prepare_only:
                print(f"{args.work} holds what is to be timed", file=sys.stderr)
                return 0
            result = summary([grid.timing(*pair) for pair in pairs])
        words = ["python", "-m", "retinart.benchmarks.grid", *(argv or sys.argv[1:])]
        result["command"] = shlex.join(word for word in words if word != "--report-only")
        if args.out is not None:
            for path in write_results(args.out, result):
                print(path, file=sys.stderr)
    except RetinartError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(result, indent=1) if args.json else report(result))
    return 0


def summary(timings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the points amount to; plain JSON types, times in milliseconds.

    Args:
        timings: results of `benchmark`, one a backbone and scale, with `backbone` and `imgsz`.

    Returns:
        `points`, one a backbone, scale and precision, and the `timings`. Shares are of the best
        peak of all timings, as one that was measured in a noisy moment is none.
    """
    limits = [t["peak_gops"] for t in timings]
    peaks = {kind: max(each[kind] for each in limits) for kind in limits[0] if limits[0][kind]}
    points = []
    for timing in timings:
        peer = the_peer(timing)
        for model in timing["models"]:
            precision, infer = model["precision"], model["ms"]["infer"]["p50"]
            floor = 2 * model["gmac"] / peaks[precision.partition("+")[0]] * 1000
            with_floor = model["ms"]["total"]["p50"] - infer + floor
            ratio = model["times_as_fast_as"][PEER]
            points.append(
                {
                    "backbone": timing["backbone"],
                    "imgsz": timing["imgsz"],
                    "precision": precision,
                    "input": model["input"],
                    "pairs": len(model["runs_ms"]["total"]),
                    "ms": model["ms"],
                    "peer_ms": peer["ms"],
                    "runs_ms": model["runs_ms"]["total"],
                    "peer_runs_ms": peer["runs_ms"]["total"],
                    "ratio": ratio,
                    "reached": ratio["value"] >= REACH[precision],
                    "gmac": model["gmac"],
                    "ms_at_peak": floor,
                    "share_of_peak": floor / infer,
                    "ratio_at_peak": peer["ms"]["total"]["p50"] / with_floor,
                    "boxes": model["detections"],
                    "peak_mib": model["peak_mib"],
                    "peer_peak_mib": peer["peak_mib"],
                    "noise": timing["noise"],
                    "commit": timing["machine"].get("commit"),
                }
            )
    return {
        "what": f"retinart on OpenVINO against {PEER}, from a decoded BGR frame to final boxes, "
        "batch 1, in turn, real images",
        "images": timings[0]["images"],
        "repeats": timings[0]["repeats"],
        "threads": timings[0]["threads"],
        "peer": timings[0]["peers"][0]["what"],
        "machine": timings[0]["machine"],
        "peak_gops": peaks,
        "noise": max(t["noise"] for t in timings),
        "reach": REACH,
        "points": points,
        "timings": list(timings),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retinart.benchmarks.grid", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--images", required=True, help="folder, file or glob; the first 4:3 ones are taken")
    add("--backbones", nargs="+", default=["resnet50", "resnet101"])
    add("--imgsz", type=int, nargs="+", default=[400, 500, 600, 700, 800], help="shorter sides")
    add("--num-images", type=int, default=4, help="images to time on (default 4)")
    add("--repeats", type=int, default=5, help="runs of every image (default 5)")
    add("--threads", type=int, default=2, help="threads of each engine (default 2)")
    add("--calibration-num", type=int, default=2, help="images for INT8's ranges (default 2)")
    add("--num-classes", type=int, default=91, help="of the network (default 91)")
    add("--work", type=Path, default=Path("build/grid"), help="where what is made is kept")
    add("--peers", type=Path, default=Path("build/peers"), help="torchvision's folder")
    only = parser.add_mutually_exclusive_group().add_argument
    only("--prepare-only", action="store_true", help="make what is to be timed, and stop")
    only("--report-only", action="store_true", help="time nothing: take what was timed last")
    add("--out", type=Path, help="write NAME.md, .json, .csv and .html, given without a suffix")
    add("--json", action="store_true", help="for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
