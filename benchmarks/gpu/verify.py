"""Everything that only a GPU can show, in one run: `python -m retinart.benchmarks.gpu.verify`.

    python -m retinart.benchmarks.gpu.verify --checkpoint CKPT.pth --images DIR --out result.json

It exports, calibrates, builds and makes reference detections on the CPU, and then loads, runs,
compares and measures on the GPU. Without a GPU it goes as far as that, says what it skipped, and
exits 3. A step that fails is reported with its message, and the others run: work is done in another
process, which is a fresh one after a failure, even after one that ended it. The results are written
after every step, and the same command goes on from there. After --minutes no step is begun, which
also exits 3. What has run on which GPU goes into docs/gpu-verification.md, and the output into
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from retinart.benchmarks.gpu.steps import Steps, Value
from retinart.benchmarks.gpu.worker import Worker
from retinart.engine.errors import BadInput, RetinartError
from retinart.engine.files import sha256
from retinart.engine.gpu import find_gpus
from retinart.engine.images import Image, list_images, read_image

NO_GPU = "there is no GPU here"

# What a flag is that is not given: without and with --full.
DEFAULTS: dict[str, tuple[Any, Any]] = {
    "imgsz": ([800], [400, 600, 800]),
    "backbones": ([], ["resnet50", "resnet101"]),
    "frames": (2000, 20_000),
    "seconds": (0.5, 2.0),
    "limit": (300, 1800),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run every step that has no result yet. Returns the exit code."""
    args = _parser().parse_args(argv)
    for name, choice in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, choice[args.full])
    worker = Worker(args.limit)
    try:
        seconds = 60 * args.minutes or float("inf")
        steps = Steps(args.out, call=worker.call, seconds=seconds, retry=args.retry)
        _run(args, steps)
    except RetinartError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here, if it has --out", file=sys.stderr)
        return 130
    finally:
        worker.close()
    done, failed, skipped = (steps.count(s) for s in ("done", "FAILED", "skipped"))
    print(f"{done} done, {failed} failed, {skipped} skipped")
    return 1 if failed else 3 if skipped else 0


def _run(args: argparse.Namespace, steps: Steps) -> None:
    from retinart.benchmarks.gpu import models

    gpus = find_gpus()
    if not args.checkpoint.is_file():
        raise BadInput(f"there is no checkpoint at {args.checkpoint}", fix="Check the path")
    steps.same("environment", _environment(args, gpus))
    images = [read_image(path) for path in list_images(args.images)[: args.num_images]]
    checkpoints: dict[str, Path | None] = {
        "given": args.checkpoint,
        **dict.fromkeys(args.backbones),
    }
    for name, checkpoint in checkpoints.items():
        for imgsz in args.imgsz:
            title = f"{name} at {imgsz}"
            work = partial(models.export_model, name, checkpoint, imgsz, args.images, args.models)
            model = steps.value(f"export and calibrate {title}", work)
            for precision, path in models.model_files(name, imgsz, args.models).items():
                _Engine(args, steps, f"{title}, {precision}", path, model, bool(gpus)).see(images)
            _torch_compile(steps, f"torch.compile FP16, {title}", model, bool(gpus))


