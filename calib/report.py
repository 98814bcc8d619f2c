"""An HTML page about a calibration: accuracy, sensitivity by layer, ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retinart.calib.record import CalibrationRecord
from retinart.calib.tables import accuracy_table, sensitivity_table
from retinart.engine.common.html_page import (
    COLORS,
    details,
    load_matplotlib,
    paragraphs,
    svg,
    write_page,
)
from retinart.engine.common.markup import Html, element

_COLUMNS = 4  # histograms side by side
_BARS = 128  # of a histogram, which has more bins
_BAR, _MARK = COLORS[:2]


def write_report(path: Path, name: str, record: CalibrationRecord) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        name: of the model.
        record: of the calibration.
    """
    kept = ", ".join(record.kept_float) or "none"
    parts = [
        element(
            "p",
            f"Ranges of {len(record.histograms)} tensors by {record.method} over {record.images} "
            f"images, input {record.input}. Layers left in float: {kept}.",
        ),
        element("p", element("code", f"network {record.network_sha256}")),
        element("p", element("code", f"images {record.images_sha256}")),
    ]
    if record.accuracy:
        table = accuracy_table(record.accuracy)
        parts += [element("h2", "Accuracy"), table.html(), *paragraphs(table.notes)]
    if record.sensitivity:
        layers = details("As a table", [sensitivity_table(record).html()])
        parts += [element("h2", "Sensitivity"), *paragraphs([_SENSITIVITY]), _bars(record), layers]
    parts += [element("h2", "Ranges"), *paragraphs([_RANGES]), _histograms(record)]
    write_page(path, f"INT8 calibration of {name}", parts)


_SENSITIVITY = (
    "Each layer alone in INT8, all others in FP32: the noise at the raw outputs, as a share of "
    "the signal (root of the mean squared difference over the variance)."
)
_RANGES = (
    "Magnitudes of every quantized tensor, zeros left out, on a logarithmic scale. The red line "
    "is the threshold: values beyond it are clipped."
)


def _bars(record: CalibrationRecord) -> Html:
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


def _histograms(record: CalibrationRecord) -> Html:
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
