"""What quantization did to a model, as text for people."""

from __future__ import annotations

from collections.abc import Mapping

from retinart.calib.accuracy import Accuracy
from retinart.calib.record import CalibrationRecord
from retinart.engine.evaluation.evaluate import points

SHOWN = 10  # layers, the most sensitive ones
FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def accuracy_table(accuracy: Mapping[str, Accuracy]) -> str:
    """AP of each precision side by side: by size, then by class; "" when nothing was measured."""
    if not accuracy:
        return ""
    rows = [(name, [a.figures[name] for a in accuracy.values()]) for name in FIGURES]
    first = next(iter(accuracy.values()))
    rows += [(name, [a.per_class[name] for a in accuracy.values()]) for name in first.per_class]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':<{width}}  " + "  ".join(f"{name.upper():>5}" for name in accuracy)]
    for name, values in rows:
        lines.append(f"{name:<{width}}  " + "  ".join(map(points, values)))
    where = ", ".join(f"{name.upper()} on {a.runtime}" for name, a in accuracy.items())
    return "\n".join([*lines, f"AP in points over {first.images} images; {where}"])


def sensitivity_table(record: CalibrationRecord) -> str:
    """The layers that lose most when they alone are INT8; "" when that was not measured."""
    shown = list(record.sensitivity.items())[:SHOWN]
    if not shown:
        return ""
    width = max(len(name) for name, _ in shown)
    lines = [f"{'layer alone in INT8':<{width}}  noise/signal at the raw outputs"]
    lines += [
        f"{name:<{width}}  {error:.4f}{'  (in float)' * (name in record.kept_float)}"
        for name, error in shown
    ]
    more = len(record.sensitivity) - len(shown)
    return "\n".join([*lines, f"and {more} more"] if more else lines)
