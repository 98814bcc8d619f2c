"""The GPU's part: every check of every engine in a prepared folder, the most telling ones first.

It needs neither onnx nor OpenVINO. A step whose module is missing is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from retinart.benchmarks.gpu import checks
from retinart.benchmarks.gpu.attempts import Attempts
from retinart.benchmarks.gpu.bundle import Bundle, Item

NO_GPU = "there is no GPU here"
NOT_HERE = "its files were not brought along"
NOT_SEEN = "its engine was not seen to load and run"

# Seconds after which a step has failed; loading may compile kernels for 15 s, for each shape.
LIMITS = {
    "validity": 60,
    "load and run": 120,
    "detections": 150,
    "latency": 150,
    "GPU resize": 120,
    "native NMS": 150,
    "8 threads": 120,
    "torch.compile FP16": 600,
    "throughput": 300,
    "streams": 240,
    "memory": 900,
}


@dataclass(frozen=True, kw_only=True)
class SeeSettings:
    """How much is looked at.

    Attributes:
        gpu: whether there is one.
        frames: of the memory check.
        seconds: of each measurement of throughput.
        batches, contexts: that throughput is measured over.
        compile_mode: of torch.compile.
        limit: seconds for each step, in place of LIMITS.
    """

    gpu: bool
    frames: int
    seconds: float
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    compile_mode: str
    limit: float | None


def see(bundle: Bundle, steps: Attempts, settings: SeeSettings) -> None:
    """Run what was not run before.

    Each group goes over all engines before the next one begins, so that when the time is up
    something is known of every one: does it load, is it right, how fast is it, and then the rest.
    """
    images = bundle.read_images()
    one: dict[str, Any] = {"image": images[0]}
    for item in bundle.items:
        check = partial(_check, bundle, steps, settings, item)
        check("validity", checks.validity, first=True)
        check("load and run", partial(checks.load_and_run, **one), first=True)
    trained = [item for item in bundle.items if item.trained]
    for item in trained:
        check = partial(_check, bundle, steps, settings, item)
        check("detections", _compare(checks.compare, bundle, item, images))
    for item in bundle.items:
        _check(bundle, steps, settings, item, "latency", partial(checks.latency, **one))
    for item in trained:
        check = partial(_check, bundle, steps, settings, item)
        check("GPU resize", _compare(checks.gpu_resize, bundle, item, images))
        compare = _compare(checks.compare, bundle, item, images)
        if item.native:
            check("native NMS", compare, engine=item.native)
        check("8 threads", partial(checks.threads, images=images))
    seen = set[str]()
    for item in bundle.items:
        network, _, _ = item.title.partition(", ")
        if network not in seen and (bundle.folder / f"{item.engine}.json").is_file():
            seen.add(network)
            work = partial(checks.torch_compile, mode=settings.compile_mode)
            _torch(bundle, steps, settings, f"torch.compile FP16, {network}", item, work)
    for item in bundle.items:
        work = partial(
            checks.throughput,
            **one,
            seconds=settings.seconds,
            batches=settings.batches,
            contexts=settings.contexts,
        )
        _check(bundle, steps, settings, item, "throughput", work)
    for item in trained:
        check = partial(_check, bundle, steps, settings, item)
        check("streams", partial(checks.streams, **one))
        check("memory", partial(checks.endurance, **one, frames=settings.frames))


def _compare(
    check: Callable[..., Any], bundle: Bundle, item: Item, images: list[Any]
) -> Callable[..., Any]:
    paths = {name: bundle.folder / file for name, file in item.references.items()}
    return partial(check, images=images, precision=item.precision, references=paths)


def _check(
    bundle: Bundle,
    steps: Attempts,
    settings: SeeSettings,
    item: Item,
    kind: str,
    work: Callable[..., Any],
    *,
    engine: str = "",
    first: bool = False,
) -> None:
    """One check of one engine: `work` of its path."""
    name = f"{kind}, {item.title}"
    path = bundle.folder / (engine or item.engine)
    if not settings.gpu:
        steps.skip(name, NO_GPU)
    elif not path.is_file():
        steps.skip(name, NOT_HERE)
    elif not first and not steps.good(f"load and run, {item.title}"):
        steps.skip(name, NOT_SEEN)
    else:
        steps.run(name, partial(work, path), settings.limit or LIMITS[kind])


def _torch(
    bundle: Bundle,
    steps: Attempts,
    settings: SeeSettings,
    name: str,
    item: Item,
    work: Callable[..., Any],
) -> None:
    """PyTorch's own network; whether the engine loads is nothing to it."""
    if settings.gpu:
        limit = settings.limit or LIMITS["torch.compile FP16"]
        steps.run(name, partial(work, bundle.folder / item.engine), limit)
    else:
        steps.skip(name, NO_GPU)
