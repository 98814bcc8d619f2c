"""Model files against each other, from a decoded frame to its final boxes, one image at a time.

Each file runs in a process of its own, and they take turns image by image, so that whatever slows
the machine slows all of them. A fixed piece of arithmetic is timed between the repeats; its spread
says how far the figures can be trusted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinart.benchmarks import machine, measures
from retinart.benchmarks.workers import Retinart, Run, Worker
from retinart.engine.errors import BadInput
from retinart.engine.files import sha256
from retinart.engine.images import list_images, read_image
from retinart.engine.info import read_info
from retinart.engine.progress import Progress

STAGES = ("total", "resize", "infer", "nms", "results")
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What to measure.

    Attributes:
        images: folder, file or glob of real images, which NMS needs to be what it is in use.
        num_images: how many of them.
        repeats: runs of every image.
        threads: of each runtime.
    """

    images: str
    num_images: int = 16
    repeats: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("num_images", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}", fix="Give at least 1")


def benchmark(models: Sequence[Path], settings: BenchmarkSettings) -> dict[str, Any]:
    """Time every model on the same images; plain JSON types, times in milliseconds.

    Raises:
        BadInput: a model or the images cannot be used.
    """
    infos = [read_info(path) for path in models]
    if len(set(models)) < len(models):
        raise BadInput("a model is named twice", fix="Name each file once")
    paths = list_images(settings.images)[: settings.num_images]
    decode = [_decode(path) for path in paths]
    threads = settings.threads
    peaks = machine.measure_peaks(threads)
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker(Retinart(model=path, threads=threads), paths, threads=threads)
            )
            for path in models
        ]
        sizes = [worker.size(0) for worker in workers]
        first = [worker.run(0).ms["total"] for worker in workers]
        runs, reference = _interleave(workers, settings.repeats, len(paths))
        peaks = machine.best(peaks, machine.measure_peaks(threads))
        load, peak = ([getattr(w, what)() for w in workers] for what in ("load_ms", "peak_mib"))
    found = []
    for i, (path, info) in enumerate(zip(models, infos, strict=True)):
        macs = machine.count_macs(path, sizes[i])
        limit = peaks.int8 if info.precision.startswith("int8") else peaks.fp32
        infer = float(np.median([run.ms["infer"] for run in runs[i]]))
        found.append(
            {
                "model": path.name,
                "sha256": sha256(path),
                "precision": info.precision,
                "input": list(sizes[i]),
                "ms": {stage: _percentiles(ms) for stage, ms in _by_stage(runs[i]).items()},
                "runs_ms": {
                    stage: [round(v, 4) for v in ms] for stage, ms in _by_stage(runs[i]).items()
                },
                "images_per_second": 1000 / float(np.mean([run.ms["total"] for run in runs[i]])),
                "load_ms": load[i],
                "first_ms": first[i],
                "peak_mib": peak[i],
                "gmac": macs / 1e9,
                "share_of_peak": 2 * macs / (infer / 1000) / (limit * 1e9),
                "times_as_fast_as_first": asdict(_ratio(runs[0], runs[i])),
            }
        )
    return {
        "what": "from a decoded BGR frame to final boxes, batch 1, interleaved, real images",
        "images": [path.name for path in paths],
        "repeats": settings.repeats,
        "threads": threads,
        "machine": machine.describe(),
        "peak_gops": asdict(peaks),
        "decode_ms": _percentiles(decode),
        "reference_ms": reference,
        "noise": measures.spread(reference),
        "models": found,
    }


def report(result: dict[str, Any]) -> str:
    """The result of `benchmark` as Markdown."""
    lines = [
        f"{len(result['images'])} images x {result['repeats']} repeats, {result['threads']} "
        f"threads, {result['machine']['cpu']}; {result['what']}",
        "",
        "| model | precision | input | ms p50 / p90 / p99 | images/s | times the first (95%) "
        "| share of peak | load ms | first ms | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for m in result["models"]:
        ratio = measures.Estimate(**m["times_as_fast_as_first"])
        lines.append(
            f"| {m['model']} | {m['precision']} | {m['input'][0]}x{m['input'][1]} "
            f"| {_cell(m['ms']['total'])} | {m['images_per_second']:.2f} | {ratio} "
            f"| {m['share_of_peak']:.0%} | {m['load_ms']:.0f} | {m['first_ms']:.0f} "
            f"| {m['peak_mib']:.0f} |"
        )
    names = [m["model"] for m in result["models"]]
    lines += ["", "| stage, ms p50 / p90 / p99 | " + " | ".join(names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for stage in STAGES[1:]:
        cells = " | ".join(_cell(m["ms"][stage]) for m in result["models"])
        lines.append(f"| {stage} | {cells} |")
    peaks = result["peak_gops"]
    lines += [
        "",
        f"Decoding an image took {result['decode_ms']['p50']:.1f} ms and is not in the total. "
        "Share of peak: the convolutions' arithmetic in the time of infer, over what the machine "
        f"did in a large matrix product, before or after: {peaks['fp32']:.0f} GFLOP/s in FP32, "
        f"{peaks['int8']:.0f} GOP/s in INT8.",
    ]
    if result["noise"] > measures.NOISY:
        lines.append(
            f"WARNING: the reference workload varied by {result['noise']:.0%}: the machine was not "
            "quiet. Ratios hold better than times, and differences below that mean nothing."
        )
    else:
        lines.append(f"The reference workload varied by {result['noise']:.0%}.")
    return "\n".join(lines)


def _interleave(
    workers: Sequence[Worker], repeats: int, images: int
) -> tuple[list[list[Run]], list[float]]:
    """Runs of each worker, in the same order of images, and the reference's times between."""
    progress = Progress()
    runs: list[list[Run]] = [[] for _ in workers]
    for worker in workers:  # warm-up
        for image in range(min(2, images)):
            worker.run(image)
    reference = [machine.reference() for _ in range(3)]
    for repeat, image, forward in measures.turns(repeats, images):
        order = list(zip(workers, runs, strict=True))
        for worker, column in order if forward else order[::-1]:
            time.sleep(machine.REST_S)
            column.append(worker.run(image))
        done = repeat * images + image + 1
        progress.update(done, repeats * images, "rounds")
        if image == images - 1:
            reference += [machine.reference() for _ in range(3)]
    return runs, reference


def _by_stage(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Milliseconds of every run, in the order in which they were made."""
    return {stage: [run.ms.get(stage, 0.0) for run in runs] for stage in STAGES}


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    found = np.percentile(values, PERCENTILES)
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, found, strict=True)}


def _ratio(first: Sequence[Run], other: Sequence[Run]) -> measures.Estimate:
    slow, fast = ([run.ms["total"] for run in runs] for runs in (first, other))
    return measures.median_of_ratios(slow, fast)


def _cell(ms: dict[str, float]) -> str:
    return " / ".join(f"{ms[f'p{p}']:.1f}" for p in PERCENTILES)


def _decode(path: Path) -> float:
    start = time.perf_counter()
    read_image(path)
    return 1000 * (time.perf_counter() - start)
