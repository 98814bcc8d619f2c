"""What a model file says of itself: read whole, or refused with the reason and the fix."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from retinart.engine.errors import BadInput
from retinart.engine.model.info import (
    METADATA_KEY,
    OUTPUTS,
    REEXPORT,
    ModelInfo,
    Thresholds,
    read_info,
)
from retinart.engine.model.variant import Variant, octave_sizes
from support import made_graph
from support import made_info as _info


def _onnx(path: Path, metadata: dict[str, str]) -> Path:
    """A small ONNX file that onnx itself wrote, with the graph that `_info` describes."""
    model = made_graph()
    onnx.helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return _onnx(tmp_path / "ours.onnx", {"other": "1", METADATA_KEY: _info().to_json()})


def test_json_round_trip() -> None:
    for info in (
        _info(),
        _info(
            resize=dataclasses.replace(_info().resize, canvas=None, max_size=1000),
            min_size=(32, 32),
            max_size=(1024, 1024),
        ),
    ):
        assert ModelInfo.from_json(info.to_json(), "x") == info
        assert info.dynamic == (info.resize.canvas is None)


def test_read_from_a_file_that_onnx_wrote(ours: Path) -> None:
    assert read_info(ours) == _info()


def test_printed_it_leaves_the_numbers_of_the_probe_out(model_path: Path) -> None:
    """`print(read_info(path))` printed 10 KB."""
    text = repr(read_info(model_path))
    assert "probe=Probe(rule=1, seed=" in text and "detections=" not in text and len(text) < 2500


def test_read_from_an_exported_file(model_path: Path, dynamic_model_path: Path) -> None:
    """Against the onnx library's own reader."""
    for path, canvas in ((model_path, (96, 128)), (dynamic_model_path, None)):
        props = {p.key: p.value for p in onnx.load(path).metadata_props}
        info = read_info(path)
        assert info == ModelInfo.from_json(props[METADATA_KEY], "x")
        assert info.resize.canvas == canvas and info.variant.num_classes == 3
        assert [o.name for o in onnx.load(path).graph.output] == list(OUTPUTS)


def test_missing_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(BadInput) as raised:
            read_info(path)
        assert str(raised.value) == f"there is no model at {path}. Check the path."


def test_a_record_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "m.int8.json").write_text("{}")
    with pytest.raises(BadInput, match=r"it is a record in JSON\. Give the model that it is of"):
        read_info(tmp_path / "m.int8.json")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", r"it has no graph"),
        (b"hello, this is no model at all\n" * 20, r"truncated|not a protobuf message|no graph"),
        (b"\0" * 4096, "not a protobuf message"),
        (b"\xff" * 4096, "not a protobuf message"),
        (b"PK\x03\x04" + b"\0" * 100, "not a protobuf message|truncated|no graph"),
        (bytes(range(256)) * 40, "not a protobuf message|truncated|no graph"),
    ],
)
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is not a readable ONNX file") as raised:
        read_info(path)
    assert str(raised.value).endswith(f"{REEXPORT}.")
    assert raised.value.why and any(w in raised.value.why for w in why.split("|"))


