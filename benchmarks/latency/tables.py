"""A benchmark as tables and sentences, for Markdown and for the page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from retinart.benchmarks.latency.regression import ratio_table
from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.results import STAGES, Benchmark, ModelTimes, Times
from retinart.benchmarks.timing.statistics import Estimate
from retinart.engine.common.table import Table

_SAME_WORK = 0.01  # difference of the multiply-accumulates of one model in two precisions
_MS = "ms p50 / p90 / p99"


def report(result: Benchmark) -> str:
    """A benchmark as Markdown."""
    parts = [" ".join(intro(result))]
    for table in tables(result):
        parts.append(table.markdown())
        parts += [" ".join(table.notes)] if table.notes else []
    parts += warnings(result)
    if result.comparison is not None:
        ratios = ratio_table(result.comparison)
        parts += [ratios.markdown(), "\n".join(ratios.notes)]
    return "\n\n".join(parts)


def intro(result: Benchmark) -> list[str]:
    """What was measured and what was left out, a sentence each."""
    machine = result.machine
    sentences = [
        f"{len(result.images)} images x {result.repeats} repeats, {result.threads} threads, "
        f"{machine.cpu}; {result.what}.",
        f"Instruction sets: {', '.join(machine.flags)}.",
    ]
    if machine.int8 and any(m.precision.startswith("int8") for m in result.models):
        sentences.append(f"{machine.int8}.")
    return sentences + about_peers([result])


def about_peers(results: Sequence[Benchmark]) -> list[str]:
    """What the peers of benchmarks are, and what was left out, a sentence each."""
    what = [f"{p.peer}: {p.what}." for r in results for p in r.peers]
    out = [f"Left out: {p.name}, as {p.why.rstrip('.')}." for r in results for p in r.left_out]
    return list(dict.fromkeys([*what, *out]))


def tables(result: Benchmark) -> Iterator[Table]:
    """Models, peers, limits and stages."""
    with_ap = any(m.ap is not None for m in result.models)
    yield Table(
        title="Models",
        head=["model", "precision", "input", _MS, "images/s", "times the first (95%)"]
        + (["AP", "AP50"] if with_ap else [])
        + ["boxes", "load ms", "first ms", "peak MiB"],
        rows=[
            [
                m.model,
                m.precision,
                *_speed(m),
                m.times_as_fast_as_first,
                *([shown(m.ap, ".1f", 100), shown(m.ap50, ".1f", 100)] if with_ap else []),
                *_cost(m),
            ]
            for m in result.models
        ],
        notes=[
            "Times are for one image. The ratio is to the first model in the same setting. Boxes: "
            "detections of an image. First: the first inference after loading. Peak MiB: memory of "
            "a process with that runtime alone."
        ],
    )
    if result.peers:
        yield Table(
            title="Peers",
            head=["peer", "input", _MS, "images/s", "boxes", "load ms", "first ms", "peak MiB"],
            rows=[[p.name, *_speed(p), *_cost(p)] for p in result.peers],
        )
        names = list(dict.fromkeys(p.peer for p in result.peers))
        yield Table(
            title="How many times as fast as the peers (95%)",
            head=["model", *names],
            rows=[
                [m.model, *(m.times_as_fast_as.get(n, "") for n in names)] for m in result.models
            ],
        )
    yield _limits(result)
    yield Table(
        title="Stages",
        head=[_MS, *STAGES[1:]],
        rows=[[row.name, *(row.ms[stage] for stage in STAGES[1:])] for row in result.rows],
        notes=[
            "The totals do not include decoding. Copy: a frame goes into memory that a GPU reads; "
            "a CPU reads frames in place. Infer includes the way over the bus and back, and NMS "
            "where the graph holds it."
        ],
    )


def warnings(result: Benchmark) -> list[str]:
    """How quiet the machine was, and which differences are too small to tell, a sentence each."""
    sentences = [noise_text(result.noise), *int8_is_slower(result.models)]
    if result.noise > statistics.NOISY and result.comparison is not None:
        sentences.append(
            "The gate (--max-ratio) judges all the same: repeat it on a quiet machine."
        )
    if result.drawn:
        sentences.append(
            "WARNING: no real images were given: on drawn scenes NMS has other work than in use. "
            "Give real images."
        )
    runs = len(result.images) * result.repeats
    if runs < statistics.FEWEST:
        sentences.append(
            f"WARNING: {runs} runs are too few for a 95% interval: those given are too narrow. "
            "Raise the number of repeats."
        )
    for m in result.models:
        for name, ratio in {"the first": m.times_as_fast_as_first, **m.times_as_fast_as}.items():
            if ratio.low < 1 < ratio.high:
                sentences.append(
                    f"WARNING: no difference can be told between {m.model} and {name}: {ratio}."
                )
            elif _within(ratio, result.noise):
                sentences.append(
                    f"WARNING: {m.model} is {ratio} times as fast as {name}. The difference is "
                    f"{_apart(ratio):.0%}, and the machine's noise is {result.noise:.0%}, so this "
                    "proves nothing."
                )
    return sentences


def int8_is_slower(rows: Sequence[ModelTimes]) -> Iterator[str]:
    """Where an FP32 file takes less time than an INT8 file of as much work, a sentence each."""
    for slow, fast in itertools.product(rows, rows):
        same = (slow.input, slow.batch, slow.streams) == (fast.input, fast.batch, fast.streams)
        kinds = slow.precision.partition("+")[0], fast.precision.partition("-")[0]
        if kinds != ("int8", "fp32") or not same or None in (slow.gmac, fast.gmac):
            continue
        ratio = statistics.ratio_of_medians(
            slow.runs_ms["total"], fast.runs_ms["total"], paired=False
        )
        if ratio.low > 1 and abs((slow.gmac or 0) / (fast.gmac or 1) - 1) < _SAME_WORK:
            yield (
                f"On this machine FP32 is faster than INT8: {fast.model} is {ratio} times as fast "
                f"as {slow.model}. Take the FP32 file here."
            )


def noise_text(spread: float) -> str:
    """How quiet the machine was, a sentence."""
    why = f"the reference workload, a fixed piece of arithmetic, varied by {spread:.0%}"
    if spread <= statistics.NOISY:
        return f"The machine was quiet: {why}."
    return (
        f"WARNING: the machine was not quiet: {why}. Ratios hold better than times, and "
        "differences below that mean nothing."
    )


def shown(value: float | None, form: str, factor: float = 1) -> str:
    """A number as text; "" for None."""
    return "" if value is None else format(factor * value, form)


def _within(ratio: Estimate, noise: float) -> bool:
    """Whether a ratio is nearer to 1 than a noisy machine's noise."""
    itself = ratio.low == ratio.high == 1
    return noise > statistics.NOISY and _apart(ratio) < noise and not itself


