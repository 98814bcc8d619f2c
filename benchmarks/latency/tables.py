"""What a benchmark found, as tables and sentences, once for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.turns import PERCENTILES, STAGES
from retinart.engine.common.table import Table

_MS = "ms p50 / p90 / p99"


def report(result: dict[str, Any]) -> str:
    """The result of `benchmark` as Markdown."""
    parts = [" ".join(intro(result))]
    for table in tables(result):
        parts.append(table.markdown())
        parts += [" ".join(table.notes)] if table.notes else []
    return "\n\n".join([*parts, *warnings(result)])


def intro(result: dict[str, Any]) -> list[str]:
    """What was measured, and what was left out, a sentence each."""
    sentences = [
        f"{len(result['images'])} images x {result['repeats']} repeats, {result['threads']} "
        f"threads, {result['machine']['cpu']}; {result['what']}."
    ]
    machine = result["machine"]
    if "flags" in machine:
        sentences.append(f"Instruction sets: {', '.join(machine['flags'])}.")
    if "int8" in machine and any(m["precision"].startswith("int8") for m in result["models"]):
        sentences.append(f"{machine['int8']}.")
    return sentences + about_peers([result])


def about_peers(results: Sequence[dict[str, Any]]) -> list[str]:
    """What the peers of benchmarks are, and which were left out, a sentence each."""
    what = [f"{p['peer']}: {p['what']}." for r in results for p in r["peers"]]
    out = [
        f"Left out: {p['name']}, as {p['why'].rstrip('.')}." for r in results for p in r["left_out"]
    ]
    return list(dict.fromkeys([*what, *out]))


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """Models, peers, limits and stages."""
    models, peers = result["models"], result["peers"]
    with_ap = any("ap" in m for m in models)
    yield Table(
        title="Models",
        head=["model", "precision", "input", _MS, "images/s", "times the first (95%)"]
        + (["AP", "AP50"] if with_ap else [])
        + ["boxes", "load ms", "first ms", "peak MiB"],
        rows=[
            [
                m["model"],
                m["precision"],
                _input(m),
                _cell(m["ms"]["total"]),
                f"{m['images_per_second']:.2f}",
                estimate(m["times_as_fast_as_first"]),
                *([_ap(m.get("ap")), _ap(m.get("ap50"))] if with_ap else []),
                *_cost(m),
            ]
            for m in models
        ],
        notes=[
            "Times are an image's; the first is the first model in the same setting. Boxes: "
            "detections an image. First: the first inference after loading. Peak MiB: of a process "
            "with that runtime alone."
        ],
    )
    if peers:
        names = list(dict.fromkeys(p["peer"] for p in peers))
        yield Table(
            title="Peers",
            head=["peer", "input", _MS, "images/s", "boxes", "load ms", "first ms", "peak MiB"],
            rows=[
                [
                    row_name(p),
                    _input(p),
                    _cell(p["ms"]["total"]),
                    f"{p['images_per_second']:.2f}",
                    *_cost(p),
                ]
                for p in peers
            ],
        )
        yield Table(
            title="How many times as fast as the peers (95%)",
            head=["model", *names],
            rows=[
                [m["model"], *(estimate(m["times_as_fast_as"].get(name)) for name in names)]
                for m in models
            ],
        )
    yield _limits(result)
    yield Table(
        title="Stages",
        head=[_MS, *STAGES[1:]],
        rows=[
            [row_name(m), *(_cell(m["ms"][stage]) for stage in STAGES[1:])]
            for m in [*models, *peers]
        ],
        notes=[
            "Decoding the file is not in the totals. Copy: into memory that a GPU reads, as a CPU "
            "gets frames in place; the way over the bus and back is within infer. Infer holds NMS "
            "where that is in the graph."
        ],
    )


def row_name(row: dict[str, Any]) -> str:
    """What to call a model's or a peer's row."""
    if "model" in row:
        return str(row["model"])
    return str(row["peer"]) if row["imgsz"] is None else f"{row['peer']} at {row['imgsz']}"


def warnings(result: dict[str, Any]) -> list[str]:
    """How quiet the machine was, and which differences cannot be told, a sentence each."""
    sentences = [noise_text(result["noise"])]
    if result.get("drawn"):
        sentences.append(
            "WARNING: no real images were given: on drawn scenes NMS has other work than in use. "
            "Give --images."
        )
    runs = len(result["images"]) * result["repeats"]
    if runs < statistics.FEWEST:
        sentences.append(
            f"WARNING: {runs} runs are too few for a 95% interval: those given are too narrow. "
            "Raise --repeats."
        )
    for m in result["models"]:
        others = {"the first": m["times_as_fast_as_first"], **m["times_as_fast_as"]}
        for name, ratio in others.items():
            if ratio["low"] < 1 < ratio["high"]:
                sentences.append(
                    f"WARNING: no difference can be told between {m['model']} and {name}: "
                    f"{estimate(ratio)}."
                )
            elif _within(ratio, result["noise"]):
                sentences.append(
                    f"WARNING: {m['model']} is {estimate(ratio)} times as fast as {name}, which is "
                    f"nearer to 1 than the noise of {result['noise']:.0%}."
                )
    return sentences


def noise_text(spread: float) -> str:
    """How quiet the machine was, a sentence."""
    said = f"he reference workload varied by {spread:.0%}"
    if spread <= statistics.NOISY:
        return f"T{said}."
    return (
        f"WARNING: t{said}: the machine was not quiet. Ratios hold better than times, and "
        "differences below that mean nothing."
    )


def _within(ratio: dict[str, float], noise: float) -> bool:
    """Whether a ratio is nearer to 1 than a noisy machine's noise."""
    itself = ratio["low"] == ratio["high"] == 1
    nearer = max(ratio["value"], 1 / ratio["value"]) < 1 + noise
    return noise > statistics.NOISY and nearer and not itself


