"""A curve as JSON, CSV and, with matplotlib, an HTML page, a PNG and an SVG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retinart.benchmarks.curve.references import RECALLED, SCALES, TABLE_1E
from retinart.benchmarks.curve.run import Curve, Point, fastest, is_pareto
from retinart.benchmarks.latency.report import ap_points, environment, folded
from retinart.benchmarks.latency.tables import about_peers, int8_is_slower, noise_text, shown
from retinart.benchmarks.timing.results import STAGES
from retinart.engine.common.files import atomic_path
from retinart.engine.common.html_page import (
    COLORS,
    INK,
    load_matplotlib,
    paint,
    paragraphs,
    svg,
    svg_text,
    table_parts,
    why_no_page,
    write_page,
)
from retinart.engine.common.markup import Html, element
from retinart.engine.common.table import Table
from retinart.engine.common.typed_json import write_typed

_MARKERS = "osD^vP"
_APART = (24, 13)  # pixels between labels, across and along, so that neither hides the other


def write_results(folder: Path, curve: Curve) -> list[Path]:
    """Write `curve.json`, `.csv` and, where they can be drawn, `report.html`, `curve.png`, `.svg`.

    Args:
        folder: where to.
        curve: with the command that reproduces it.

    Returns:
        The files written.
    """
    paths = [folder / "curve.json", folder / "curve.csv"]
    write_typed(paths[0], curve)
    Table.of([_csv_row(point, curve) for point in curve.points]).write_csv(paths[1])
    if why_no_page():
        return paths
    page, png, vector = (folder / n for n in ("report.html", "curve.png", "curve.svg"))
    write_page(page, "AP against latency", list(_parts(curve)))
    with atomic_path(vector) as temporary:
        temporary.write_text(svg_text(draw(curve, paper=False)), encoding="utf-8")
    figure = draw(curve, paper=False)
    paint(figure, "#202020")
    figure.tight_layout()
    with atomic_path(png) as temporary:
        figure.savefig(temporary, dpi=160, facecolor="white")
    return [*paths, page, png, vector]


def report(curve: Curve) -> str:
    """The points as Markdown; a star is on the Pareto front."""
    parts = []
    for table in (_points(curve), *_against_peers(curve)):
        parts += [table.markdown(), *table.notes]
    said = [_fastest(curve), *_remarks(curve), noise_text(curve.noise)]
    return "\n\n".join([*parts, "\n".join(said)])


def _points(curve: Curve) -> Table:
    return Table(
        title="Points",
        head=["checkpoint", "precision", "imgsz", "input", "AP", "AP50", "ms p50 / p90 / p99",
              "images/s", "GMAC", "share of peak", "Pareto"],
        rows=[
            (
                p.scale.checkpoint,
                p.model.precision,
                p.scale.imgsz,
                "x".join(map(str, p.model.input)),
                f"{100 * p.ap:.1f}",
                shown(p.model.ap50, ".1f", 100),
                p.model.ms["total"],
                f"{p.model.images_per_second:.2f}",
                shown(p.model.gmac, ".2f"),
                shown(p.model.share_of_peak, ".0%"),
                "*" if is_pareto(p, curve.points) else "",
            )
            for p in curve.points
        ],
    )  # fmt: skip


def _against_peers(curve: Curve) -> list[Table]:
    """A table against peers, where any were asked for."""
    benchmarks = [scale.benchmark for scale in curve.timings]
    names = list(dict.fromkeys(p.peer for b in benchmarks for p in b.peers))
    if not names:
        return []
    rows = [
        (
            p.scale.checkpoint,
            p.model.precision,
            p.scale.imgsz,
            f"{p.ms:.1f}",
            *(p.model.times_as_fast_as.get(name, "") for name in names),
        )
        for p in curve.points
    ]
    head = ["checkpoint", "precision", "imgsz", "ms p50", *names]
    title = "How many times as fast as the peers (95%)"
    return [Table(title=title, head=head, rows=rows, notes=about_peers(benchmarks))]


def _remarks(curve: Curve) -> list[str]:
    """At which commits the points were timed, and what was left out, where that has to be said."""
    benchmarks = [scale.benchmark for scale in curve.timings]
    commits = dict.fromkeys(str(b.machine.commit)[:12] for b in benchmarks)
    said = [f"Timed at several commits: {', '.join(commits)}."] if len(commits) > 1 else []
    said += [line for b in benchmarks for line in int8_is_slower(b.models)]
    if any(b.peers for b in benchmarks):  # then the table against them says what was left out
        return said
    return said + about_peers(benchmarks)


def draw(curve: Curve, *, paper: bool) -> Any:
    """A figure of matplotlib: the measured points.

    Args:
        curve: to draw.
        paper: put the paper's figures beside it; without them it is a picture for a README.
    """
    figure = load_matplotlib().Figure(figsize=(11, 5) if paper else (7, 4.4))
    if paper:
        ours, theirs = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_paper(theirs)
        ours.set_title("measured here", fontsize=10)
    else:
        ours = figure.add_subplot()
        ours.set_title(f"AP over {curve.images} images; {curve.machine.cpu}", fontsize=10)
    _draw_ours(ours, curve)
    for axes in figure.axes:
        axes.set_xlabel("ms an image")
        axes.set_ylabel("AP")
        axes.margins(0.12, 0.15)
        axes.grid(alpha=0.2)
        axes.legend(fontsize=8, frameon=False, loc="best")  # where it covers the least
    times = [point.ms for point in curve.points]
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


def _draw_ours(axes: Any, curve: Curve) -> None:
    """A line for each checkpoint and precision, and rings around Pareto points."""
    lines: dict[tuple[str, str], list[Point]] = {}
    for point in curve.points:
        key = (point.scale.checkpoint, point.model.precision)
        lines.setdefault(key, []).append(point)
    for i, ((checkpoint, precision), points) in enumerate(lines.items()):
        points = sorted(points, key=lambda p: p.scale.imgsz)
        x, y = [p.ms for p in points], [100 * p.ap for p in points]
        color = COLORS[i % len(COLORS)]
        axes.plot(x, y, color=color, marker=_MARKERS[i % len(_MARKERS)], markersize=5,
                  label=f"{checkpoint} {precision}")  # fmt: skip
    front = [p for p in curve.points if is_pareto(p, curve.points)]
    axes.scatter([p.ms for p in front], [100 * p.ap for p in front], s=110,
                 facecolors="none", edgecolors=INK, label="Pareto point")  # fmt: skip


def _label(axes: Any, curve: Curve) -> None:
    """Scales beside the points, Pareto points first, as far as they do not hide each other."""
    taken: list[tuple[float, float]] = []
    for point in sorted(curve.points, key=lambda p: not is_pareto(p, curve.points)):
        place = (point.ms, 100 * point.ap)
        x, y = axes.transData.transform(place)
        if all(abs(x - a) > _APART[0] or abs(y - b) > _APART[1] for a, b in taken):
            taken.append((x, y))
            axes.annotate(str(point.scale.imgsz), place, (7, -12), textcoords="offset points",
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


def _parts(curve: Curve) -> Iterator[Html]:
    """The page."""
    yield from paragraphs(
        [
            "AP on annotated images against ms an image from a decoded frame to final boxes; AP "
            f"over {curve.images} images."
        ]
    )
    yield element("p", element("b", _fastest(curve)))
    yield from paragraphs([*_remarks(curve), noise_text(curve.noise)])
    yield svg(draw(curve, paper=True))
    yield from paragraphs(
        [
            "Labels are shorter sides. A ring marks a Pareto point: no other is as fast and as "
            "good and better in one of the two. The paper's points are of another GPU and other "
            "images, so only the shapes compare."
        ]
    )
    yield from table_parts(_points(curve))
    yield from paragraphs(
        [
            "Share of peak: the convolutions' arithmetic (GMAC, counted from the graph) in the "
            "time of infer, over what the machine did in a large matrix product in the same "
            f"precision: {curve.peaks}."
        ]
    )
    for table in _against_peers(curve):
        yield from table_parts(table)
    yield element("h2", "Each scale")
    yield from paragraphs(
        [
            "Stages, limits, memory and every run, of one checkpoint at one scale; its precisions "
            "and peers took turns."
        ]
    )
    yield from folded({scale.name: scale.benchmark for scale in curve.timings})
    yield element("h2", "The paper's figures")
    yield from paragraphs(
        [
            "Lin et al. 2017, on COCO test-dev and an M40. The other detectors of Figure 2 are "
            "recalled from the paper and were not looked up."
        ]
    )
    paper = [
        (f"RetinaNet {backbone} {size}", f"{ap:.1f}", ms, "Table 1e")
        for backbone, values in TABLE_1E.items()
        for size, (ap, ms) in zip(SCALES, values, strict=True)
    ]
    paper += [(n, f"{ap:.1f}", ms, "Figure 2, recalled") for n, (ap, ms) in RECALLED.items()]
    yield Table(head=["", "AP", "ms", "from"], rows=paper).html()
    yield environment(curve.command, curve.machine)


def _fastest(curve: Curve) -> str:
    best, chosen = max(curve.points, key=lambda p: p.ap), fastest(curve.points)
    found = f"{chosen.name}, AP {100 * chosen.ap:.1f} in {chosen.ms:.1f} ms"
    if chosen == best:
        return f"Fastest within 1 AP of the best: the best itself, {found}."
    return (
        f"Fastest within 1 AP of the best: {found}; the best, {best.name}, has AP "
        f"{100 * best.ap:.1f} in {best.ms:.1f} ms."
    )


def _csv_row(point: Point, curve: Curve) -> dict[str, object]:
    scale, model = point.scale, point.model
    return {
        "checkpoint": scale.checkpoint,
        "imgsz": scale.imgsz,
        "precision": model.precision,
        "ap": ap_points(model.ap),
        "ap50": ap_points(model.ap50),
        "images_per_second": model.images_per_second,
        "gmac": model.gmac,
        "share_of_peak": model.share_of_peak,
        "noise": scale.benchmark.noise,
        "commit": scale.benchmark.machine.commit,
        "sha256": model.sha256,
        "pareto": is_pareto(point, curve.points),
        "height": model.input[0],
        "width": model.input[1],
        **{f"{p}_ms": ms for p, ms in asdict(model.ms["total"]).items()},
        **{f"{stage}_p50_ms": model.ms[stage].p50 for stage in STAGES[1:]},
    }
