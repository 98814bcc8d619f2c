"""A curve as JSON, CSV and, with matplotlib, an HTML page, a PNG and an SVG."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.benchmarks.curve.references import RECALLED, SCALES, TABLE_1E
from retinart.benchmarks.curve.run import name
from retinart.benchmarks.latency.report import (
    environment,
    folded,
    why_no_report,
    write_csv,
)
from retinart.benchmarks.latency.tables import about_peers, estimate, noise_text, peaks_text
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import (
    COLORS,
    INK,
    load_matplotlib,
    paint,
    paragraphs,
    svg,
    svg_text,
    write_page,
)
from retinart.engine.common.table import Table

_MARKERS = "osD^vP"
_APART = (24, 13)  # pixels between labels, across and along, so that neither hides the other
_HEAD = (
    "checkpoint", "precision", "imgsz", "input", "AP", "AP50", "ms p50 / p90 / p99", "images/s",
    "GMAC", "share of peak", "Pareto",
)  # fmt: skip


def write_results(folder: Path, curve: dict[str, Any]) -> list[Path]:
    """Write `curve.json`, `.csv` and, where they can be drawn, `report.html`, `curve.png`, `.svg`.

    Args:
        folder: where to.
        curve: of `measure_curve`, with `command` that reproduces it.

    Returns:
        The files written.
    """
    paths = [folder / "curve.json", folder / "curve.csv"]
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    write_csv(paths[1], [_row(point) for point in curve["points"]])
    if why_no_report():
        return paths
    page, png, vector = (folder / n for n in ("report.html", "curve.png", "curve.svg"))
    write_page(page, "AP against latency", _parts(curve))
    with atomic_path(vector) as temporary:
        temporary.write_text(svg_text(draw(curve, paper=False)), encoding="utf-8")
    figure = draw(curve, paper=False)
    paint(figure, "#202020")
    figure.tight_layout()
    with atomic_path(png) as temporary:
        figure.savefig(temporary, dpi=160, facecolor="white")
    return [*paths, page, png, vector]


def report(curve: dict[str, Any]) -> str:
    """The points as Markdown; a star is on the Pareto front."""
    parts = []
    for found in (_points(curve), *_against_peers(curve)):
        parts += [found.markdown(), *found.notes]
    said = [_fastest(curve), *_commits(curve), noise_text(curve["noise"])]
    return "\n\n".join([*parts, "\n".join(said)])


def _points(curve: dict[str, Any]) -> Table:
    return Table(title="Points", head=_HEAD, rows=[_cells(point) for point in curve["points"]])


def _against_peers(curve: dict[str, Any]) -> list[Table]:
    """A table against peers, where any were asked for."""
    timings = curve.get("timings", [])  # curves of version 0.1.0 had none
    names = list(dict.fromkeys(p["peer"] for t in timings for p in t["peers"]))
    about = about_peers(timings)
    if not about:
        return []
    rows = [
        [
            t["checkpoint"],
            m["precision"],
            str(t["imgsz"]),
            f"{m['ms']['total']['p50']:.1f}",
            *(estimate(m["times_as_fast_as"].get(name)) for name in names),
        ]
        for t in timings
        for m in t["models"]
    ]
    return [
        Table(
            title="How many times as fast as the peers (95%)",
            head=["checkpoint", "precision", "imgsz", "ms p50", *names],
            rows=rows,
            notes=about,
        )
    ]


def _commits(curve: dict[str, Any]) -> list[str]:
    """A sentence where points were taken over that another version of the code was timed for."""
    commits = dict.fromkeys(str(point["commit"])[:12] for point in curve["points"])
    return [f"Timed at several commits: {', '.join(commits)}."] if len(commits) > 1 else []


def draw(curve: dict[str, Any], *, paper: bool) -> Any:
    """A figure of matplotlib: what was measured.

    Args:
        curve: of `measure_curve`.
        paper: put the paper's figures beside it; without them it is a picture for a README.
    """
    figure = load_matplotlib().Figure(figsize=(11, 5) if paper else (7, 4.4))
    if paper:
        ours, theirs = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_paper(theirs)
        ours.set_title("measured here", fontsize=10)
    else:
        ours = figure.add_subplot()
        title = f"AP over {curve['images']} images; {curve['machine']['cpu']}"
        ours.set_title(title, fontsize=10)
    _draw_ours(ours, curve)
    for axes in figure.axes:
        axes.set_xlabel("ms an image")
        axes.set_ylabel("AP")
        axes.margins(0.12, 0.15)
        axes.grid(alpha=0.2)
        place = "lower right" if axes is ours else "upper left"
        axes.legend(fontsize=8, frameon=False, loc=place)
    times = [point["ms"]["p50"] for point in curve["points"]]
    if max(times) > 6 * min(times):  # lines of small models would lie on each other
        ours.set_xscale("log")
        low, high = ours.get_xlim()
        ticks = [m * 10**e for e in range(-3, 6) for m in (1, 2, 5) if low < m * 10**e < high]
        ours.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ours.set_xticks([], minor=True)
    else:
        ours.set_xlim(left=0)
    low, high = ours.get_ylim()
    if high - low < 2:  # so that a tenth of a point does not look like much
        ours.set_ylim((low + high) / 2 - 1, (low + high) / 2 + 1)
    _label(ours, curve)
    return figure


def _draw_ours(axes: Any, curve: dict[str, Any]) -> None:
    """A line a checkpoint and precision, and rings around Pareto points."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for point in curve["points"]:
        lines.setdefault((point["checkpoint"], point["precision"]), []).append(point)
    for i, ((checkpoint, precision), points) in enumerate(lines.items()):
        points = sorted(points, key=lambda p: int(p["imgsz"]))
        x, y = [p["ms"]["p50"] for p in points], [100 * p["ap"] for p in points]
        color = COLORS[i % len(COLORS)]
        axes.plot(x, y, color=color, marker=_MARKERS[i % len(_MARKERS)], markersize=5,
                  label=f"{checkpoint} {precision}")  # fmt: skip
    front = [p for p in curve["points"] if p["pareto"]]
    axes.scatter([p["ms"]["p50"] for p in front], [100 * p["ap"] for p in front], s=110,
                 facecolors="none", edgecolors=INK, label="Pareto point")  # fmt: skip


