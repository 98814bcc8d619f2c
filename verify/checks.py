"""The GPU's part: each check opens an engine, measures or compares, and returns figures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks.timing.alternate import milliseconds
from retinart.benchmarks.timing.results import Percentiles
from retinart.benchmarks.timing.worker import Incomplete
from retinart.engine.common.timing import StageClock
from retinart.engine.cuda.open_gpu import open_gpu
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.errors import MissingDependency
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import Image, read_image
from retinart.engine.media.video import VideoReader
from retinart.engine.media.video_writer import VideoWriter
from retinart.engine.model.info import Precision
from retinart.engine.tensorrt.api import load_tensorrt, problems_log
from retinart.engine.tensorrt.api import validity as engine_validity
from retinart.engine.tensorrt.engine_file import NmsForm, check_plan, read_engine_info
from retinart.verify.bundle import load_detections
from retinart.verify.judge import (
    BARS,
    GROWTH,
    SLACK,
    Bar,
    Figures,
    compared,
    judged,
    repeated,
)

WARM = 20


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An engine to look at, and how long.

    Attributes:
        engine: its file.
        images: files; the first one is timed.
        precision: of the engine's ONNX file.
        nms: the engine's form of NMS.
        references: files of detections on the images, by the runtime that found them.
        frames: of the memory check.
        seconds: of each measurement of throughput.
        batches, contexts: that throughput is measured over.
        repeats: of each measurement of latency.
        compile_mode: of torch.compile. "reduce-overhead" captures CUDA graphs, as our engines do;
            "max-autotune" also tries kernels, which takes many minutes for R101.
    """

    engine: Path
    images: tuple[Path, ...]
    precision: Precision = "fp32"
    nms: NmsForm = "plugin"
    references: dict[str, Path] = field(default_factory=dict)
    frames: int = 2000
    seconds: float = 0.5
    batches: tuple[int, ...] = (1, 8, 32)
    contexts: tuple[int, ...] = (1, 2)
    repeats: int = 300
    compile_mode: str = "reduce-overhead"

    def pictures(self) -> list[Image]:
        """The images, each (H, W, 3) uint8 BGR."""
        return [read_image(path) for path in self.images]

    def picture(self) -> Image:
        """The first image."""
        return read_image(self.images[0])


def validity(subject: Subject) -> Figures:
    """Why TensorRT-RTX would refuse an engine on this GPU, before it loads it."""
    info = read_engine_info(subject.engine)
    plan, trt = check_plan(subject.engine, info), load_tensorrt(info.runtime)
    log: Any = problems_log(trt)
    runtime: Any = trt.Runtime(log)
    verdict, why = engine_validity(trt, runtime, plan)
    if not verdict:
        return {"not asked": f"{info.runtime} {trt.__version__} has no such question"}
    figures = {"engine": verdict, "why": why, "log": log.errors[-3:]}
    return judged(figures, ["the runtime refuses it"] if verdict == "INVALID" else [])


def load_and_run(subject: Subject) -> Figures:
    """Whether it works at all. In the first run TensorRT-RTX compiles its kernels."""
    image, start = subject.picture(), time.perf_counter()
    with Detector(subject.engine, contexts=1, graphs=False) as detect:
        load = time.perf_counter() - start
        first, *later = (milliseconds(partial(detect, image)) for _ in range(6))
        figures: Figures = {
            "load s": round(load, 2),
            "first run s": round(first / 1000, 2),
            "later runs ms": round(float(np.median(later)), 2),
            "detections": len(detect(image)),
        }
    with tempfile.TemporaryDirectory() as folder:  # the compiled kernels are kept, and then loaded
        for what in ("keeps", "has"):
            with Detector(subject.engine, contexts=1, graphs=False, cache_dir=folder) as detect:
                ms = milliseconds(partial(detect, image))
            figures[f"first run s, {what} kernels"] = round(ms / 1000, 2)
        figures["kernels KiB"] = sum(p.stat().st_size for p in Path(folder).iterdir()) >> 10
    return figures


