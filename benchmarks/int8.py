"""What INT8 changes in a model, for each way to round its weights: AP with intervals, and noise.

    python -m retinart.benchmarks.int8 model.onnx --calibration-images DIR --num 100 \\
        --images DIR --annotations FILE --peers nncf=model.nncf.xml

Every row is paired with FP32 on the same pictures, and the interval is of its change in AP. The
signal to noise is of the raw outputs against FP32's, averaged over the levels, on pictures that the
calibration did not see. `benchmarks.peers.nncf_model` writes a file for `--peers`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinart.benchmarks.program import new_parser, run
from retinart.calib.accuracy import measure
from retinart.calib.calibrate import calibrate
from retinart.calib.observe import as_frames, choose_images
from retinart.calib.sensitivity import signal_to_noise
from retinart.calib.settings import ROUNDINGS, WEIGHT_BITS, CalibrationSettings
from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.progress import Progress
from retinart.engine.common.table import Table
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.detector import open_runner
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.evaluate import evaluate, points
from retinart.engine.evaluation.gate import Change
from retinart.engine.evaluation.paired import paired_changes
from retinart.engine.evaluation.resample import Matches
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.info import ModelInfo, read_info
from retinart.engine.runtime.options import OpenVINOOptions

_HEAD = ("bits", "weights", "biases", "AP", "change of AP, 95%", "classes, dB", "boxes, dB", "s")


class _Peer:
    """A file of another program in the place of a `Detector`."""

    def __init__(self, path: Path, info: ModelInfo) -> None:
        self.classes = info.classes
        info = dataclasses.replace(info, precision="int8", probe=None)
        self._runner = open_runner(path, info, info.thresholds, OpenVINOOptions())

    def __call__(self, image: Image, /, *, clock: StageClock) -> Detections:
        return self._runner.prepare([image]).submit(clock).result()[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table. Returns the exit code."""
    parser = new_parser("benchmarks.int8", __doc__)
    parser.add_argument("model", type=Path, help="an FP32 file of `retinart export`")
    parser.add_argument("--calibration-images", required=True, metavar="SOURCE")
    parser.add_argument("--num", type=int, default=100, help="calibration images")
    parser.add_argument("--method", default="minmax", help="how thresholds are chosen")
    parser.add_argument(
        "--bits", nargs="*", type=int, choices=WEIGHT_BITS, default=WEIGHT_BITS, help="of weights"
    )
    parser.add_argument(
        "--rounding", nargs="*", choices=ROUNDINGS, default=ROUNDINGS, help="ways to measure"
    )
    parser.add_argument("--images", type=Path, required=True, help="images to measure on")
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--noise-images", type=int, default=16, help="of them, for the noise")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=FILE", help="OpenVINO's IR")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    info = read_info(args.model)
    exact, reference = measure(args.model, args.annotations, args.images)
    used = {p.name for p in choose_images(args.calibration_images, args.num, 0)}
    every = [image.path for image in load_coco(args.annotations, args.images).images]
    unseen = [path for path in every if path.name not in used][: args.noise_images]
    frames = [as_frames(info, read_image(path)) for path in unseen]

    def noise(path: Path) -> tuple[str, str]:
        found = signal_to_noise(args.model, path, frames)
        return tuple(
            f"{np.mean([v for n, v in found.items() if n.startswith(head) and v is not None]):.1f}"
            for head in ("logits", "deltas")
        )  # type: ignore[return-value]

    rows = list[tuple[str, ...]]()

    def add(*row: str) -> None:
        rows.append(row)
        Progress().line("  ".join(row))

    add("32", "", "", points(exact.ap), "", "", "", "")
    with tempfile.TemporaryDirectory() as folder:
        out, record = Path(folder) / "int8.onnx", None
        for bits, rounding, correct in itertools.product(args.bits, args.rounding, (False, True)):
            if rounding != "nearest" and not correct:
                continue
            settings = CalibrationSettings(
                images=args.calibration_images,
                num=args.num,
                method=args.method,
                record=record,
                weight_bits=bits,
                rounding=rounding,
                correct_bias=correct,
            )
            begin = time.perf_counter()
            report = calibrate(args.model, out, settings)
            took = time.perf_counter() - begin
            record = record or report.record_path.rename(Path(folder) / "record.json")
            found, _ = measure(out, args.annotations, args.images, reference=reference)
            assert found.change is not None
            how = "corrected" if correct else "as they were"
            accuracy = _accuracy(found.ap, found.change)
            add(str(bits), rounding, how, *accuracy, *noise(out), f"{took:.0f}")
    for name, _, file in (peer.partition("=") for peer in args.peers):
        if not Path(file).is_file():
            raise BadInput(f"the file {file} does not exist", fix="Give `peers` as NAME=FILE")
        ap, change = _measure_peer(Path(file), info, args, reference)
        add("", name, "", *_accuracy(ap, change), *noise(Path(file)), "")
    print(f"{args.command}\n")
    cpu = f"{cpu_name()}, {', '.join(sorted(instruction_sets()))}"
    print(f"{len(every)} pictures, the noise on {len(unseen)} of them; {cpu}\n")
    print(Table(head=_HEAD, rows=rows).markdown())


def _accuracy(ap: float, change: Change) -> tuple[str, str]:
    value = f"{change.value:+.1f}".replace("-0.0", "+0.0")  # the interval bears no more
    return points(ap), f"{value} ({change.interval})"


def _measure_peer(
    file: Path, info: ModelInfo, args: argparse.Namespace, reference: Matches
) -> tuple[float, Change]:
    found = evaluate(_Peer(file, info), args.annotations, args.images)
    return found.ap, paired_changes(reference, found.matches).figures["AP"]


if __name__ == "__main__":
    raise SystemExit(main())
