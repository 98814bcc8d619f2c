"""What a model file says about itself: one JSON object under one key of the ONNX metadata.

Every part reads a model file through `read_info` before a runtime sees it. It also checks the graph
and that the metadata agree with it. A few lines that read protobuf's wire format do without a
library, so `retinart inspect` needs no package.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from itertools import accumulate
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal

from retinart.engine.common.bounded_reading import MIB, parse_json, read_bytes
from retinart.engine.common.typed_json import from_json
from retinart.engine.errors import BadInput
from retinart.engine.model.levels import LEVEL_STRIDES, grid_sizes
from retinart.engine.model.onnx_bytes import graph_sha256
from retinart.engine.model.onnx_graph import FLOAT8, FLOAT16, Graph, read_file, read_graph
from retinart.engine.model.probe import Probe
from retinart.engine.model.resize_rule import SIDES, ResizeRule, round_up
from retinart.engine.model.variant import Variant

METADATA_KEY = "retinart"
NCHW_FLOAT_KEY = "retinart-nchw-float"  # of the form that `retinart.export.nchw_float` makes
MAX_TOPK = 3840  # the most that TensorRT's TopK gives
_MOST = 2048 * MIB  # of an ONNX file: protobuf's limit
_MOST_TEXT = 8 * MIB  # of the metadata
_ZIP_HEAD = 512  # bytes that hold the name of an archive's first part
_MOST_PIXELS = 1 << 25  # of a probe's picture

# Precision of the network's layers. An INT8 or FP8 file has a float part: FP32, or FP16 after "+".
Precision = Literal["fp32", "fp16", "int8", "int8+fp16", "fp8", "fp8+fp16"]
Compute = Literal["fp32", "fp32-direct", "bf16"]
COMPUTE: tuple[Compute, ...] = ("fp32", "fp32-direct", "bf16")

INPUT = "frames"
OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
# The normalised image (N, 3, H, W), where the network begins.
NORMALIZED = "normalized"
# Raw outputs of the network, P3 to P7: (N, A * K, Hi, Wi) and (N, A * 4, Hi, Wi).
HEADS = tuple(f"{kind}_p{level}" for kind in ("logits", "deltas") for level in range(3, 8))
# Where the network ends and NMS begins: a runtime may cut here and do NMS in the way it does best.
CANDIDATES = ("candidate_boxes", "candidate_scores")

REEXPORT = "Make the file again with `retinart export CHECKPOINT -o model.onnx`"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What counts as a detection.

    Attributes:
        score_thresh: candidates must score higher than this.
        nms_thresh: of two boxes of a class with an IoU above this, the better one stays.
        detections_per_img: most detections of an image, M.
        topk_candidates: most anchors that a level contributes.
        nms_candidates: most (anchor, class) pairs that enter NMS, over all levels. By default each
            level may fill its share.
    """

    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    detections_per_img: int = 100
    topk_candidates: int = 1000
    nms_candidates: int = 5000

    def __post_init__(self) -> None:
        for name in ("score_thresh", "nms_thresh"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise BadInput(f"`{name}` is {value}", fix="Give a value from 0 to 1")
        for name, limit in (
            ("topk_candidates", MAX_TOPK),
            ("nms_candidates", len(LEVEL_STRIDES) * MAX_TOPK),
            ("detections_per_img", self.nms_candidates),
        ):
            value = getattr(self, name)
            whole = isinstance(value, Integral)
            if not whole or not 1 <= value <= limit:
                raise BadInput(f"`{name}` is {value}", fix=f"Give a whole number from 1 to {limit}")

    def with_changes(
        self, *, conf: float | None, iou: float | None, max_det: int | None
    ) -> Thresholds:
        """The same with another score, IoU or number of detections; None changes nothing."""
        given = {"score_thresh": conf, "nms_thresh": iou, "detections_per_img": max_det}
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Everything that a runtime, a user or a later step must know about an exported model.

    Attributes:
        name: the model's name, for people.
        classes: the class names; `class_id` indexes them.
        precision: of the network's layers.
        variant: see `Variant`.
        resize: how images become frames. Its canvas is the input's (height, width), or None if
            these are dynamic.
        min_size, max_size: smallest and largest (height, width) of the input.
        thresholds: the ones in the graph's NMS.
        provenance: hashes, versions and settings that the file was made from.
        probe: what the network answers to a picture; None in files of earlier versions.
        dropped_classes: indices of `classes`, rising, for which the network has no channels.
    """

    name: str
    classes: tuple[str, ...]
    precision: Precision
    variant: Variant
    resize: ResizeRule
    min_size: tuple[int, int]
    max_size: tuple[int, int]
    thresholds: Thresholds
    provenance: dict[str, Any] = field(default_factory=dict)
    probe: Probe | None = None
    dropped_classes: tuple[int, ...] = ()

    SCHEMA: ClassVar[int] = 2  # 1: 2000 pairs into NMS, with the same fields
    AGAIN: ClassVar[str] = REEXPORT

    def __post_init__(self) -> None:
        if len(self.classes) != self.variant.num_classes + len(self.dropped_classes):
            left_out = f" and leaves out {len(self.dropped_classes)}" * bool(self.dropped_classes)
            raise BadInput(
                f"{self.name} has {len(self.classes)} class names",
                why=f"its network has {self.variant.num_classes} classes{left_out}",
                fix="Export it again with one name for each class",
            )
        if sorted(set(self.dropped_classes).intersection(range(len(self.classes)))) != list(
            self.dropped_classes
        ):
            raise ValueError(f"its dropped classes are {self.dropped_classes}")

        low, high, canvas = self.min_size, self.max_size, self.resize.canvas
        if not all(a in SIDES and b in SIDES and a <= b for a, b in zip(low, high, strict=True)):
            raise ValueError(f"its sizes are {low} to {high}")
        if canvas is not None and not low == high == canvas:
            raise ValueError(f"its canvas is {canvas}, and its sizes are {low} to {high}")
        if canvas is None and self.resize.max_size is None:
            raise ValueError("neither a canvas nor a longest side limits an image's size")
        if self.probe is not None:
            self._check_probe(self.probe)

    def _check_probe(self, probe: Probe) -> None:
        if set(probe.raw) != set(HEADS):
            raise ValueError(f"its probe is of {', '.join(sorted(probe.raw)[:4])}")
        rows = (*probe.candidates, *probe.detections)
        if not all(0 <= row[5] < len(self.classes) and row[5] % 1 == 0 for row in rows):
            raise ValueError("its probe holds a class that has no name")
        height, width = probe.size
        if height not in SIDES or width not in SIDES or height * width > _MOST_PIXELS:
            raise ValueError(f"its probe's picture has the size {probe.size}")

    @property
    def dynamic(self) -> bool:
        """Whether the input's height and width may vary within the profile."""
        return self.resize.canvas is None

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The class of each of the network's K channels, as an index of `classes`."""
        dropped = set(self.dropped_classes)
        return tuple(i for i in range(len(self.classes)) if i not in dropped)

    @property
    def level_candidates(self) -> tuple[int, ...]:
        """Anchors that each of P3 to P7 passes on; levels of a dynamic input are filled up."""
        return tuple(min(self.thresholds.topk_candidates, n) for n in self._level_anchors)

    @property
    def cut_levels(self) -> tuple[slice, ...]:
        """Where the anchors of those levels are among all, that have more than they pass on."""
        ends = list(accumulate(self.level_candidates))
        return tuple(
            slice(end - kept, end)
            for end, kept, n in zip(ends, self.level_candidates, self._level_anchors, strict=True)
            if kept < n
        )

    @property
    def _level_anchors(self) -> list[int]:
        return [self.variant.num_anchors * h * w for h, w in grid_sizes(*self.max_size)]

    def at_imgsz(self, imgsz: int) -> ModelInfo:
        """The same with images resized to another shorter side, within the file's sizes.

        Raises:
            BadInput: the input has a fixed size, or its sizes do not reach as far.
        """
        rule = self.resize
        if rule.short_side is None or rule.max_size is None or rule.canvas is not None:
            raise BadInput(
                f"{self.name} has a fixed input size",
                why=f"it takes {rule.canvas[0]}x{rule.canvas[1]} only" if rule.canvas else "",
                fix="Export it with `retinart export --dynamic`, or leave `imgsz` out",
            )
        longest = int(imgsz * rule.max_size / rule.short_side)
        low, high = min(self.min_size), max(self.max_size)
        if not low <= imgsz or round_up(longest, rule.pad_multiple) > high:
            raise BadInput(
                f"{self.name} cannot take images with a shorter side of {imgsz}",
                why=f"its sides are {low} to {high}, and the longer one may need {longest}",
                fix=f"Export it with `retinart export --dynamic --imgsz {imgsz}`",
            )
        return replace(self, resize=replace(rule, short_side=imgsz, max_size=longest))

    @property
    def preprocessing_sha256(self) -> str:
        """A hash of everything that turns an image into the network's input."""
        v = self.variant
        rule = asdict(self.resize)
        for f in fields(ResizeRule):  # a field at its default is left out, as in older files
            if f.default is not MISSING and rule[f.name] == f.default:
                del rule[f.name]
        content = [rule, v.mean, v.std, v.channel_order]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The text under METADATA_KEY."""
        return json.dumps({"schema": self.SCHEMA, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str, name: str) -> ModelInfo:
        """Read what `to_json` wrote; `name` is the file's, for errors."""
        what = f"the metadata of {name}"
        try:
            return cls.from_data(parse_json(text), what)
        except ValueError as error:
            raise BadInput(f"{what} is damaged", why=str(error), fix=REEXPORT) from error

    @classmethod
    def from_data(cls, data: object, what: str) -> ModelInfo:
        """As `from_json`, of values that were read already; `what` begins an error."""
        if isinstance(data, dict) and data.get("schema") == 1:
            data = {**data, "schema": cls.SCHEMA}
        return from_json(cls, data, what)


def looks_like_checkpoint(path: Path) -> bool:
    """Whether a file begins as PyTorch's files and other pickles do, whatever it is called."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_ZIP_HEAD)
    if head[:4] == b"PK\x03\x04":  # PyTorch writes its pickle first
        return b"/data.pkl" in head or path.suffix.lower() in (".pt", ".pth", ".pkl", ".ckpt")
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def read_info(path: str | Path) -> ModelInfo:
    """The metadata of an ONNX file that `retinart export` wrote, without loading the model.

    Raises:
        BadInput: the file is missing, truncated or not ONNX, has no metadata of retinart, or holds
            a graph that a runtime could stumble on or that its metadata do not describe.
    """
    info, _ = _read(Path(path))
    return info


def read_model(path: Path) -> tuple[ModelInfo, bytes]:
    """The metadata of an ONNX file and its bytes, for a step that makes another file of it.

    Raises:
        BadInput: as `read_info`, or the graph is not the one that the file was written with.
    """
    info, data = _read(path)
    if info.probe is not None and graph_sha256(data) != info.probe.graph_sha256:
        raise BadInput(
            f"the graph of {path} has changed since it was written",
            why="its hash is another one than the file's self-test was made with",
            fix=f"Copy the file again. {REEXPORT}",
        )
    return info, data


def _read(path: Path) -> tuple[ModelInfo, bytes]:
    if not path.exists() or path.is_dir():
        raise BadInput(f"there is no model at {path}", fix="Check the path")
    data = read_bytes(
        path, noun="model", most=_MOST, fix="Check its permissions, and that its disk is mounted"
    )
    try:
        file = read_file(data)
    except ValueError as error:
        if looks_like_checkpoint(path):
            raise BadInput(
                f"{path} is a checkpoint, not a model file",
                fix=f"Make one of it with `retinart export {path} -o model.onnx`",
            ) from error
        if kind := _media_kind(path):
            raise BadInput(
                f"{path} is {kind}, not a model file",
                fix="Give a model first: an ONNX file of retinart, or an engine",
            ) from error
        if path.suffix == ".xml":
            raise BadInput(
                f"{path} is not an ONNX file",
                why="OpenVINO's format is for other programs",
                fix="Give the ONNX file that it was made of",
            ) from error
        raise BadInput(
            f"{path} is not a readable ONNX file",
            why="it is a record in JSON" if path.suffix == ".json" else str(error),
            fix="Give the model that it is of" if path.suffix == ".json" else REEXPORT,
        ) from error
    if NCHW_FLOAT_KEY in file.metadata:
        raise BadInput(
            f"{path} is the form of a model for DeepStream",
            why="its input is float planes (N, 3, H, W), and retinart feeds uint8 pixels",
            fix="Give the ONNX file that it was made of",
        )
    if METADATA_KEY not in file.metadata:
        raise BadInput(
            f"{path} carries no metadata of retinart",
            why="its input, classes and thresholds are unknown, and guessing them would give wrong "
            "detections silently",
            fix=REEXPORT,
        )
    if len(file.metadata[METADATA_KEY]) > _MOST_TEXT:
        raise BadInput(
            f"the metadata of {path} have more than {_MOST_TEXT:,} characters", fix=REEXPORT
        )
    info = ModelInfo.from_json(file.metadata[METADATA_KEY], str(path))
    try:
        _check_agreement(info, read_graph(file))
    except ValueError as error:
        raise BadInput(f"the graph of {path} is damaged", why=str(error), fix=REEXPORT) from error
    return info, data


def _media_kind(path: Path) -> str:
    """What a file is that was given in a model's place: "a picture", "a video" or ""."""
    from retinart.engine.media.header_readers import read_header
    from retinart.engine.media.sources import VIDEO_SUFFIXES

    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "a video"
    try:
        read_header(path)
    except BadInput:
        return ""
    return "a picture"


def _check_agreement(info: ModelInfo, graph: Graph) -> None:
    """Compare what the metadata say with the graph. Raises ValueError with the difference."""
    frames = graph.inputs.get(INPUT, ())
    if len(graph.inputs) != 1 or len(frames) != 4 or frames[3] != 3:
        raise ValueError(f"its inputs are {graph.inputs}, not {INPUT} of (N, H, W, 3)")
    canvas = tuple(side for side in frames[1:3] if isinstance(side, int))
    if canvas != (info.resize.canvas or ()):
        raise ValueError(f"its input is {frames[1:3]}, and its metadata say {info.resize.canvas}")
    if set(graph.outputs) != set(OUTPUTS):
        raise ValueError(f"its outputs are {', '.join(graph.outputs)[:200]}")
    most = graph.outputs["detection_boxes"][1:2]
    if most != (info.thresholds.detections_per_img,):
        raise ValueError(
            f"it gives {most} detections, and its metadata say {info.thresholds.detections_per_img}"
        )
    known = {*graph.producers, *graph.constants}
    if missing := [name for name in (*HEADS, *CANDIDATES, NORMALIZED) if name not in known]:
        raise ValueError(f"the tensor {missing[0]} is missing")
    anchors = info.variant.num_anchors
    for name, each in (("logits", info.variant.num_classes), ("deltas", 4)):
        channels = graph.channels(f"{name}_p3")
        if channels != anchors * each:
            raise ValueError(
                f"its {name} have {channels} channels, and {anchors} anchors with {each} each need "
                f"{anchors * each}"
            )
    parts = info.precision.split("+")  # a part may be empty, where all layers stay in float
    kinds = {tensor.kind for tensor in graph.constants.values()}
    found = {"fp16"} if FLOAT16 in kinds else set()
    if any(node.operator == "QuantizeLinear" for node in graph.nodes):
        found.add("fp8" if FLOAT8 in kinds else "int8")
    if other := sorted(found.difference(parts)):
        raise ValueError(
            f"it has layers in {other[-1].upper()}, and its metadata say {info.precision}"
        )


def computed_in(precision: Precision, compute: Compute) -> str:
    """The types that a file's layers are computed in, if float layers are computed in `compute`."""
    if compute == "fp32-direct" and precision == "fp32":
        return compute
    if compute != "bf16":
        return precision
    kind = precision.partition("+")[0]
    return f"{kind}+bf16" if kind in ("int8", "fp8") else "bf16"