def _apart(ratio: Estimate) -> float:
    """How much more time the slower one takes, as a share of the faster one's."""
    return max(ratio.value, 1 / ratio.value) - 1


def _limits(result: Benchmark) -> Table:
    gpu = result.gpu_peak_gops
    notes = [
        "Share of peak: the convolutions' arithmetic a second during infer, over what the machine "
        f"reaches in a large matrix product: {result.peak_gops}. In FP32 it can exceed 100%, "
        "because Winograd's algorithm multiplies less than is counted."
    ]
    head = ["model", "GMAC", "infer ms", "ms at the peak", "share of peak"]
    if gpu:
        head.append("share of bandwidth")
        notes.append(
            f"Share of bandwidth: what each convolution reads and writes by itself, over "
            f"{gpu.bandwidth:.0f} GB/s of the GPU {gpu}."
        )
    rows = []
    for m in result.models:
        share, infer = m.share_of_peak, m.ms["infer"].p50
        at_peak = None if share is None else infer / m.streams * share
        row = [m.model, shown(m.gmac, ".2f"), f"{infer:.1f}", shown(at_peak, ".1f")]
        row.append(shown(share, ".0%"))
        rows.append(row + ([shown(m.share_of_bandwidth, ".0%")] if gpu else []))
    return Table(title="Limits", head=head, rows=rows, notes=notes)


def _speed(row: Times) -> list[object]:
    more = f" and {row.inputs - 1} more" if row.inputs > 1 else ""
    size = f"{row.input[0]}x{row.input[1]}{more}"
    return [size, row.ms["total"], f"{row.images_per_second:.2f}"]


def _cost(row: Times) -> list[str]:
    return [f"{v:.0f}" for v in (row.detections, row.load_ms, row.first_ms, row.peak_mib)]