def compare(subject: Subject) -> Figures:
    """Detections against the references, and with CUDA graphs against plain launches."""
    images, plain = subject.pictures(), list[Detections]()

    def no_graph() -> Figures:
        with Detector(subject.engine, contexts=1, graphs=False) as detect:
            plain[:] = map(detect, images)
        return _against(subject, plain, detect, BARS[subject.precision])

    def graph() -> Figures:
        with Detector(subject.engine, contexts=1) as detect:
            found = [detect(image) for image in images * 3]  # the first round is plain
            faults = _no_graph(detect)
        figures, wrong = repeated(plain * 3, found, subject.nms, detect.thresholds)
        return judged(figures, [*faults, *wrong])

    return _each({"no graph": no_graph, "graph": graph})


def gpu_resize(subject: Subject) -> Figures:
    """Detections of images that the GPU resized.

    The GPU's pictures are the CPU's, but for models of the form "float", where a few values differ
    by one. So FP32 is held to FP16's bar.
    """
    with Detector(subject.engine, contexts=1, gpu_resize=True) as detect:
        found = [detect(image) for image in subject.pictures()]
        faults = _no_graph(detect)
    bar = BARS["fp16" if subject.precision == "fp32" else subject.precision]
    return _against(subject, found, detect, bar, faults)


def latency(subject: Subject) -> Figures:
    """Percentiles in ms of one image: by the GPU's own clock, and from image to detections."""
    image, runs = subject.picture(), range(WARM + subject.repeats)

    def variant(graphs: bool) -> Figures:
        with Detector(subject.engine, graphs=graphs, contexts=1) as detect:
            frames, _ = detect.info.resize.apply([image])
            runner: Any = detect.runner
            device = [runner.device_ms(frames) for _ in runs]
            whole = [milliseconds(partial(detect, image)) for _ in runs]
            faults = _no_graph(detect)
        return judged({"device": percentiles(device), "end to end": percentiles(whole)}, faults)

    return _each({"graph": partial(variant, True), "no graph": partial(variant, False)})


def throughput(subject: Subject) -> Figures:
    """Images a second over sizes of batches, and over contexts that as many threads use at once.

    "device only" has all contexts and no host: the frames lie ready. It copies them for each run,
    which trtexec 11 does not unless it is told to. trtexec 11 also takes a CUDA graph, as we do.
    The engine is loaded once, because each loading may compile its kernels anew.
    """
    image, most = subject.picture(), max(subject.contexts)
    with Detector(subject.engine, contexts=most) as detect:

        def variant(batch: int) -> Figures:
            images, figures = [image] * batch, Figures()
            _warm(detect, images, most)
            for count in subject.contexts:
                start = time.perf_counter()
                work = partial(_until, start + subject.seconds, partial(detect, images), batch)
                with ThreadPoolExecutor(count) as pool:
                    done = sum(pool.map(work, range(count)))
                rate = done / (time.perf_counter() - start)
                figures[f"{count} contexts"] = round(rate, 1)
            frames, _ = detect.info.resize.apply(images)
            runner: Any = detect.runner
            rounds = max(1, int(figures[f"{most} contexts"] * subject.seconds / (batch * most)))
            figures["device only"] = round(runner.device_rate(frames, rounds), 1)
            return judged(figures, _no_graph(detect))

        return _each({f"batch {n}": partial(variant, n) for n in subject.batches})


def streams(subject: Subject, frames: int = 500) -> Figures:
    """Frames a second of a video file with one and with two frames under way.

    Frames are resized on the CPU or on the GPU. Decoding takes part; `decode` is its own rate.
    """
    image, figures, faults = subject.picture(), Figures(), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with VideoWriter(path, fps=25, size=(image.shape[0], image.shape[1])) as video:
            for _ in range(frames):
                video.write(image)
        with VideoReader(path) as decoded:
            figures["decode"] = _rate(decoded)
        for contexts, on_gpu in product((1, 2), (False, True)):
            side = "GPU" if on_gpu else "CPU"
            with Detector(subject.engine, contexts=contexts, gpu_resize=on_gpu) as detect:
                _warm(detect, [image], contexts)
                figures[f"{contexts} under way, resized on the {side}"] = _rate(detect.stream(path))
                faults = faults or _no_graph(detect)
    return judged(figures, faults)


def endurance(subject: Subject, first: int = 200) -> Figures:
    """Memory of the process and of the GPU, after the first frames and after many more."""
    image = subject.picture()
    with Detector(subject.engine) as detect:
        for _ in range(first):
            detect(image)
        before = _memory()
        for _ in range(subject.frames):
            detect(image)
        after = _memory()
    faults = [
        f"{kind} grew by {after[kind] - before[kind]}, at most {most} is taken for noise"
        for kind, most in GROWTH.items()
        if after[kind] - before[kind] > most
    ]
    return judged({"frames": subject.frames, "before": before, "after": after}, faults)


