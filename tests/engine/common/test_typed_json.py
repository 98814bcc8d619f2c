"""Records as JSON: what comes back is what was written, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from retinart.engine.common.typed_json import from_json, read_typed, to_json, write_typed
from retinart.engine.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Times:
    p50: float
    p90: float


@dataclass(frozen=True, kw_only=True)
class Result:
    SCHEMA: ClassVar[int] = 2
    AGAIN: ClassVar[str] = "Run it again"

    name: str
    size: tuple[int, int]
    ms: dict[str, Times]
    runs: tuple[float, ...]
    kind: Literal["fp32", "int8"] = "fp32"
    ap: float | None = None
    path: Path = Path("a")
    done: bool = True


RESULT = Result(name="a", size=(3, 4), ms={"infer": Times(p50=1, p90=2.5)}, runs=(1.0, 2.0))


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    whole = Result(**{**vars(RESULT), "ap": 0.5, "done": False})
    for result in (RESULT, whole):
        plain = Result(**{**vars(result), "path": "a"})
        write_typed(path, plain)
        assert read_typed(Result, path) == result
    assert json.loads(path.read_text())["schema"] == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": 1}, "the field name has to be text, and is 1"),
        ({"size": [3]}, "the field size has to be a list of 2, and is [3]"),
        ({"size": [3, True]}, "the field size[1] has to be a whole number, and is true"),
        ({"ms": {"infer": {"p50": "1", "p90": 2}}}, "the field ms.infer.p50 has to be a number"),
        ({"ms": {"infer": {"p50": 1}}}, "the field ms.infer.p90 is missing"),
        ({"ms": []}, "the field ms has to be an object, and is []"),
        ({"runs": 1}, "the field runs has to be a list, and is 1"),
        ({"runs": ["x" * 99]}, 'the field runs[0] has to be a number, and is "xxx'),
        ({"kind": "fp8"}, "the field kind has to be one of fp32, int8"),
        ({"ap": "high"}, "the field ap has to be a number"),
        ({"done": 1}, "the field done has to be true or false, and is 1"),
        ({"more": 1}, "the field more is not known"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], why: str) -> None:
    data = json.loads(json.dumps(to_json(RESULT), default=str)) | change
    with pytest.raises(BadInput) as caught:
        from_json(Result, data, "a.json")
    assert caught.value.what == "a.json is damaged" and why in caught.value.why
    assert caught.value.fix == "Run it again" and len(caught.value.why) < 140


def test_other_schemas_are_refused_by_number() -> None:
    for number, what, fix in (
        (1, "a.json has schema 1, and this version reads schema 2", "Run it again"),
        (3, "a.json has schema 3, and this version reads schema 2", "Upgrade retinart"),
        (None, "a.json has no schema number", "Run it again"),
        ("2", "a.json has no schema number", "Run it again"),
    ):
        data = {**to_json(RESULT), "schema": number}
        with pytest.raises(BadInput) as caught:
            from_json(Result, data, "a.json")
        assert (caught.value.what, caught.value.fix) == (what, fix)
    with pytest.raises(BadInput, match="has no schema number"):
        from_json(Result, [], "a.json")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    for name, message in (("a.json", "is not JSON"), ("b.json", "cannot read")):
        with pytest.raises(BadInput, match=message):
            read_typed(Result, tmp_path / name)
