"""An HTML page on a calibration: accuracy, sensitivity by layer, ranges; one file, no network."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from retinart.calib.record import CalibrationRecord
from retinart.calib.tables import FIGURES
from retinart.engine.common.html_page import COLORS, load_matplotlib, svg, table, write_page
from retinart.engine.evaluation.evaluate import points

_COLUMNS = 4  # histograms side by side
_BARS = 128  # of a histogram; it is kept finer
_BAR, _MARK = COLORS[:2]


def write_report(path: Path, name: str, record: CalibrationRecord) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        name: of the model.
        record: what is shown.
    """
    kept = ", ".join(record.kept_float) or "none"
    parts = [
        f"<p>Ranges of {len(record.histograms)} tensors by <b>{record.method}</b> over "
        f"{record.images} images, input {record.input}. Layers left in float: {html.escape(kept)}."
        f"<br><code>network {record.network_sha256}<br>images {record.images_sha256}</code></p>",
    ]
    if record.accuracy:
        parts += ["<h2>Accuracy</h2>", _accuracy(record)]
    if record.sensitivity:
        parts += ["<h2>Sensitivity</h2>", _SENSITIVITY, _bars(record), _layers(record)]
    parts += ["<h2>Ranges</h2>", _RANGES, _histograms(record)]
    write_page(path, f"INT8 calibration of {name}", parts)


_SENSITIVITY = (
    "<p>Each layer alone in INT8, all others in FP32: the noise that it brings to the raw outputs, "
    "as a share of what they say (root of mean squared difference over variance).</p>"
)
_RANGES = (
    "<p>Magnitudes of every quantized tensor, zeros left out, on a logarithmic scale. Red is the "
    "threshold: what lies beyond it is clipped.</p>"
)


def _accuracy(record: CalibrationRecord) -> str:
    columns = record.accuracy
    first = next(iter(columns.values()))
    rows = [[name, *(points(a.figures[name]) for a in columns.values())] for name in FIGURES]
    rows += [
        [name, *(points(a.per_class[name]) for a in columns.values())] for name in first.per_class
    ]
    where = ", ".join(f"{name.upper()} on {a.runtime}" for name, a in columns.items())
    return (
        table(["", *(name.upper() for name in columns)], rows)
        + f"<p>AP in points over {first.images} images; {html.escape(where)}.</p>"
    )


def _layers(record: CalibrationRecord) -> str:
    rows = [
        [name, f"{error:.4f}", "float" if name in record.kept_float else "INT8"]
        for name, error in record.sensitivity.items()
    ]
    return (
        "<details><summary>As a table</summary>"
        + table(["layer", "noise/signal", "in the file"], rows)
        + "</details>"
    )


def _bars(record: CalibrationRecord) -> str:
    names, errors = list(record.sensitivity), list(record.sensitivity.values())
    figure = load_matplotlib().Figure(figsize=(10, 0.6 + 0.2 * len(names)))
    axes = figure.add_subplot()
    colors = [_MARK if name in record.kept_float else _BAR for name in names]
    axes.barh(range(len(names)), errors, color=colors)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("noise/signal at the raw outputs; red: left in float")
    return svg(figure)


def _histograms(record: CalibrationRecord) -> str:
    shown = {n: h for n, h in record.histograms.items() if h.peak > 0}
    rows = -(-len(shown) // _COLUMNS)
    figure = load_matplotlib().Figure(figsize=(12, 1.5 * rows))
    for number, (name, histogram) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        counts = histogram.counts.reshape(_BARS, -1).sum(axis=1)
        edges = np.linspace(0, histogram.upper, _BARS + 1)
        axes.stairs(np.log10(1 + counts), edges, fill=True, color=_BAR)
        axes.axvline(record.thresholds[name], color=_MARK, linewidth=1)
        axes.set_title(name, fontsize=7)
        axes.set_yticks([])
        axes.tick_params(labelsize=6)
    return svg(figure)
