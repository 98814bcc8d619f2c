"""Everything that only a GPU can show, in one run: `python -m retinart.benchmarks.gpu.verify`.

    python -m retinart.benchmarks.gpu.verify --checkpoint CKPT.pth --images DIR --out result.json

It exports, calibrates, builds and makes reference detections on the CPU, and then loads, runs,
compares and measures on the GPU. Without a GPU it goes as far as that, says what it skipped, and
exits 3. A step that fails is reported with its message, and the others run. What has run on which
GPU goes into docs/gpu-verification.md, and the output into benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from retinart.engine.errors import RetinartError
from retinart.engine.files import atomic_path
from retinart.engine.gpu import find_gpus
from retinart.engine.images import list_images, read_image

NO_GPU = "there is no GPU here"


class Steps:
    """Runs steps, keeps what they return, and says how each went."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] = {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of a step; None when it failed."""
        start = time.perf_counter()
        try:
            value = work()
        except Exception as error:  # whatever a GPU throws is a finding
            self._note(name, "FAILED", start, f"{type(error).__name__}: {error}")
            return None
        self._note(name, "done", start, value)
        return value

    def skip(self, name: str, why: str) -> None:
        """A step that cannot run here."""
        self._note(name, "skipped", time.perf_counter(), why)

    def count(self, state: str) -> int:
        """How many steps ended so."""
        return sum(r["state"] == state for r in self.results.values())

    def _note(self, name: str, state: str, start: float, value: Any) -> None:
        seconds = round(time.perf_counter() - start, 1)
        shown = json.loads(json.dumps(value, default=str))
        self.results[name] = {"state": state, "seconds": seconds, "result": shown}
        print(f"{state:<8} {seconds:>7} s  {name}: {json.dumps(shown)}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run every step and write what came out. Returns the exit code."""
    args = _parser().parse_args(argv)
    steps = Steps()
    try:
        _run(args, steps)
    except RetinartError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    done, failed, skipped = (steps.count(s) for s in ("done", "FAILED", "skipped"))
    print(f"{done} done, {failed} failed, {skipped} skipped")
    if args.out is not None:
        with atomic_path(args.out) as temporary:
            temporary.write_text(json.dumps(steps.results, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 3 if skipped else 0


def _run(args: argparse.Namespace, steps: Steps) -> None:
    from retinart.benchmarks.gpu import checks, models

    gpus = find_gpus()
    steps.run("environment", lambda: _environment(gpus))
    images = [read_image(path) for path in list_images(args.images)[: args.num_images]]
    args.models.mkdir(parents=True, exist_ok=True)
    checkpoints = {"given": args.checkpoint}
    for name in args.backbones:
        path = args.models / f"{name}.pt"
        checkpoints[name] = models.random_checkpoint(name, path)
    for name, checkpoint in checkpoints.items():
        for imgsz in args.imgsz:
            title = f"{name} at {imgsz}"
            model = steps.run(
                f"export and calibrate {title}",
                lambda n=name, c=checkpoint, s=imgsz: models.export_model(  # type: ignore[misc]
                    n, c, s, args.images, args.models
                ),
            )
            if model is None:
                continue
            for precision, path in model.files.items():
                _engine(args, steps, f"{title}, {precision}", path, images, bool(gpus))
            peer = f"torch.compile FP16, {title}"
            if gpus:
                size = models.size_of(model.files["fp32"])
                steps.run(peer, lambda c=checkpoint, s=size: checks.torch_compile(c, s))  # type: ignore[misc]
            else:
                steps.skip(peer, NO_GPU)


def _engine(
    args: argparse.Namespace, steps: Steps, title: str, path: Path, images: list[Any], gpu: bool
) -> None:
    """Build one file's engine, and see on the GPU all that there is to see of it."""
    from retinart.benchmarks.gpu import checks, models

    built = steps.run(f"build {title}", lambda: models.build_model(path, args.runtime))
    want = None
    if title.startswith("given"):
        want = steps.run(f"reference of {title}", lambda: _Found(models.reference(path, images)))
    work: dict[str, Callable[[Path], Any]] = {}
    if want is not None:
        work["detections against OpenVINO's"] = lambda e: checks.compare(e, images, want.found)
        work["8 threads"] = lambda e: checks.threads(e, images)
    work["latency"] = lambda e: checks.latency(e, images[0])
    work["throughput"] = lambda e: checks.throughput(e, images[0])
    work["streams"] = lambda e: checks.streams(e, images[0])
    if want is not None:
        work["memory"] = lambda e: checks.endurance(e, images[0], args.frames)
    for name, check in work.items():
        if built is None:
            steps.skip(f"{name}, {title}", "its engine was not built")
        elif not gpu:
            steps.skip(f"{name}, {title}", NO_GPU)
        else:
            steps.run(f"{name}, {title}", lambda c=check: c(built[0]))  # type: ignore[misc]
    if gpu and built is not None and built[1].nms == "plugin" and want is not None:
        native = steps.run(
            f"build {title}, native NMS", lambda: models.build_model(path, args.runtime, "native")
        )
        if native is not None:
            steps.run(f"native NMS, {title}", lambda: checks.compare(native[0], images, want.found))


class _Found:
    """Detections, printed as how many there are."""

    def __init__(self, found: list[Any]) -> None:
        self.found = found

    def __str__(self) -> str:
        return f"{sum(map(len, self.found))} detections on {len(self.found)} images"


def _environment(gpus: list[Any]) -> dict[str, Any]:
    versions = {}
    for name in ("retinart", "tensorrt", "tensorrt-rtx-cu13", "pycuda", "torch", "openvino"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {"python": platform.python_version(), "gpus": [str(g) for g in gpus], **versions}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retinart.benchmarks.gpu.verify", description=(__doc__ or "").split(":")[0]
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="trained weights, whose detections count")
    add("--images", required=True, help="folder, file or glob")
    add("--num-images", type=int, default=8, help="images to compare on (default 8)")
    add("--imgsz", type=int, nargs="+", default=[400, 600, 800], help="shorter sides")
    add("--backbones", nargs="*", default=["resnet50", "resnet101"], help="random weights as well")
    add("--runtime", choices=("auto", "tensorrt", "tensorrt-rtx"), default="auto")
    add("--frames", type=int, default=20_000, help="of the memory check (default 20000)")
    add("--models", type=Path, default=Path("build/verify"), help="exported files and engines")
    add("--out", type=Path, help="write everything as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