def _label(axes: Any, curve: dict[str, Any]) -> None:
    """Scales beside the points, Pareto points first, as far as they do not hide each other."""
    taken: list[tuple[float, float]] = []
    for point in sorted(curve["points"], key=lambda p: not p["pareto"]):
        place = (point["ms"]["p50"], 100 * point["ap"])
        x, y = axes.transData.transform(place)
        if all(abs(x - a) > _APART[0] or abs(y - b) > _APART[1] for a, b in taken):
            taken.append((x, y))
            axes.annotate(str(point["imgsz"]), place, (7, -12), textcoords="offset points",
                          fontsize=8, color=INK)  # fmt: skip


def _draw_paper(axes: Any) -> None:
    """Table 1e and the other detectors of Figure 2."""
    for (backbone, values), color in zip(TABLE_1E.items(), COLORS, strict=False):
        axes.plot([ms for _, ms in values], [ap for ap, _ in values], color=color, marker="o",
                  markersize=4, label=f"RetinaNet {backbone}, Table 1e")  # fmt: skip
    axes.scatter([ms for _, ms in RECALLED.values()], [ap for ap, _ in RECALLED.values()],
                 color=COLORS[4], marker="x", s=25, label="others, recalled")  # fmt: skip
    for i, (label, (ap, ms)) in enumerate(RECALLED.items()):
        above = (0, 6 if i % 2 else -12)  # two of them stand close to each other
        axes.annotate(label, (ms, ap), above, textcoords="offset points", fontsize=7,
                      color=COLORS[4], ha="center")  # fmt: skip
    axes.set_title("the paper: M40, COCO test-dev", fontsize=10)


