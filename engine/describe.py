"""Describe a model file, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.engine.common.cpu import instruction_sets, int8_text
from retinart.engine.common.files import sha256
from retinart.engine.common.table import Table
from retinart.engine.model.info import INPUT, ModelInfo, read_info
from retinart.engine.model.variant import Variant
from retinart.engine.tensorrt.engine_file import EngineInfo, is_engine, read_engine_info


def describe_model(path: Path) -> dict[str, Any]:
    """All metadata of an exported file or an engine, as plain JSON types.

    Raises:
        BadInput: see `read_info`.
    """
    info = read_engine_info(path) if is_engine(path) else read_info(path)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        **json.loads(info.to_json()),
    }


def _dropped(info: ModelInfo) -> list[tuple[str, str]]:
    if not info.dropped_classes:
        return []
    ids = ", ".join(map(str, info.dropped_classes))
    return [("left out", f"{len(info.dropped_classes)} of the classes: {ids}")]


def model_table(path: Path) -> str:
    """The metadata as a text table of two columns."""
    engine = read_engine_info(path) if is_engine(path) else None
    info = engine.model if engine else read_info(path)
    rows = [
        ("model", f"{info.name}, {path.stat().st_size / 1e6:.1f} MB, {info.precision}"),
        ("backbone", f"{info.variant.backbone}, conventions of {info.variant.source}"),
        ("classes", class_text(info.classes)),
        *_dropped(info),
        ("input", f"{INPUT}: uint8 (batch, {_size(info)}, 3), BGR"),
        ("resize", _resize(info)),
        ("score above", f"{info.thresholds.score_thresh}"),
        ("NMS IoU above", f"{info.thresholds.nms_thresh}"),
        ("detections", f"at most {info.thresholds.detections_per_img} an image"),
        (
            "candidates",
            f"{info.thresholds.topk_candidates} anchors a level, "
            f"{info.thresholds.nms_candidates} (anchor, class) pairs into NMS",
        ),
    ]
    if info.probe is not None:
        values = sum(map(len, info.probe.raw.values()))
        found = f"{values} values, {len(info.probe.detections)} detections"
        rows.append(("self-test", f"{found}; `retinart check` runs it"))
    rows += _engine_rows(engine) if engine else []
    if engine is None and info.precision.startswith("int8"):
        rows.append(("on this CPU", int8_text(instruction_sets())))
    rows += variant_rows(info.variant)
    rows += [(k, _plain(v)) for k, v in info.provenance.items()]
    return Table(rows=rows, words=2).text()


def class_text(classes: Sequence[str]) -> str:
    """How many classes there are, and the names of the first few."""
    return f"{len(classes)}: {', '.join(classes[:6])}{', ...' if len(classes) > 6 else ''}"


def variant_rows(variant: Variant) -> list[tuple[str, str]]:
    """The fields of a model's variant and their values. `retinart export --set` takes these.

    A file has more class names than its class head has classes where some classes are left out.
    """
    rows = {k: str(v) for k, v in variant.to_dict().items() if k != "source"}
    names = {"num_classes": "classes of the class head"}
    return [(f"  {names.get(k, k)}", v) for k, v in rows.items()]


def _engine_rows(engine: EngineInfo) -> list[tuple[str, str]]:
    on = f"{engine.gpu}, compute capability {engine.compute_capability}"
    frames = " to ".join("x".join(map(str, shape[:3])) for shape in engine.profile)
    compatible = [
        text
        for text, yes in (
            ("other versions", engine.version_compatible),
            ("other GPUs", engine.hardware_compatible),
        )
        if yes
    ]
    rows = [
        ("engine of", f"{engine.runtime} {engine.version}"),
        ("built on", on if engine.gpu else "a CPU, for GPUs from Ampere on"),
        ("frames", f"{frames} (batch, height, width): smallest, optimal, largest"),
        ("NMS", engine.nms),
        ("rebuild with", engine.rebuild),
    ]
    return rows + ([("also runs on", ", ".join(compatible))] if compatible else [])


def _size(info: ModelInfo) -> str:
    canvas = info.resize.canvas
    return input_text(info) if canvas is None else f"{canvas[0]}, {canvas[1]}"


def input_text(info: ModelInfo) -> str:
    """The height and width of a model's input, or their limits."""
    if info.resize.canvas is not None:
        return f"height {info.resize.canvas[0]}, width {info.resize.canvas[1]}"
    (h0, w0), (h1, w1) = info.min_size, info.max_size
    return f"height {h0} to {h1}, width {w0} to {w1}"


def _resize(info: ModelInfo) -> str:
    rule, parts = info.resize, []
    if rule.short_side is not None:
        parts.append(f"shorter side to {rule.short_side}")
    if rule.max_size is not None:
        parts.append(f"longer side to {rule.max_size} at most")
    if rule.canvas is not None:
        parts.append(f"inside of {rule.canvas[0]}x{rule.canvas[1]}")
    parts.append(f"sides rounded by {rule.size_rounding}")
    return (
        f"{', '.join(parts)}; bilinear as in {rule.interpolation}; "
        f"padded right and bottom with BGR {rule.pad_value}"
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