def test_random_bytes_never_escape(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "model.onnx"
    for size in range(1, 400):
        path.write_bytes(rng.bytes(size))
        with pytest.raises(BadInput):
            read_info(path)


def test_truncated_at_every_offset(ours: Path, tmp_path: Path) -> None:
    data, path = ours.read_bytes(), tmp_path / "cut.onnx"
    assert data.count(b'"schema"') == 1
    for offset in range(len(data)):
        path.write_bytes(data[:offset])
        with pytest.raises(
            BadInput, match=r"is not a readable ONNX file|carries no metadata of retinart"
        ) as raised:
            read_info(path)
        assert str(path) in raised.value.what and raised.value.fix == REEXPORT


def test_an_exported_file_cut_anywhere(model_path: Path, tmp_path: Path) -> None:
    data, path = model_path.read_bytes(), tmp_path / "cut.onnx"
    rng = np.random.default_rng(2)
    for offset in (*rng.integers(1, len(data), 20), len(data) - 1, len(data) - 200):
        path.write_bytes(data[: int(offset)])
        with pytest.raises(BadInput, match=r"is not a readable ONNX file: it is truncated"):
            read_info(path)


@pytest.mark.parametrize("metadata", [{}, {"author": "me"}, {"retinart ": "{}"}])
def test_no_metadata_of_ours(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = _onnx(tmp_path / "theirs.onnx", metadata)
    with pytest.raises(BadInput) as raised:
        read_info(path)
    assert str(raised.value) == (
        f"{path} carries no metadata of retinart: its input, classes and thresholds are "
        "unknown, and guessing them would give wrong detections silently. "
        "Make the file again with `retinart export CHECKPOINT -o model.onnx`."
    )


def test_a_newer_schema(tmp_path: Path) -> None:
    text = json.dumps({**json.loads(_info().to_json()), "schema": ModelInfo.SCHEMA + 1, "new": 1})
    path = _onnx(tmp_path / "new.onnx", {METADATA_KEY: text})
    with pytest.raises(BadInput) as raised:
        read_info(path)
    assert str(raised.value) == (
        f"the metadata of {path} has schema 3, and this version reads schema 2. Upgrade retinart."
    )


def test_a_file_of_2000_candidates() -> None:
    """Files of schema 1 keep the number that is built into their NMS."""
    data = json.loads(_info().to_json())
    data["schema"], data["thresholds"]["nms_candidates"] = 1, 2000
    assert ModelInfo.from_json(json.dumps(data), "m.onnx").thresholds.nms_candidates == 2000


def test_levels_that_have_more_anchors_than_they_pass_on(dynamic_model_path: Path) -> None:
    """Nine anchors at each position of 20x32, 10x16, 5x8, 3x4 and 2x2."""
    info = dataclasses.replace(read_info(dynamic_model_path), max_size=(160, 256))
    assert info.level_candidates == (1000, 1000, 360, 108, 36)
    assert info.cut_levels == (slice(0, 1000), slice(1000, 2000))
    few = dataclasses.replace(
        info, thresholds=dataclasses.replace(info.thresholds, topk_candidates=100)
    )
    assert few.level_candidates == (100, 100, 100, 100, 36)
    assert few.cut_levels == tuple(slice(i, i + 100) for i in (0, 100, 200, 300))


def test_a_newer_variant() -> None:
    data = json.loads(_info().to_json())
    data["variant"]["rotated"] = True
    with pytest.raises(BadInput, match=r"rotated is not known to this version"):
        ModelInfo.from_json(json.dumps(data), "m.onnx")


def test_a_file_from_before_the_resize_was_a_setting() -> None:
    """It is resized as it was then, and records of its calibration stay valid."""
    info = _info()
    data = json.loads(info.to_json())
    for name in ("interpolation", "size_rounding"):
        del data["variant"][name], data["resize"][name]
    assert ModelInfo.from_json(json.dumps(data), "m.onnx") == info
    assert (info.resize.interpolation, info.resize.size_rounding) == ("opencv", "floor")
    mean, std = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    content = json.dumps([data["resize"], mean, std, "rgb"], sort_keys=True)
    assert info.preprocessing_sha256 == hashlib.sha256(content.encode()).hexdigest()


def test_the_resize_is_part_of_the_preprocessing() -> None:
    rule, found = _info().resize, set()
    for interpolation in ("opencv", "pillow", "float"):
        for rounding in ("floor", "float_floor", "nearest"):
            changed = dataclasses.replace(rule, interpolation=interpolation, size_rounding=rounding)
            info = _info(resize=changed)
            found.add(info.preprocessing_sha256)
            assert ModelInfo.from_json(info.to_json(), "m.onnx") == info
    assert len(found) == 9


def test_an_unknown_resize() -> None:
    data = json.loads(_info().to_json())
    data["resize"]["interpolation"] = "lanczos"
    with pytest.raises(
        BadInput, match=r"the metadata of m\.onnx is damaged: .*interpolation .* is \"lanczos\""
    ):
        ModelInfo.from_json(json.dumps(data), "m.onnx")


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data.__setitem__(key, value)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        "[" * 100_000,
        *(
            lambda d, k=k: d.pop(k)
            for k in json.loads(_info().to_json())
            if k not in ("provenance", "probe", "dropped_classes")
        ),
        _set("schema", "1"),
        _set("schema", None),
        _set("classes", 3),
        _set("resize", []),
        _set("resize", {}),
        _set("variant", None),
        _set("variant", 3),
        _set("thresholds", {"conf": 1}),
        _set("thresholds", {"score_thresh": "0.1"}),
        _set("min_size", None),
        _set("surprise", 1),
        lambda d: d["resize"].update(canvas=[]),
        lambda d: d["resize"].update(canvas=3),
        lambda d: d["resize"].pop("pad_value"),
        lambda d: d["resize"].update(more=1),
    ],
)
def test_damaged_metadata(tmp_path: Path, damage: Any) -> None:
    data = json.loads(_info().to_json())
    if not isinstance(damage, str):
        damage(data)
    text = damage if isinstance(damage, str) else json.dumps(data)
    path = _onnx(tmp_path / "model.onnx", {METADATA_KEY: text})
    with pytest.raises(
        BadInput, match=r"the metadata of .*model\.onnx (is damaged|has no schema number)"
    ) as raised:
        read_info(path)
    assert raised.value.why and raised.value.fix == REEXPORT