def _parts(curve: dict[str, Any]) -> list[str]:
    paper = [
        [f"RetinaNet {backbone} {size}", f"{ap:.1f}", str(ms), "Table 1e"]
        for backbone, values in TABLE_1E.items()
        for size, (ap, ms) in zip(SCALES, values, strict=True)
    ]
    paper += [[n, f"{ap:.1f}", str(ms), "Figure 2, recalled"] for n, (ap, ms) in RECALLED.items()]
    points, timings = _points(curve), curve.get("timings", [])
    against = []
    for found in _against_peers(curve):
        against += [f"<h2>{html.escape(found.title)}</h2>", found.html()]
        against += paragraphs(found.notes)
    return [
        f"<p>{html.escape(curve['what'])}; AP over {curve['images']} images.</p>",
        f"<p><b>{html.escape(_fastest(curve))}</b></p>",
        *paragraphs(_commits(curve)),
        *paragraphs([noise_text(curve["noise"])]),
        svg(draw(curve, paper=True)),
        "<p>Labels are shorter sides. A ring marks a Pareto point: no other is as fast and as good "
        "and better in one of the two. The paper's points are of another GPU and other images, so "
        "only the shapes compare.</p>",
        "<h2>Points</h2>",
        points.html(),
        "<p>Share of peak: the convolutions' arithmetic (GMAC, counted from the graph) in the time "
        "of infer, over what the machine did in a large matrix product in the same precision"
        f"{_peaks(timings)}.</p>",
        *against,
        *_each_timing(timings),
        "<h2>The paper's figures</h2><p>Lin et al. 2017, on COCO test-dev and an M40. The other "
        "detectors of Figure 2 are recalled from the paper and were not looked up.</p>",
        Table(head=["", "AP", "ms", "from"], rows=paper).html(),
        environment(curve),
    ]


def _peaks(timings: Sequence[dict[str, Any]]) -> str:
    """The best peaks of all timings, for the end of a sentence."""
    limits = [t["peak_gops"] for t in timings]
    if not limits:
        return ""
    return ": " + peaks_text({kind: max(p[kind] or 0 for p in limits) for kind in limits[0]})


def _each_timing(timings: Sequence[dict[str, Any]]) -> list[str]:
    if not timings:
        return []
    names = [f"{t['checkpoint']} at {t['imgsz']}" for t in timings]
    return [
        "<h2>Each scale</h2><p>Stages, limits, memory and every run, of one checkpoint at one "
        "scale; its precisions and peers took turns.</p>",
        *folded(timings, names),
    ]


def _fastest(curve: dict[str, Any]) -> str:
    best = max(curve["points"], key=lambda p: float(p["ap"]))
    chosen = next(p for p in curve["points"] if name(p) == curve["fastest_within_1_ap"])
    return (
        f"Fastest within 1 AP of the best: {name(chosen)}, AP {100 * chosen['ap']:.1f} in "
        f"{chosen['ms']['p50']:.1f} ms; the best, {name(best)}, has AP {100 * best['ap']:.1f} in "
        f"{best['ms']['p50']:.1f} ms."
    )


def _cells(point: dict[str, Any]) -> list[str]:
    return [
        point["checkpoint"],
        point["precision"],
        str(point["imgsz"]),
        "x".join(map(str, point["input"])),
        f"{100 * point['ap']:.1f}",
        f"{100 * point['ap50']:.1f}",
        " / ".join(f"{ms:.1f}" for ms in point["ms"].values()),
        f"{point['images_per_second']:.2f}",
        f"{point['gmac']:.2f}",
        f"{point['share_of_peak']:.0%}",
        "*" if point["pareto"] else "",
    ]


def _row(point: dict[str, Any]) -> dict[str, Any]:
    height, width = point["input"]
    times = {f"{p}_ms": ms for p, ms in point["ms"].items()}
    stages = {f"{stage}_p50_ms": ms for stage, ms in point.get("stages", {}).items()}
    rest = {k: v for k, v in point.items() if k not in ("ms", "input", "stages")}
    return {**rest, "height": height, "width": width, **times, **stages}
