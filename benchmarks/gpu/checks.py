"""The GPU's part: each function opens an engine, measures or compares, and returns figures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.gpu.bundle import load_detections
from retinart.benchmarks.gpu.judge import GROWTH, SLACK, Figures, compared, judged, same
from retinart.benchmarks.timing.worker import Incomplete
from retinart.engine.common.timing import StageClock
from retinart.engine.cuda.pycuda_driver import PyCuda
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import MissingDependency
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import Image
from retinart.engine.media.video import VideoReader
from retinart.engine.media.video_writer import VideoWriter
from retinart.engine.model.info import Precision
from retinart.engine.tensorrt.api import load_tensorrt, problems_log
from retinart.engine.tensorrt.engine_file import check_plan, read_engine_info

WARM = 20


def validity(engine: Path) -> Figures:
    """What TensorRT-RTX says of an engine on this GPU, before it loads it: why it would refuse."""
    info = read_engine_info(engine)
    plan, trt = check_plan(engine, info), load_tensorrt(info.runtime)
    log: Any = problems_log(trt)
    runtime: Any = trt.Runtime(log)
    if not hasattr(runtime, "get_engine_validity"):
        return {"not asked": f"{info.runtime} {trt.__version__} has no such question"}
    verdict, flags = runtime.get_engine_validity(plan)
    kinds: Any = getattr(trt, "EngineInvalidityDiagnostics", None)
    members = getattr(kinds, "__members__", {})
    why = [name for name, kind in members.items() if flags & kind.value]
    figures = {"engine": verdict.name, "why": why, "log": log.errors[-3:]}
    return judged(figures, ["the runtime refuses it"] if verdict.name == "INVALID" else [])


def load_and_run(engine: Path, image: Image) -> Figures:
    """Whether it works at all. The first run is where TensorRT-RTX compiles its kernels."""
    start = time.perf_counter()
    with Detector(engine, contexts=1, graphs=False) as detect:
        load = time.perf_counter() - start
        first = _ms(lambda: detect(image))
        later = [_ms(lambda: detect(image)) for _ in range(5)]
        figures: Figures = {
            "load s": round(load, 2),
            "first run s": round(first / 1000, 2),
            "later runs ms": round(float(np.median(later)), 2),
            "detections": len(detect(image)),
        }
    with tempfile.TemporaryDirectory() as folder:  # what TensorRT-RTX compiled, kept and taken up
        for what in ("keeps", "has"):
            with Detector(engine, contexts=1, graphs=False, cache_dir=folder) as detect:
                ms = _ms(lambda: detect(image))
            figures[f"first run s, {what} kernels"] = round(ms / 1000, 2)
        figures["kernels KiB"] = sum(p.stat().st_size for p in Path(folder).iterdir()) >> 10
    return figures


def compare(
    engine: Path, images: Sequence[Image], precision: Precision, references: Mapping[str, Path]
) -> Figures:
    """Detections against the references, and those of graphs against those of plain launches.

    Args:
        engine: to look at.
        images: each (H, W, 3) uint8 BGR.
        precision: of its file; says which bar holds.
        references: files of detections on the same images, by the runtime that found them.
    """
    plain: list[Detections] = []

    def no_graph() -> Figures:
        with Detector(engine, contexts=1, graphs=False) as detect:
            plain[:] = [detect(image) for image in images]
        return _against(references, plain, precision, detect)

    def graph() -> Figures:
        with Detector(engine, contexts=1) as detect:
            found = [detect(image) for _ in range(3) for image in images]  # the first one is plain
            why = _no_graph(detect)
        differ = sum(not same(a, b) for a, b in zip(plain * 3, found, strict=True))
        faults = [f"{differ} results differ from those without a graph, none shall"] * bool(differ)
        return judged(_with_graph({"results": len(found), "differ": differ}, why), faults)

    return _each({"no graph": no_graph, "graph": graph})


def gpu_resize(
    engine: Path, images: Sequence[Image], precision: Precision, references: Mapping[str, Path]
) -> Figures:
    """Detections of images that the GPU resized, which is OpenCV's work to one grey level.

    So FP32 is held to what FP16 is.
    """
    with Detector(engine, contexts=1, gpu_resize=True) as detect:
        found = [detect(image) for image in images]
        why = _no_graph(detect)
    bar: Precision = "fp16" if precision == "fp32" else precision
    return _with_graph(_against(references, found, bar, detect), why)


def latency(engine: Path, image: Image, repeats: int = 300) -> Figures:
    """Percentiles in ms of one image: by the GPU's own clock, and from image to detections."""

    def variant(graphs: bool) -> Figures:
        with Detector(engine, graphs=graphs, contexts=1) as detect:
            frames, _ = detect.info.resize.apply([image])
            runner: Any = detect.runner
            device = [runner.device_ms(frames) for _ in range(WARM + repeats)]
            whole = [_ms(lambda: detect(image)) for _ in range(WARM + repeats)]
            why = _no_graph(detect)
        figures = {"device": percentiles(device), "end to end": percentiles(whole)}
        return _with_graph(figures, why)

    return _each({"graph": lambda: variant(True), "no graph": lambda: variant(False)})