def peaks_text(peaks: dict[str, float | None]) -> str:
    """The limits of a CPU's arithmetic, for the middle of a sentence."""
    bf16 = f", {peaks['bf16']:.0f} in BF16" if peaks.get("bf16") else ""
    return f"{peaks['fp32']:.0f} GFLOP/s in FP32{bf16}, {peaks['int8']:.0f} GOP/s in INT8"


def _limits(result: dict[str, Any]) -> Table:
    peaks, gpu = result["peak_gops"], result["gpu_peak_gops"]
    notes = [
        "Share of peak: the convolutions' arithmetic in the time of infer, over what the machine "
        f"did in a large matrix product, before or after: {peaks_text(peaks)}. It can exceed 100% "
        "in FP32, as Winograd's algorithm multiplies less than is counted."
    ]
    head = ["model", "GMAC", "infer ms", "ms at the peak", "share of peak"]
    if gpu:
        head.append("share of bandwidth")
        notes.append(
            f"On the GPU {gpu['fp32']:.0f} GFLOP/s in FP32, {gpu['fp16']:.0f} in FP16, "
            f"{gpu['int8']:.0f} GOP/s in INT8, {gpu['bandwidth']:.0f} GB/s: what the convolutions "
            "read and write, each by itself."
        )
    rows = []
    for m in result["models"]:
        share, infer = m["share_of_peak"], m["ms"]["infer"]["p50"]
        row = [m["model"], _number(m["gmac"], ".2f"), f"{infer:.1f}"]
        row.append("" if share is None else f"{infer / m['streams'] * share:.1f}")
        row.append(_number(share, ".0%"))
        rows.append(row + ([_number(m["share_of_bandwidth"], ".0%")] if gpu else []))
    return Table(title="Limits", head=head, rows=rows, notes=notes)


def _cost(m: dict[str, Any]) -> list[str]:
    return [
        f"{m['detections']:.0f}",
        f"{m['load_ms']:.0f}",
        f"{m['first_ms']:.0f}",
        f"{m['peak_mib']:.0f}",
    ]


def _input(m: dict[str, Any]) -> str:
    more = f" and {m['inputs'] - 1} more" if m["inputs"] > 1 else ""
    return f"{m['input'][0]}x{m['input'][1]}{more}"


def _cell(ms: dict[str, float]) -> str:
    return " / ".join(f"{ms[f'p{p}']:.1f}" for p in PERCENTILES)


def estimate(ratio: dict[str, float] | None) -> str:
    """A ratio with its interval; "" for none."""
    return "" if ratio is None else str(statistics.Estimate(**ratio))


def _ap(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
