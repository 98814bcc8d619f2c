"""The grid as Markdown, JSON, CSV and, with matplotlib, one HTML page."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from retinart.benchmarks.latency.report import (
    environment,
    folded,
    why_no_report,
    write_csv,
)
from retinart.benchmarks.latency.tables import peaks_text
from retinart.benchmarks.timing import statistics
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import (
    COLORS,
    INK,
    load_matplotlib,
    paragraphs,
    svg,
    write_page,
)
from retinart.engine.common.table import Table

_STAGES = ("decode", "resize", "infer", "nms", "results")


def write_results(stem: Path, result: dict[str, Any]) -> list[Path]:
    """Write STEM.md, .json, .csv and, where it can be drawn, .html; the files written.

    Args:
        stem: a path without a suffix.
        result: of `retinart.benchmarks.grid.__main__.summary`, with `command`.
    """
    texts = {".md": report(result) + "\n", ".json": json.dumps(result, indent=1) + "\n"}
    paths = [stem.with_name(stem.name + suffix) for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    paths.append(stem.with_name(f"{stem.name}.csv"))
    write_csv(paths[-1], [_row(point) for point in result["points"]])
    if not why_no_report():
        paths.append(stem.with_name(f"{stem.name}.html"))
        write_page(paths[-1], "The paper's grid against torchvision", _parts(result))
    return paths


def report(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    parts = [" ".join(_intro(result))]
    for found in _tables(result):
        parts.append(found.markdown())
        parts += found.notes
    return "\n\n".join([*parts, *_verdict(result), f"    {result['command']}"])


def _intro(result: dict[str, Any]) -> list[str]:
    pairs = sorted({p["pairs"] for p in result["points"]})
    versions = result["machine"]["versions"]
    return [
        f"{result['what']}: {len(result['images'])} images x {result['repeats']} repeats, "
        f"{' or '.join(map(str, pairs))} pairs a point, {result['threads']} threads, "
        f"{result['machine']['cpu']}, OpenVINO {versions.get('openvino')}.",
        f"The peer is {result['peer']}; its NMS is a stand-in where its compiled operators do not "
        "load beside this PyTorch.",
        "Ratios are medians over pairs, with 95% intervals.",
    ]


def _tables(result: dict[str, Any]) -> list[Table]:
    peaks = result["peak_gops"]
    rows, stages = [], []
    for p in result["points"]:
        ratio = statistics.Estimate(**p["ratio"])
        name = [p["backbone"], str(p["imgsz"]), p["precision"]]
        rows.append(
            [
                *name,
                f"{p['input'][0]}x{p['input'][1]}",
                _ms(p["peer_ms"]["total"]),
                _ms(p["ms"]["total"]),
                str(ratio) + ("" if p["reached"] else " BELOW"),
                f"{p['gmac']:.1f}",
                f"{p['share_of_peak']:.0%}",
                f"{p['ratio_at_peak']:.2f}",
            ]
        )
        stages.append(
            [
                *name,
                *(f"{p['ms'][stage]['p50']:.1f}" for stage in _STAGES),
                f"{p['peak_mib']:.0f}",
                *(f"{p['peer_ms'][stage]['p50']:.1f}" for stage in ("resize", "infer", "nms")),
                f"{p['peer_peak_mib']:.0f}",
                f"{p['boxes']:.0f}",
                f"{p['noise']:.0%}",
            ]
        )
    first = ["backbone", "imgsz", "precision"]
    return [
        Table(
            title="Points",
            head=[*first, "input", "torchvision ms (p90)", "ms (p90)", "ratio (95%)",
                  "GMAC", "share of peak", "at the peak"],
            rows=rows,
            notes=[
                "Share of peak: the convolutions' arithmetic (GMAC, counted from the graph) in "
                "the time of infer, over the best that the machine did in a large matrix product: "
                f"{peaks_text(peaks)}. At the peak: the ratio if infer reached it. FP32 can exceed "
                "it, as Winograd's algorithm multiplies less than is counted."
            ],
        ),
        Table(
            title="Stages, median ms",
            head=[*first, *_STAGES, "MiB", "torchvision: resize", "network", "rest", "MiB",
                  "boxes", "noise"],
            rows=stages,
            notes=[
                "Decoding is not in the totals. Boxes: detections an image. Noise: spread of the "
                "reference workload."
            ],
        ),
    ]  # fmt: skip


def _verdict(result: dict[str, Any]) -> list[str]:
    """What the grid says, a sentence each."""
    sentences = []
    for precision, reach in result["reach"].items():
        points = [p for p in result["points"] if p["precision"] == precision]
        if not points:
            continue
        ratios = [p["ratio"]["value"] for p in points]
        said = f"{precision.upper()}: {min(ratios):.2f} to {max(ratios):.2f} times as fast"
        below = [p for p in points if not p["reached"]]
        if below:
            names = ", ".join(f"{p['backbone']} {p['imgsz']}" for p in below)
            said += f"; below {reach:g} at {len(below)} of {len(points)} points: {names}"
        else:
            said += f"; at least {reach:g} at all {len(points)} points"
        sentences.append(f"{said}.")
    noise = f"The reference workload varied by up to {result['noise']:.0%}"
    if result["noise"] > statistics.NOISY:
        noise = (
            f"WARNING: {noise[0].lower()}{noise[1:]}: the machine was not quiet. Ratios hold "
            "better than times and shares"
        )
    return [*sentences, f"{noise}."]


def _parts(result: dict[str, Any]) -> list[str]:
    parts = paragraphs([" ".join(_intro(result)), *_verdict(result)])
    parts.append(svg(_draw(result)))
    for found in _tables(result):
        parts += [f"<h2>{html.escape(found.title)}</h2>", found.html()]
        parts += paragraphs(found.notes)
    if timings := result.get("timings"):
        parts.append(
            "<h2>Each scale</h2><p>Stages, limits, memory and every run, of one backbone at one "
            "scale. Shares of the peak are here of what was measured beside these runs.</p>"
        )
        parts += folded(timings, [f"{t['backbone']} at {t['imgsz']}" for t in timings])
    return [*parts, environment(result)]


def _draw(result: dict[str, Any]) -> Any:
    """Ratios and shares over scales, a line a backbone and precision."""
    figure = load_matplotlib().Figure(figsize=(11, 4.6))
    ratios, shares = figure.subplots(1, 2)
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for point in result["points"]:
        lines.setdefault((point["backbone"], point["precision"]), []).append(point)
    for i, ((backbone, precision), points) in enumerate(lines.items()):
        x = [p["imgsz"] for p in points]
        y = [p["ratio"]["value"] for p in points]
        spread = [
            [p["ratio"]["value"] - p["ratio"]["low"] for p in points],
            [p["ratio"]["high"] - p["ratio"]["value"] for p in points],
        ]
        style: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "marker": "osD^"[i % 4]}
        ratios.errorbar(x, y, spread, label=f"{backbone} {precision}", capsize=3, **style)
        shares.plot(x, [100 * p["share_of_peak"] for p in points], **style)
    for reach in dict.fromkeys(result["reach"].values()):
        precision = next(p for p, value in result["reach"].items() if value == reach)
        ratios.axhline(reach, color=INK, linestyle="--", linewidth=1)
        ratios.annotate(f"{precision}: {reach:g}", (0, reach), (4, -11), fontsize=8, color=INK,
                        xycoords=("axes fraction", "data"),
                        textcoords="offset points")  # fmt: skip
    ratios.set_ylabel("ratio: times as fast as torchvision eager")
    shares.set_ylabel("share of the measured peak, %")
    for axes in (ratios, shares):
        axes.set_xlabel("shorter side")
        axes.set_xticks(sorted({p["imgsz"] for p in result["points"]}))
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        axes.grid(alpha=0.2)
    ratios.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _row(point: dict[str, Any]) -> dict[str, Any]:
    """A point for a table of numbers: everything but its single runs."""
    row: dict[str, Any] = {}
    for key, value in point.items():
        if key in ("ms", "peer_ms"):
            who = key.removesuffix("ms")
            row |= {
                f"{who}{stage}_{p}_ms": ms
                for stage, times in value.items()
                for p, ms in times.items()
            }
        elif key == "ratio":
            row |= {"ratio": value["value"], "ratio_low": value["low"], "ratio_high": value["high"]}
        elif key == "input":
            row |= {"height": value[0], "width": value[1]}
        elif not key.endswith("runs_ms"):
            row[key] = value
    return row


def _ms(figures: dict[str, float]) -> str:
    return f"{figures['p50']:.0f} ({figures['p90']:.0f})"