def throughput(
    engine: Path,
    image: Image,
    seconds: float = 2.0,
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32),
    contexts: Sequence[int] = (1, 2, 3, 4),
) -> Figures:
    """Images a second over sizes of batches, and over contexts that as many threads use at once.

    The engine is loaded once, as each loading of it may compile its kernels anew.
    """
    with Detector(engine, contexts=max(contexts)) as detect:

        def variant(batch: int) -> Figures:
            images = [image] * batch
            _warm(detect, images, max(contexts))
            figures: Figures = {}
            for count in contexts:
                start = time.perf_counter()
                work = partial(_until, start + seconds, partial(detect, images), batch)
                with ThreadPoolExecutor(count) as pool:
                    done = sum(pool.map(work, range(count)))
                rate = round(done / (time.perf_counter() - start), 1)
                figures[f"{count} contexts"] = rate
            return _with_graph(figures, _no_graph(detect))

        return _each({f"batch {n}": partial(variant, n) for n in batches})


def streams(engine: Path, image: Image, frames: int = 500) -> Figures:
    """Frames a second of a video file, with one and with two frames under way.

    Resized on either side of the bus. Decoding is in it: `decode` is the rate of that alone.
    """
    figures, why = Figures(), ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with VideoWriter(path, fps=25, size=(image.shape[0], image.shape[1])) as video:
            for _ in range(frames):
                video.write(image)
        with VideoReader(path) as decoded:
            figures["decode"] = _rate(decoded)
        for contexts, gpu_resize in product((1, 2), (False, True)):
            side = "GPU" if gpu_resize else "CPU"
            with Detector(engine, contexts=contexts, gpu_resize=gpu_resize) as detect:
                _warm(detect, [image], contexts)
                figures[f"{contexts} under way, resized on the {side}"] = _rate(detect.stream(path))
                why = why or _no_graph(detect)
    return _with_graph(figures, why)


def endurance(engine: Path, image: Image, frames: int, first: int = 200) -> Figures:
    """Memory of the process and of the GPU, after the first frames and after many more."""
    with Detector(engine) as detect:
        for _ in range(first):
            detect(image)
        before = _memory()
        for _ in range(frames):
            detect(image)
        after = _memory()
    faults = [
        f"{kind} grew by {after[kind] - before[kind]}, at most {most} is taken for noise"
        for kind, most in GROWTH.items()
        if after[kind] - before[kind] > most
    ]
    return judged({"frames": frames, "before": before, "after": after}, faults)


def threads(engine: Path, images: Sequence[Image], count: int = 8) -> Figures:
    """Many threads on one detector find what one thread finds."""
    with Detector(engine, contexts=4) as detect:
        want = [detect(image) for image in images]

        def work(_: int) -> int:
            found = [detect(image) for _ in range(5) for image in images]
            alike = (match(a, b, floor=0.0).same for a, b in zip(want * 5, found, strict=True))
            return sum(not s for s in alike)

        with ThreadPoolExecutor(count) as pool:
            wrong = sum(pool.map(work, range(count)))
    figures = {"threads": count, "images": count * 5 * len(images), "differ": wrong}
    faults = [f"{wrong} results differ from one thread's, none shall"] * bool(wrong)
    if not any(map(len, want)):
        faults.append("there is nothing to compare: no detection")
    return judged(figures, faults)