class _Engine:
    """One file's engine, and on a GPU all that there is to see of it."""

    def __init__(
        self,
        args: argparse.Namespace,
        steps: Steps,
        title: str,
        path: Path,
        model: Value,
        gpu: bool,
    ) -> None:
        from retinart.benchmarks.gpu import models

        self._args, self._steps, self._title, self._gpu = args, steps, title, gpu
        self._path = path
        self._build: Any = partial(models.build_model, path, args.runtime)
        self._built = steps.value(f"build {title}", self._build, after=model)
        self._model = model

    def see(self, images: list[Image]) -> None:
        """Every check; those of detections for the weights that were given."""
        from retinart.benchmarks.gpu import checks, models

        one: dict[str, Any] = {"image": images[0]}
        if self._title.startswith("given"):
            work = partial(models.reference, self._path, images)
            want = self._steps.value(f"reference of {self._title}", work, after=self._model)
            compare = partial(checks.compare, images=images)
            self._check("detections against OpenVINO's", compare, want=want)
            self._native(compare, want)
            self._check("8 threads", partial(checks.threads, images=images))
            memory = partial(checks.endurance, **one, frames=self._args.frames)
            self._check("memory", memory)
        self._check("latency", partial(checks.latency, **one))
        self._check("throughput", partial(checks.throughput, **one, seconds=self._args.seconds))
        self._check("streams", partial(checks.streams, **one))

    def _native(self, compare: Callable[..., Any], want: Value) -> None:
        """Detections with the file's own NMS, where the engine has the plugin's."""
        name = f"native NMS, {self._title}"
        if not self._gpu or self._steps.over(name):
            return
        built = self._built()
        if built is not None and built[1].nms == "native":
            self._steps.run(name, partial(str, "the engine's own"))
        elif built is not None:
            work = partial(self._build, nms="native")
            native = self._steps.value(f"build {self._title}, native NMS", work)
            self._check("native NMS", compare, want=want, of=native)

    def _check(
        self,
        name: str,
        work: Callable[..., Any],
        *,
        want: Value | None = None,
        of: Value | None = None,
    ) -> None:
        """A check on the GPU: `work` of the engine's path, and of what it shall find."""
        name = f"{name}, {self._title}"
        if self._steps.over(name):
            return
        if not self._gpu:
            self._steps.skip(name, NO_GPU)
            return
        built = (of or self._built)()
        expected = {} if want is None else {"want": want()}
        if built is None or None in expected.values():
            self._steps.skip(name, "its engine was not built, or has no reference")
            return
        self._steps.run(name, partial(work, built[0], **expected))


def _torch_compile(steps: Steps, name: str, model: Value, gpu: bool) -> None:
    from retinart.benchmarks.gpu import checks, models

    if steps.over(name):
        return
    made = model() if gpu else None
    if made is None:
        steps.skip(name, "its model was not exported" if gpu else NO_GPU)
        return
    size = models.size_of(made.files["fp32"])
    steps.run(name, partial(checks.torch_compile, made.checkpoint, size))


def _environment(args: argparse.Namespace, gpus: list[Any]) -> dict[str, Any]:
    """Of what the results are."""
    versions = {}
    for name in ("retinart", "tensorrt", "tensorrt-rtx-cu13", "pycuda", "torch", "openvino"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "gpus": [str(g) for g in gpus],
        **versions,
        "checkpoint": sha256(args.checkpoint),
        "images": f"{args.num_images} of {args.images}",
        "runtime": args.runtime,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retinart.benchmarks.gpu.verify", description=(__doc__ or "").split(":")[0]
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="trained weights, whose detections count")
    add("--images", required=True, help="folder, file or glob")
    add("--num-images", type=int, default=8, help="images to compare on (default 8)")
    add("--full", action="store_true", help="every size and network, and longer: for hours")
    add("--imgsz", type=int, nargs="+", help="shorter sides (default 800)")
    add("--backbones", nargs="*", help="random weights as well (default none)")
    add("--runtime", choices=("auto", "tensorrt", "tensorrt-rtx"), default="auto")
    add("--frames", type=int, help="of the memory check (default 2000)")
    add("--seconds", type=float, help="of each measurement of throughput (default 0.5)")
    add("--minutes", type=float, default=9, help="begin no step after (default 9; 0 for no end)")
    add("--limit", type=float, help="seconds after which a step has failed (default 300)")
    add("--retry", action="store_true", help="what failed in the run that wrote --out, once more")
    add("--models", type=Path, default=Path("build/verify"), help="exported files and engines")
    add("--out", type=Path, help="JSON, written after every step; taken over if it is there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
