"""The grid as Markdown, JSON, CSV and, with matplotlib, one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retinart.benchmarks.grid.points import PEER, REACH, Grid, GridPoint, the_peer
from retinart.benchmarks.latency.report import environment, flat_ms, folded
from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.results import Percentiles
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import (
    COLORS,
    INK,
    load_matplotlib,
    paragraphs,
    svg,
    table_parts,
    why_no_page,
    write_page,
)
from retinart.engine.common.markup import Html, element
from retinart.engine.common.table import Table
from retinart.engine.common.typed_json import write_typed

_STAGES = ("decode", "resize", "infer", "nms", "results")
_FIRST = ["backbone", "imgsz", "precision"]


def write_results(stem: Path, result: Grid) -> list[Path]:
    """Write STEM.md, .json, .csv and, where it can be drawn, .html; the files written.

    Args:
        stem: a path without a suffix.
        result: with the command that reproduces it.
    """
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("md", "json", "csv", "html")]
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(report(result) + "\n", encoding="utf-8")
    write_typed(paths[1], result)
    Table.of([_csv_row(point) for point in result.points]).write_csv(paths[2])
    if why_no_page():
        return paths[:3]
    write_page(paths[3], "The paper's grid against torchvision", list(_parts(result)))
    return paths


def report(result: Grid) -> str:
    """The result as Markdown."""
    parts = [_intro(result)]
    for table in (_points(result), _stages(result)):
        parts += [table.markdown(), *table.notes]
    return "\n\n".join([*parts, *_verdict(result), f"    {result.command}"])


def _intro(result: Grid) -> str:
    pairs = sorted({len(p.model.runs_ms["total"]) for p in result.points})
    first = result.first
    return (
        f"retinart on OpenVINO against {PEER}, from a decoded BGR frame to final boxes, batch 1, "
        f"in turn, real images: {len(first.images)} images x {first.repeats} repeats, "
        f"{' or '.join(map(str, pairs))} pairs a point, {first.threads} threads, "
        f"{first.machine.cpu}, OpenVINO {first.machine.versions.get('openvino')}. The peer is "
        f"{the_peer(first).what}; its NMS is a stand-in where its compiled operators do not load "
        "beside this PyTorch. Ratios are medians over pairs, with 95% intervals."
    )


def _points(result: Grid) -> Table:
    return Table(
        title="Points",
        head=[*_FIRST, "input", "torchvision ms (p90)", "ms (p90)", "ratio (95%)", "GMAC",
              "share of peak", "at the peak"],
        rows=[
            (
                *_name(p),
                f"{p.model.input[0]}x{p.model.input[1]}",
                _ms(p.peer.ms["total"]),
                _ms(p.model.ms["total"]),
                f"{p.ratio}{'' if p.reached else ' BELOW'}",
                f"{p.gmac:.1f}",
                f"{p.share_of_peak:.0%}",
                f"{p.ratio_at_peak:.2f}",
            )
            for p in result.points
        ],
        notes=[
            "Share of peak: the convolutions' arithmetic (GMAC, counted from the graph) in "
            "the time of infer, over the best that the machine did in a large matrix product: "
            f"{result.peaks}. At the peak: the ratio if infer reached it. FP32 can exceed "
            "it, as Winograd's algorithm multiplies less than is counted."
        ],
    )  # fmt: skip


def _stages(result: Grid) -> Table:
    return Table(
        title="Stages, median ms",
        head=[*_FIRST, *_STAGES, "MiB", "torchvision: resize", "network", "rest", "MiB", "boxes",
              "noise"],
        rows=[
            (
                *_name(p),
                *(f"{p.model.ms[stage].p50:.1f}" for stage in _STAGES),
                f"{p.model.peak_mib:.0f}",
                *(f"{p.peer.ms[stage].p50:.1f}" for stage in ("resize", "infer", "nms")),
                f"{p.peer.peak_mib:.0f}",
                f"{p.model.detections:.0f}",
                f"{p.scale.benchmark.noise:.0%}",
            )
            for p in result.points
        ],
        notes=[
            "Decoding is not in the totals. Boxes: detections an image. Noise: spread of the "
            "reference workload."
        ],
    )  # fmt: skip


def _verdict(result: Grid) -> Iterator[str]:
    """What the grid says, a sentence each."""
    for precision, reach in REACH.items():
        points = [p for p in result.points if p.model.precision == precision]
        if not points:
            continue
        ratios = [p.ratio.value for p in points]
        said = f"{precision.upper()}: {min(ratios):.2f} to {max(ratios):.2f} times as fast"
        below = [f"{p.scale.checkpoint} {p.scale.imgsz}" for p in points if not p.reached]
        if below:
            said += f"; below {reach:g} at {len(below)} of {len(points)} points: {', '.join(below)}"
        else:
            said += f"; at least {reach:g} at all {len(points)} points"
        yield f"{said}."
    noise = f"he reference workload varied by up to {result.noise:.0%}"
    if result.noise <= statistics.NOISY:
        yield f"T{noise}."
    else:
        yield (
            f"WARNING: t{noise}: the machine was not quiet. Ratios hold better than times and "
            "shares."
        )


def _parts(result: Grid) -> Iterator[Html]:
    """The page."""
    yield from paragraphs([_intro(result), *_verdict(result)])
    yield svg(_draw(result))
    for table in (_points(result), _stages(result)):
        yield from table_parts(table)
    yield element("h2", "Each scale")
    yield from paragraphs(
        [
            "Stages, limits, memory and every run, of one backbone at one scale. Shares of the "
            "peak are here of what was measured beside these runs."
        ]
    )
    yield from folded({scale.name: scale.benchmark for scale in result.timings})
    yield environment(result.command, result.first.machine)


def _draw(result: Grid) -> Any:
    """Ratios and shares over scales, a line for each backbone and precision."""
    figure = load_matplotlib().Figure(figsize=(11, 4.6))
    ratios, shares = figure.subplots(1, 2)
    lines: dict[tuple[str, str], list[GridPoint]] = {}
    for point in result.points:
        lines.setdefault((point.scale.checkpoint, point.model.precision), []).append(point)
    for i, ((backbone, precision), points) in enumerate(lines.items()):
        x, y = [p.scale.imgsz for p in points], [p.ratio.value for p in points]
        spread = [
            [p.ratio.value - p.ratio.low for p in points],
            [p.ratio.high - p.ratio.value for p in points],
        ]
        style: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "marker": "osD^"[i % 4]}
        ratios.errorbar(x, y, spread, label=f"{backbone} {precision}", capsize=3, **style)
        shares.plot(x, [100 * p.share_of_peak for p in points], **style)
    for reach in dict.fromkeys(REACH.values()):
        precision = next(p for p, value in REACH.items() if value == reach)
        ratios.axhline(reach, color=INK, linestyle="--", linewidth=1)
        ratios.annotate(f"{precision}: {reach:g}", (0, reach), (4, -11), fontsize=8, color=INK,
                        xycoords=("axes fraction", "data"),
                        textcoords="offset points")  # fmt: skip
    ratios.set_ylabel("ratio: times as fast as torchvision eager")
    shares.set_ylabel("share of the measured peak, %")
    for axes in (ratios, shares):
        axes.set_xlabel("shorter side")
        axes.set_xticks(sorted({scale.imgsz for scale in result.timings}))
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        axes.grid(alpha=0.2)
    ratios.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _csv_row(p: GridPoint) -> dict[str, object]:
    return {
        **dict(zip(_FIRST, _name(p), strict=True)),
        "height": p.model.input[0],
        "width": p.model.input[1],
        "pairs": len(p.model.runs_ms["total"]),
        **flat_ms(p.model.ms),
        **flat_ms(p.peer.ms, "peer_"),
        "ratio": p.ratio.value,
        "ratio_low": p.ratio.low,
        "ratio_high": p.ratio.high,
        "reached": p.reached,
        "gmac": p.gmac,
        "ms_at_peak": p.ms_at_peak,
        "share_of_peak": p.share_of_peak,
        "ratio_at_peak": p.ratio_at_peak,
        "boxes": p.model.detections,
        "peak_mib": p.model.peak_mib,
        "peer_peak_mib": p.peer.peak_mib,
        "noise": p.scale.benchmark.noise,
        "commit": p.scale.benchmark.machine.commit,
    }


def _name(p: GridPoint) -> tuple[str, int, str]:
    return p.scale.checkpoint, p.scale.imgsz, p.model.precision


def _ms(ms: Percentiles) -> str:
    return f"{ms.p50:.0f} ({ms.p90:.0f})"
