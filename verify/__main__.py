"""Everything that only a GPU can show, in one run or in two on two machines.

    python -m retinart.verify --checkpoint CKPT.pth --images DIR --out result.json

exports, calibrates, builds and makes reference detections on the CPU, and then loads, runs,
compares and measures on the GPU. Where the GPU's machine lacks what the CPU's part needs:

    python -m retinart.verify --checkpoint CKPT.pth --images DIR --prepare FOLDER
    python -m retinart.verify --run FOLDER --out result.json     # on the other one

A group "cuda" comes first. It needs a GPU and PyTorch or less, neither files nor TensorRT:

    python -m retinart.verify --cuda --out result.json      # only that

Without a GPU, all but --prepare ends at once and exits with 3. A step fails when it raises, or when
a figure is over its limit (judge.py). The other steps go on, and the exit code is 1. Another
process does the work, and a fresh one after a failure. The results are written after every step,
and the same command goes on from there. After --minutes no step begins, which also exits with 3, as
do steps that are skipped because a package is missing. What has run on which GPU goes into
docs/gpu-verification.md, and the output into benchmarks/results/.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing.source_hash import GPU, code_hash
from retinart.benchmarks.timing.worker import Worker, nothing, stateless
from retinart.engine.cuda.devices import Gpu, find_gpus
from retinart.engine.errors import BadInput, MissingDependency
from retinart.verify.attempts import Attempts
from retinart.verify.bundle import Bundle, read_bundle
from retinart.verify.prepare import PRECISIONS
from retinart.verify.run_checks import run_checks, run_cuda

# The command that needs no GPU.
_CPU_PART = "python -m retinart.verify --checkpoint CKPT.pth --images DIR --prepare FOLDER"
# The values of flags that are not given: without and with --full.
DEFAULTS: dict[str, tuple[Any, Any]] = {
    "imgsz": ([800], [400, 500, 600, 700, 800]),
    "backbones": ([], ["resnet50", "resnet101"]),
    "frames": (2000, 20_000),
    "seconds": (0.5, 2.0),
    "batches": ((1, 8, 32), (1, 2, 4, 8, 16, 32)),
    "contexts": ((1, 2), (1, 2, 3, 4)),
}
EFFORT = ("frames", "seconds", "batches", "contexts", "compile_mode")  # fields of `Subject`


def main(argv: Sequence[str] | None = None) -> int:
    """Run every step that has no result yet. Returns the exit code."""
    return run(_work, _parser(), argv)


def _work(args: argparse.Namespace) -> int:
    for name, choice in DEFAULTS.items():
        if getattr(args, name, None) is None:
            setattr(args, name, choice[args.full])
    minutes = (9 if args.prepare is None else 0) if args.minutes is None else args.minutes
    gpus = find_gpus()
    if not gpus and args.prepare is None:
        raise MissingDependency(
            "there is no NVIDIA GPU here",
            why="no driver lists one",
            fix=f"Run this where one is. Only the CPU's part can run here: {_CPU_PART}",
        )
    with Worker(nothing, seconds=300) as worker:
        steps = Attempts(
            _out(args),
            call=lambda work, limit: worker.call(stateless(work), seconds=limit),
            on=gpus[0].name if gpus else "a CPU",
            seconds=60 * minutes or float("inf"),
            retry=args.retry,
        )
        _run(args, steps, gpus)
    done, failed, skipped = (steps.count(s) for s in ("done", "FAILED", "skipped"))
    print(f"{done} done, {failed} failed, {skipped} skipped")
    return 1 if failed else 3 if skipped else 0


def _run(args: argparse.Namespace, steps: Attempts, gpus: list[Gpu]) -> None:
    steps.note("environment", _environment(gpus))
    effort = {name: getattr(args, name) for name in EFFORT}
    if args.prepare is None:
        run_cuda(steps, effort, limit=args.limit)
    if args.cuda:
        return
    folder = args.run or args.prepare or args.models / "prepared"
    if args.run is not None:
        bundle = read_bundle(folder)
        steps.same("of", {**bundle.of, "code that runs": code_hash(GPU)})
    else:
        bundle = _prepare(args, folder, steps)
    if args.prepare is None:
        run_checks(folder, bundle, steps, effort, limit=args.limit)


def _prepare(args: argparse.Namespace, folder: Path, steps: Attempts) -> Bundle:
    """The CPU's part, whose modules the GPU's machine may lack."""
    from retinart.verify.prepare import PrepareSettings, prepare, print_sizes

    if args.checkpoint is None or args.images is None:
        raise BadInput(
            "a checkpoint and images are needed", fix="Give `checkpoint` and `images`, or `run`"
        )
    settings = PrepareSettings(**{f.name: getattr(args, f.name) for f in fields(PrepareSettings)})
    bundle = prepare(settings, folder, steps)
    if args.prepare is not None:
        print_sizes(folder, bundle, args.split)
    return bundle


def _out(args: argparse.Namespace) -> Path | None:
    """The file of the results; with --prepare the default is beside its folder."""
    if args.out is None and args.prepare is not None:
        return Path(args.prepare).with_name(f"{args.prepare.name}.json")
    out: Path | None = args.out
    return out


def _environment(gpus: list[Gpu]) -> dict[str, Any]:
    """Where this run is. An earlier run may have been elsewhere."""
    versions = {}
    names = ("tensorrt", "tensorrt-rtx-cu13", "pycuda", "cuda-bindings", "torch", "openvino")
    for name in ("retinart", *names):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {"python": platform.python_version(), "gpus": [str(g) for g in gpus], **versions}


def _size(text: str) -> int:
    """Bytes of "48M"."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "M")
    shifts = {"K": 10, "M": 20, "G": 30}
    if not number.isdecimal() or not int(number) or unit not in shifts:
        raise argparse.ArgumentTypeError(f"{text} is not a size: give for example 48M")
    return int(number) << shifts[unit]


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("verify", __doc__)
    add = parser.add_argument
    half = parser.add_mutually_exclusive_group()
    half.add_argument("--prepare", type=Path, metavar="FOLDER", help="only the CPU's part, for it")
    half.add_argument(
        "--cuda", action="store_true", help="only what needs no TensorRT and no files"
    )
    half.add_argument("--run", type=Path, metavar="FOLDER", help="only the GPU's part, from it")
    add("--checkpoint", type=Path, help="trained weights, whose detections count")
    add("--images", help="folder, file or glob")
    add("--num-images", type=int, default=8, help="images to compare on")
    add("--full", action="store_true", help="every size and network, and longer: for hours")
    add("--imgsz", type=int, nargs="+", help="shorter sides (default 800)")
    add("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="of engines")
    add("--backbones", nargs="*", help="random weights as well (default none)")
    add("--runtime", choices=("auto", "tensorrt", "tensorrt-rtx"), default="auto",
        help="that builds the engines")  # fmt: skip
    add("--split", type=_size, help="make FOLDER/packs/1, ... of at most so much, such as 48M")
    add("--frames", type=int, help="of the memory check (default 2000)")
    add("--seconds", type=float, help="of each measurement of throughput (default 0.5)")
    add("--compile-mode", default="reduce-overhead", help="of torch.compile")
    add("--minutes", type=float, help="begin no step after (default 9; --prepare: 0, no end)")
    add("--limit", type=float, help="seconds for any step (default: its own)")
    add("--retry", action="store_true", help="what failed in the run that wrote --out, once more")
    add("--models", type=Path, default=Path("build/verify"), help="exported files")
    add("--out", type=Path, help="JSON, written after every step; taken over if it is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