def threads(subject: Subject, count: int = 8) -> Figures:
    """Many threads on one detector find what one thread finds."""
    images = subject.pictures()
    with Detector(subject.engine, contexts=4) as detect:
        want = [detect(image) for image in images]

        def work(_: int) -> int:
            found = [detect(image) for image in images * 5]
            return sum(not match(a, b).same for a, b in zip(want * 5, found, strict=True))

        with ThreadPoolExecutor(count) as pool:
            wrong = sum(pool.map(work, range(count)))
    figures = {"threads": count, "images": count * 5 * len(images), "differ": wrong}
    faults = [f"{wrong} results differ from one thread's, none shall"] if wrong else []
    if not any(map(len, want)):
        faults.append("there is nothing to compare: no detection")
    return judged(figures, faults)


def torch_compile(subject: Subject, repeats: int = 100) -> Figures:
    """ms an image of the same network in PyTorch: compiled, FP16, channels last, batch 1.

    It is the network alone, from normalised pixels on the GPU to raw heads, so it is at an
    advantage. Its weights are random, which does not change its speed. The engine is not loaded.
    """
    import torch

    from retinart.train.model.retinanet import build_retinanet

    info = read_engine_info(subject.engine).model
    model: Any = build_retinanet(info.variant).eval().cuda().half()
    model = model.to(memory_format=torch.channels_last)
    compiled: Callable[..., Any] = torch.compile(model, mode=subject.compile_mode)
    x = torch.randn(1, 3, *info.max_size, device="cuda").half()
    x = x.to(memory_format=torch.channels_last)
    times, begin = list[float](), time.perf_counter()
    event: Callable[..., Any] = torch.cuda.Event
    with torch.inference_mode():
        compiled(x)
        torch.cuda.synchronize()
        seconds = round(time.perf_counter() - begin, 1)
        for _ in range(WARM + repeats):
            start, end = (event(enable_timing=True) for _ in range(2))
            start.record()
            compiled(x)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    return {"mode": subject.compile_mode, "compile s": seconds, **percentiles(times)}


def percentiles(ms: Sequence[float]) -> Figures:
    """Percentiles of all times but the first WARM."""
    return {name: round(value, 3) for name, value in asdict(Percentiles.of(ms[WARM:])).items()}


def _against(
    subject: Subject,
    found: Sequence[Detections],
    detect: Detector,
    bar: Bar,
    faults: Sequence[str] = (),
) -> Figures:
    """How detections compare with each reference."""
    figures, faults = Figures(), list(faults)
    if not subject.references:
        faults.append("there are no references")
    for name, path in subject.references.items():
        want = load_detections(path)
        figures[name], wrong = compared(want, found, bar, detect.thresholds, slack=SLACK[name])
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


def _each(variants: Mapping[str, Callable[[], Figures]]) -> Figures:
    """Run every variant. Where one fails, raise Incomplete with the figures and the errors."""
    figures, good = Figures(), True
    for name, work in variants.items():
        try:
            figures[name] = work()
        except Incomplete as error:
            figures[name], good = error.figures, False
        except (ImportError, MissingDependency):  # the other variants would lack it as well
            raise
        except Exception as error:  # a GPU can raise anything, and each of it is a finding
            figures[name], good = f"{type(error).__name__}: {error}", False
    if not good:
        raise Incomplete(figures)
    return figures


def _no_graph(detect: Detector) -> list[str]:
    """A fault where an engine ran without the graphs that were wanted."""
    runner: Any = detect.runner
    return [f"plain launches, for want of a graph: {runner.no_graph}"] if runner.no_graph else []


def _warm(detect: Detector, images: Sequence[Image], contexts: int) -> None:
    """Three batches on each of the contexts: a plain run, a capture, a replay.

    All start before one finishes, because the context that was used last is taken first.
    """
    prepared = detect.runner.prepare(images)
    for _ in range(3):
        for pending in [prepared.submit(StageClock()) for _ in range(contexts)]:
            pending.result()


def _memory() -> Figures:
    """The memory that is held now, and not the most that was held."""
    cuda = open_gpu()
    with cuda.current():
        free, total = cuda.memory()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"host MB": int(resident) // 1024, "GPU MB": (total - free) >> 20}
