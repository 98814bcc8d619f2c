"""The GPU's part: every check of every engine in a prepared folder, the most telling ones first.

It needs neither onnx nor OpenVINO. A step whose module is missing is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from retinart.engine.cuda.open_gpu import Binding, installed_bindings
from retinart.verify import checks
from retinart.verify.attempts import Attempts
from retinart.verify.bundle import Bundle, Item
from retinart.verify.checks import Subject
from retinart.verify.cuda_checks import CHECKS
from retinart.verify.judge import Figures

NO_BINDING = "neither pycuda nor cuda-bindings is installed"
NOT_HERE = "its files were not brought along"
NOT_SEEN = "its engine was not seen to load and run"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A kind of step.

    Attributes:
        name: for the reports.
        run: the check.
        limit: seconds after which it has failed. Loading may compile kernels for 15 s, each shape.
        all: of all engines; else of those with trained weights, whose detections mean something.
        unseen: also of an engine that was not seen to load.
    """

    name: str
    run: Callable[[Subject], Figures]
    limit: float
    all: bool = False
    unseen: bool = False


NATIVE, COMPILED = "native NMS", "torch.compile FP16"
# Each group goes over all engines before the next group begins. So when the time is up, something
# is known of every engine: does it load, is it right, how fast is it, and then the rest.
GROUPS = (
    (
        Check(name="validity", run=checks.validity, limit=60, all=True, unseen=True),
        Check(name="load and run", run=checks.load_and_run, limit=120, all=True, unseen=True),
    ),
    (Check(name="detections", run=checks.compare, limit=150),),
    (Check(name="latency", run=checks.latency, limit=150, all=True),),
    (
        Check(name="GPU resize", run=checks.gpu_resize, limit=120),
        Check(name=NATIVE, run=checks.compare, limit=150),
        Check(name="8 threads", run=checks.threads, limit=120),
    ),
    (Check(name=COMPILED, run=checks.torch_compile, limit=600, all=True, unseen=True),),
    (Check(name="throughput", run=checks.throughput, limit=300, all=True),),
    (
        Check(name="streams", run=checks.streams, limit=240),
        Check(name="memory", run=checks.endurance, limit=900),
    ),
)


CUDA_LIMIT, RUNNER_LIMIT = 120, 300  # seconds for a check
RUNNER = ("detections", "GPU resize", "8 threads", "latency", "throughput", "streams", "memory")


def run_cuda(steps: Attempts, effort: Mapping[str, Any], *, limit: float | None) -> None:
    """Run what needs neither TensorRT nor files, through each binding.

    That is the group "cuda", and then the runner with PyTorch in TensorRT's place.

    Args:
        steps, effort, limit: see `run_checks`.
    """
    for binding in installed_bindings():
        work: dict[str, tuple[Callable[[], Figures], float]] = {
            f"cuda, {name}, {binding}": (partial(check, binding), CUDA_LIMIT)
            for name, check in CHECKS.items()
        }
        for name in RUNNER:
            over = partial(_over_pytorch, name, binding, dict(effort))
            work[f"runner over PyTorch, {name}, {binding}"] = (over, RUNNER_LIMIT)
        for step, (runs, most) in work.items():
            steps.run(step, runs, limit or most)
    if not installed_bindings():
        steps.skip("cuda", NO_BINDING)


def _over_pytorch(name: str, binding: Binding, effort: dict[str, Any]) -> Figures:
    from retinart.verify.over_pytorch import CHECKS, over_pytorch  # needs PyTorch

    return over_pytorch(CHECKS[name], binding, effort)


def run_checks(
    folder: Path,
    bundle: Bundle,
    steps: Attempts,
    effort: Mapping[str, Any],
    *,
    limit: float | None,
) -> None:
    """Run every check that has no result yet.

    Args:
        folder: of the bundle.
        bundle: what is in it.
        steps: keep the results.
        effort: fields of `Subject`, how long to look.
        limit: seconds for each step, in place of the check's own.
    """
    images = tuple(folder / name for name in bundle.images)
    networks: dict[str, Item] = {}  # PyTorch runs each network once, not once an engine
    for item in bundle.items:
        if (folder / item.engine).is_file():
            networks.setdefault(item.network, item)
    for check, item in ((c, i) for group in GROUPS for i in bundle.items for c in group):
        name, path = f"{check.name}, {item.title}", folder / item.engine
        if check.name == COMPILED:
            name = f"{check.name}, {item.network}"
            if item is not networks.get(item.network):
                continue
        elif check.name == NATIVE:
            path = folder / item.native
        if not (check.all or item.trained) or path == folder:
            continue
        if not path.is_file():
            steps.skip(name, NOT_HERE)
        elif not check.unseen and not steps.good(f"load and run, {item.title}"):
            steps.skip(name, NOT_SEEN)
        else:
            references = {judge: folder / file for judge, file in item.references.items()}
            subject = Subject(
                engine=path,
                images=images,
                precision=item.precision,
                nms="graph" if check.name == NATIVE else item.nms,
                references=references,
                **effort,
            )
            steps.run(name, partial(check.run, subject), limit or check.limit)
