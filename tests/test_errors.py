"""Every error says what is wrong, and reads as sentences."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import retinart
from retinart.engine.errors import BadInput, CheckFailed, MissingDependency, RetinartError
from retinart.engine.model.info import REEXPORT

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "train", "export", "calib", "benchmarks", "src")
FAMILY = {"RetinartError", "BadInput", "CheckFailed", "MissingDependency"}


def _raised() -> list[tuple[str, ast.Call]]:
    """Each call in the sources that makes one of our errors, with its place."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in FAMILY
                ):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node))
    return found


def test_every_error_says_what_to_do() -> None:
    without = [
        place for place, call in _raised() if "fix" not in {word.arg for word in call.keywords}
    ]
    assert not without, f"say fix=... in {', '.join(without)}"


def _text(node: ast.expr) -> str:
    """What of an expression can be read without running it; {} for the rest."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "{}"


def test_the_sources_hold_errors_to_look_at() -> None:
    assert len(_raised()) > 40


@pytest.mark.parametrize(("place", "call"), _raised(), ids=[place for place, _ in _raised()])
def test_the_house_rule(place: str, call: ast.Call) -> None:
    assert len(call.args) == 1, f"{place}: what is wrong is the one positional argument"
    what = _text(call.args[0])
    assert what.strip(), f"{place}: it says nothing"
    names = {keyword.arg for keyword in call.keywords}
    assert names <= {"why", "fix"}, f"{place}: {names}"
    assert what == "{}" or " " in what, f"{place}: {what!r} is no sentence"
    for text in (what, *(_text(keyword.value) for keyword in call.keywords)):
        assert text == text.strip(), f"{place}: {text!r} begins or ends with a space"
        assert "\n" not in text, f"{place}: {text!r} is not one line"
        assert not text.endswith((".", ":")), f"{place}: {text!r}: the full stop is added"
    for keyword in call.keywords:
        fix = _text(keyword.value)
        if keyword.arg == "fix" and not fix.startswith("{}"):
            assert fix[0].isupper(), f"{place}: {fix!r} begins a sentence"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("a is bad", "", ""), "a is bad."),
        (("a is bad", "b", ""), "a is bad. b."),
        (("a is bad", "", "Do c"), "a is bad. Do c."),
        (("a is bad.", "b!", "Do c?"), "a is bad. b! Do c?"),
        ((" a is bad ", "b ", " Do c"), "a is bad. b. Do c."),
    ],
)
def test_what_why_fix_become_sentences(parts: tuple[str, str, str], text: str) -> None:
    what, why, fix = parts
    error = RetinartError(what, why=why, fix=fix)
    assert str(error) == text
    assert (error.what, error.why, error.fix) == parts


def test_a_command_can_be_copied_without_the_full_stop() -> None:
    """`-o model.onnx.` would be another file: commands stand in backquotes."""
    for place, call in _raised():
        for text in (_text(keyword.value) for keyword in call.keywords):
            for command in ("retinart export", "pip install"):
                before, found, _ = text.partition(command)
                assert not found or before.endswith("`"), f"{place}: {text!r}"
    assert REEXPORT.endswith("`")


def test_exit_codes_and_family() -> None:
    codes = {CheckFailed: 1, BadInput: 2, MissingDependency: 3}
    for kind, code in codes.items():
        assert issubclass(kind, RetinartError) and kind.exit_code == code
        assert getattr(retinart, kind.__name__) is kind


def test_a_missing_package_names_its_command() -> None:
    error = MissingDependency.package("pycocotools", "eval", "COCO evaluation")
    assert str(error) == (
        "COCO evaluation needs the package pycocotools, which is not installed. "
        'Install it with `pip install "retinart[eval]"`.'
    )
    assert MissingDependency.package("openvino", "", "x").fix == (
        "Install it with `pip install retinart`"
    )
