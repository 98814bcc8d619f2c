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

from retinart.benchmarks.gpu.worker import Incomplete
from retinart.engine.cuda_pycuda import PyCuda
from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.engine_file import read_engine_info
from retinart.engine.images import Image
from retinart.engine.matching import match
from retinart.engine.tensorrt_runner import TensorRTRunner, load_engine
from retinart.engine.timing import StageClock
from retinart.engine.video import VideoReader, VideoWriter

Figures = dict[str, Any]
WARM = 20


def compare(engine: Path, images: Sequence[Image], want: Iterable[Detections]) -> Figures:
    """The engine's detections against OpenVINO's, plain, with graphs, and resized on the GPU."""
    pairs = list(zip(images, want, strict=True))

    def variant(graphs: bool, gpu_resize: bool) -> Figures:
        matched = missing = extra = 0
        with Detector(engine, graphs=graphs, gpu_resize=gpu_resize) as detect:
            for image, expected in pairs:
                for _ in range(3):  # plain, captured, replayed
                    found = detect(image)
                full = len(expected) == detect.thresholds.detections_per_img
                floor = float(expected.confidence[-1]) if full else detect.thresholds.score_thresh
                result = match(expected, found, floor=floor)
                matched, missing = matched + result.matched, missing + result.missing
                extra += result.extra
            figures = {"matched": matched, "missing": missing, "extra": extra}
            return _with_graph(figures, _no_graph(detect))

    return _each(
        {
            "no graph": lambda: variant(False, False),
            "graph": lambda: variant(True, False),
            "GPU resize": lambda: variant(True, True),
        }
    )


def latency(engine: Path, image: Image, repeats: int = 300) -> Figures:
    """Percentiles in ms of one image: by the GPU's own clock, and from image to detections."""
    info = read_engine_info(engine)
    frames, _ = info.model.resize.apply([image])

    def variant(graphs: bool) -> Figures:
        runner = load_engine(engine, info, graphs=graphs, contexts=1)
        try:
            device = [runner.device_ms(frames) for _ in range(WARM + repeats)]
            why = runner.no_graph
        finally:
            runner.close()
        with Detector(engine, graphs=graphs, contexts=1) as detect:
            whole = [_ms(lambda: detect(image)) for _ in range(WARM + repeats)]
            why = why or _no_graph(detect)
        figures = {"device": percentiles(device), "end to end": percentiles(whole)}
        return _with_graph(figures, why)

    return _each({"no graph": lambda: variant(False), "graph": lambda: variant(True)})


def throughput(engine: Path, image: Image, seconds: float = 2.0) -> Figures:
    """Images a second over batches of 1 to 32, with 1 to 4 contexts in as many threads."""

    def variant(contexts: int) -> Figures:
        figures: Figures = {}
        with Detector(engine, contexts=contexts) as detect:
            for batch in (1, 2, 4, 8, 16, 32):
                images = [image] * batch
                _warm(detect, images, contexts)
                start = time.perf_counter()
                work = partial(_until, start + seconds, partial(detect, images), batch)
                with ThreadPoolExecutor(contexts) as pool:
                    done = sum(pool.map(work, range(contexts)))
                figures[f"batch {batch}"] = round(done / (time.perf_counter() - start), 1)
            return _with_graph(figures, _no_graph(detect))

    return _each({f"{n} contexts": partial(variant, n) for n in (1, 2, 4)})


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


def endurance(engine: Path, image: Image, frames: int) -> Figures:
    """Memory of the process and of the GPU, after a start and after many frames."""
    with Detector(engine) as detect:
        for _ in range(200):
            detect(image)
        before = _memory()
        for _ in range(frames):
            detect(image)
        after = _memory()
    return {"frames": frames, "before": before, "after": after}


def threads(engine: Path, images: Sequence[Image], count: int = 8) -> Figures:
    """Many threads on one detector find what one thread finds."""
    with Detector(engine, contexts=4) as detect:
        want = [detect(image) for image in images]

        def work(_: int) -> int:
            found = [detect(image) for _ in range(5) for image in images]
            same = (match(a, b, floor=0.0).same for a, b in zip(want * 5, found, strict=True))
            return sum(not s for s in same)

        with ThreadPoolExecutor(count) as pool:
            wrong = sum(pool.map(work, range(count)))
    return {"threads": count, "images": count * 5 * len(images), "differ": wrong}


def torch_compile(checkpoint: Path, size: tuple[int, int], repeats: int = 100) -> Figures:
    """ms an image of the same network in PyTorch: compiled, FP16, channels last, batch 1.

    The network alone, from normalised pixels on the GPU to raw heads: no resize, no copy, no NMS,
    so that it is at an advantage.
    """
    import torch

    from retinart.export.checkpoint import load_any

    loaded = load_any(checkpoint)
    model: Any = loaded.model.cuda().half()
    model = model.to(memory_format=torch.channels_last)
    compiled: Callable[..., Any] = torch.compile(model, mode="max-autotune")
    x = torch.randn(1, 3, *size, device="cuda").half().to(memory_format=torch.channels_last)
    times = []
    event: Callable[..., Any] = torch.cuda.Event
    with torch.inference_mode():
        for _ in range(WARM + repeats):
            start, end = (event(enable_timing=True) for _ in range(2))
            start.record()
            compiled(x)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    return percentiles(times)


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
        except Exception as error:  # whatever a GPU throws is a finding
            figures[name], good = f"{type(error).__name__}: {error}", False
    if not good:
        raise Incomplete(figures)
    return figures


def _no_graph(detect: Detector) -> str:
    """Why an engine runs without the graphs that were wanted; "" if it does not."""
    runner = detect._open()
    return runner.no_graph if isinstance(runner, TensorRTRunner) else ""


def _with_graph(figures: Figures, why: str) -> Figures:
    """The figures, if they are not those of plain launches where graphs were wanted."""
    if why:
        raise Incomplete({**figures, "plain launches, for want of a graph": why})
    return figures


def _warm(detect: Detector, images: Sequence[Image], contexts: int) -> None:
    """Three batches on each of the contexts: a plain run, a capture, a replay.

    All are started before one is finished, as the context that was used last is taken first.
    """
    batch, resized = detect.resize(images)
    for _ in range(3):
        begun = [detect.start(batch, resized, StageClock()) for _ in range(contexts)]
        for finish in begun:
            finish()


def _memory() -> Figures:
    """Now, not at most: what was let go of since is not in it."""
    cuda = PyCuda()
    with cuda.current():
        free, total = cuda.memory()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return {"host MB": int(resident) // 1024, "GPU MB": (total - free) >> 20}