def torch_compile(engine: Path, mode: str, repeats: int = 100) -> Figures:
    """ms an image of the same network in PyTorch: compiled, FP16, channels last, batch 1.

    The network alone, from normalised pixels on the GPU to raw heads: no resize, no copy, no NMS,
    so that it is at an advantage. Its weights are random, which is as fast.

    Args:
        engine: whose network and size it is; not loaded.
        mode: of torch.compile. "reduce-overhead" captures CUDA graphs, as our engines do;
            "max-autotune" tries kernels out too, which takes many minutes for R101.
        repeats: images that are timed.
    """
    import torch

    from retinart.train.model.retinanet import build_retinanet

    info = read_engine_info(engine).model
    model: Any = build_retinanet(info.variant).eval().cuda().half()
    model = model.to(memory_format=torch.channels_last)
    compiled: Callable[..., Any] = torch.compile(model, mode=mode)
    x = torch.randn(1, 3, *info.max_size, device="cuda").half()
    x = x.to(memory_format=torch.channels_last)
    times = []
    event: Callable[..., Any] = torch.cuda.Event
    begin = time.perf_counter()
    with torch.inference_mode():
        compiled(x)
        torch.cuda.synchronize()
        compile_seconds = time.perf_counter() - begin
        for _ in range(WARM + repeats):
            start, end = (event(enable_timing=True) for _ in range(2))
            start.record()
            compiled(x)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    return {"mode": mode, "compile s": round(compile_seconds, 1), **percentiles(times)}


def _against(
    references: Mapping[str, Path],
    found: Sequence[Detections],
    precision: Precision,
    detect: Detector,
) -> Figures:
    figures, faults = Figures(), [] if references else ["there are no references"]
    for name, path in references.items():
        want = load_detections(path)
        figures[name], wrong = compared(
            want, found, precision, detect.thresholds, slack=SLACK[name]
        )
        faults += [f"{name}: {text}" for text in wrong]
    return judged(figures, faults)


def _rate(items: Iterable[object]) -> float:
    start = time.perf_counter()
    count = sum(1 for _ in items)
    return round(count / (time.perf_counter() - start), 1)


def _until(end: float, work: Callable[[], object], images: int, _: int) -> int:
    done = 0
    while time.perf_counter() < end:
        work()
        done += images
    return done


def percentiles(values: Sequence[float]) -> Figures:
    """Of all but the first WARM."""
    kept = np.asarray(values[WARM:])
    return {f"p{p}": round(float(np.percentile(kept, p)), 3) for p in (50, 90, 99)}


def _ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def _each(variants: Mapping[str, Callable[[], Figures]]) -> Figures:
    """The figures of every variant, or what went wrong with it; then `Incomplete` is raised."""
    figures: Figures = {}
    good = True
    for name, work in variants.items():
        try:
            figures[name] = work()
        except Incomplete as error:
            figures[name], good = error.figures, False
        except (ImportError, MissingDependency):  # the others would lack it as well
            raise
        except Exception as error:  # whatever a GPU throws is a finding
            figures[name], good = f"{type(error).__name__}: {error}", False
    if not good:
        raise Incomplete(figures)
    return figures


def _no_graph(detect: Detector) -> str:
    """Why an engine runs without the graphs that were wanted; "" if it does not."""
    runner: Any = detect.runner
    return str(runner.no_graph)


def _with_graph(figures: Figures, why: str) -> Figures:
    """The figures, if they are not those of plain launches where graphs were wanted."""
    if why:
        raise Incomplete({**figures, "plain launches, for want of a graph": why})
    return figures


def _warm(detect: Detector, images: Sequence[Image], contexts: int) -> None:
    """Three batches on each of the contexts: a plain run, a capture, a replay.

    All are started before one is finished, as the context that was used last is taken first.
    """
    prepared = detect.runner.prepare(images)
    for _ in range(3):
        begun = [prepared.submit(StageClock()) for _ in range(contexts)]
        for pending in begun:
            pending.result()


def _memory() -> Figures:
    """Now, not at most: what was let go of since is not in it."""
    cuda = PyCuda()
    with cuda.current():
        free, total = cuda.memory()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"host MB": int(resident) // 1024, "GPU MB": (total - free) >> 20}
