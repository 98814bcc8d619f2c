"""What quantization did to a model, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from retinart.calib.accuracy import Accuracy
from retinart.calib.record import CalibrationRecord
from retinart.engine.common.table import Table
from retinart.engine.evaluation.evaluate import points

_FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def accuracy_table(accuracy: Mapping[str, Accuracy]) -> Table:
    """AP of each precision side by side: by size, then by class.

    Args:
        accuracy: by the name of the precision, at least one.
    """
    columns = list(accuracy.values())
    rows = [(name, *(points(a.figures[name]) for a in columns)) for name in _FIGURES]
    rows += [(name, *(points(a.per_class[name]) for a in columns)) for name in columns[0].per_class]
    where = ", ".join(f"{name.upper()} on {a.runtime}" for name, a in accuracy.items())
    return Table(
        head=("", *(name.upper() for name in accuracy)),
        rows=rows,
        notes=[
            f"AP in points over {columns[0].images} images; {where}.",
            *(f"{n.upper()}: AP {a.change}." for n, a in accuracy.items() if a.change is not None),
        ],
    )


def sensitivity_table(record: CalibrationRecord, most: int | None = None) -> Table:
    """The noise of each layer when it alone is INT8, the most sensitive layers first.

    Args:
        record: with a sensitivity that was measured.
        most: layers to show; None shows all.
    """
    kind = record.precision.upper()
    rows = [
        (name, f"{error:.4f}", "float" if name in record.kept_float else kind)
        for name, error in record.sensitivity.items()
    ]
    left = 0 if most is None else len(rows) - most
    return Table(
        head=("layer", "noise/signal", "in the file"),
        rows=rows[:most],
        notes=[f"and {left} more"] if left > 0 else (),
    )


def signal_table(record: CalibrationRecord) -> Table:
    """The signal to noise at the raw outputs: a row for each level, a column for each head."""
    found = record.signal_to_noise

    def shown(name: str) -> str:
        value = found[name]
        return "exact" if value is None else f"{value:.1f}"

    levels = [name.removeprefix("logits_") for name in found if name.startswith("logits_")]
    return Table(
        head=("level", "classes, dB", "boxes, dB"),
        rows=[
            (level.upper(), shown(f"logits_{level}"), shown(f"deltas_{level}")) for level in levels
        ],
        notes=[
            f"Signal to noise of {record.precision.upper()} against FP32 at the raw outputs, on at "
            "most four images."
        ],
    )