def test_a_variant_without_a_required_field() -> None:
    data = json.loads(_info().to_json())
    del data["variant"]["num_classes"]
    with pytest.raises(BadInput, match=r"num_classes is missing"):
        ModelInfo.from_json(json.dumps(data), "m.onnx")


def test_a_name_for_each_class() -> None:
    with pytest.raises(BadInput) as raised:
        _info(classes=("disc", "square"))
    assert str(raised.value) == (
        "model has 2 class names: its network has 3 classes. "
        "Export it again with one name for each class."
    )


@pytest.mark.parametrize("name", ["score_thresh", "nms_thresh"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_thresholds_from_0_to_1(name: str, value: float) -> None:
    with pytest.raises(BadInput) as raised:
        Thresholds(**{name: value})  # type: ignore[arg-type]
    assert str(raised.value) == f"`{name}` is {value}. Give a value from 0 to 1."
    for good in (0.0, 1.0):
        assert getattr(Thresholds(**{name: good}), name) == good  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("detections_per_img", 5000), ("topk_candidates", 3840), ("nms_candidates", 19200)],
)
def test_counts_within_what_tensorrt_takes(name: str, limit: int) -> None:
    bad: list[Any] = [0, -1, limit + 1, 2.5, 100.0]
    for value in bad:
        with pytest.raises(BadInput) as raised:
            Thresholds(**{name: value})
        assert str(raised.value) == f"`{name}` is {value}. Give a whole number from 1 to {limit}."
    good: list[Any] = [limit, np.int64(limit)]
    for value in good:
        assert getattr(Thresholds(**{name: value}), name) == limit


def test_no_more_detections_than_candidates() -> None:
    with pytest.raises(BadInput, match=r"`detections_per_img` is 100\. Give .* from 1 to 50"):
        Thresholds(nms_candidates=50)


def test_another_shorter_side(model_path: Path, dynamic_model_path: Path) -> None:
    """The longer side keeps its ratio, and all stays within the sizes that the file takes."""
    info = read_info(dynamic_model_path)  # exported with a shorter side of 96
    smaller = info.at_imgsz(64)
    assert smaller.resize.short_side == 64
    assert smaller.resize.max_size == 64 * info.resize.max_size // 96  # type: ignore[operator]
    assert smaller.resize.fit(100, 200) == (53, 106)  # the longer side decides
    assert info.at_imgsz(96) == info
    for imgsz in (16, 128):
        with pytest.raises(BadInput, match=f"shorter side of {imgsz}"):
            info.at_imgsz(imgsz)
    with pytest.raises(BadInput, match="it takes 96x128 only"):
        read_info(model_path).at_imgsz(64)


def test_variant_round_trip_and_properties() -> None:
    variant = Variant(
        source="y", backbone="resnet50", num_classes=80, channel_order="rgb", mean=(1.0, 2.0, 3.0)
    )
    assert Variant.from_dict(json.loads(json.dumps(variant.to_dict())), "model.onnx") == variant
    assert variant.num_anchors == 9
    assert variant.mean_bgr == (3.0, 2.0, 1.0)
    assert dataclasses.replace(variant, channel_order="bgr").mean_bgr == (1.0, 2.0, 3.0)
    assert octave_sizes((32,)) == ((32.0, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)),)


def test_metadata_without_an_end(tmp_path: Path) -> None:
    """Lists of a few bytes each would take a GiB of memory."""
    model = made_graph()
    onnx.helper.set_model_props(model, {METADATA_KEY: "[" + "[]," * 3_000_000 + "[]]"})
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(BadInput, match=r"the metadata of .*a\.onnx have more than 8,388,608 char"):
        read_info(tmp_path / "a.onnx")
