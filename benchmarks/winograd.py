"""Which 3x3 convolutions Winograd's algorithm makes faster on this machine, one by one.

    python -m retinart.benchmarks.winograd --threads 2

What `engine/runtime/winograd.py` expects stands beside what was measured. For whole models there is
`retinart benchmark MODEL --compute fp32-direct fp32`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np

from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.alternate import alternate, milliseconds
from retinart.engine.common.table import Table
from retinart.engine.runtime.tuning import layer as one
from retinart.engine.runtime.winograd import expected_times, pays

# Channels, outputs, height and width: the heads of R50 at 600 with 91 classes, by level, and layers
# of its backbone; a layer of R101 at 400; and the 96 channels of a small model's heads.
LAYERS = (
    (256, 256, 76, 100), (256, 256, 38, 50), (256, 256, 19, 25), (256, 256, 10, 13),
    (256, 819, 76, 100), (256, 819, 19, 25), (256, 36, 76, 100),
    (64, 64, 152, 200), (128, 128, 76, 100), (512, 512, 19, 25), (256, 256, 26, 34),
    (96, 96, 32, 40), (96, 96, 64, 80),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table. Returns the exit code."""
    parser = new_parser("benchmarks.winograd", __doc__)
    parser.add_argument("--threads", type=int, default=2, help="of OpenVINO")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each layer")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    here = machine.describe()
    print(
        f"{args.threads} threads, {args.repeats} runs each, in turns, medians; {here.cpu}, "
        f"OpenVINO {here.versions['openvino']}\n"
    )
    noise, rows = [machine.reference() for _ in range(3)], []
    for layer in LAYERS:
        rows.append(_row(layer, args.threads, args.repeats))
        noise.append(machine.reference())
        print(*rows[-1], file=sys.stderr)
    head = ("channels", "outputs", "input", "direct ms", "Winograd ms", "times as fast (95%)",
            "taken", "rms error, of the outputs'")  # fmt: skip
    print(Table(head=head, rows=rows).markdown())
    print(f"\nThe reference workload varied by {statistics.spread(noise):.0%}.")


def _row(layer: tuple[int, int, int, int], threads: int, repeats: int) -> tuple[object, ...]:
    channels, outputs, height, width = layer
    x = np.random.default_rng(1).standard_normal((1, channels, height, width)).astype(np.float32)
    requests = {name: one(layer, threads, name) for name in ("direct", "winograd")}
    works = {name: partial(r.infer, {0: x}, share_inputs=True) for name, r in requests.items()}
    arms = {name: partial(milliseconds, work) for name, work in works.items()}
    times = alternate(arms, repeats, warm_up=3).values()
    direct, fast = (request.get_output_tensor(0).data for request in requests.values())
    error = float(np.sqrt(np.mean((fast - direct) ** 2) / np.mean(direct**2)))
    ms = (f"{statistics.median(values).value:.2f}" for values in times)
    ratio = statistics.ratio_of_medians(*times)
    taken = "yes" if pays([expected_times(layer)]) else "no"
    return channels, outputs, f"{height}x{width}", *ms, ratio, taken, f"{error:.1e}"


if __name__ == "__main__":
    sys.exit(main())
