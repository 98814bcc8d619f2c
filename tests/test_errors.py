"""Every error says what is wrong, and reads as sentences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest

import retinart
from retinart.engine import errors
from retinart.engine.errors import (
    BadInput,
    CheckFailed,
    MissingDependency,
    RetinartError,
    pip_command,
)
from retinart.engine.model.info import REEXPORT

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "train", "export", "calib", "benchmarks", "verify", "src")
FAMILY = {"RetinartError", "BadInput", "CheckFailed", "MissingDependency"}
COMMANDS = ("retinart export", "pip install")
# Folders whose errors name a setting as `field`; the command line writes --field.
LIBRARY = ("engine", "train", "export", "calib", "benchmarks", "verify")
STARTERS = {"A", "An", "It", "Its", "No", "The", "There", "They", "This"}  # names stay as they are


def _errors(text: str) -> list[ast.Call]:
    """Each call in a source text that makes one of our errors."""
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAMILY
    ]


def _text(node: ast.expr) -> str:
    """What of an expression can be read without running it; {} for the rest."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "{}"


def _faults(call: ast.Call) -> Iterator[str]:
    """What the house rule finds wrong with an error."""
    parts = {keyword.arg: _text(keyword.value) for keyword in call.keywords}
    if len(call.args) != 1:
        yield "pass one positional argument: what is wrong"
        return
    what = _text(call.args[0])
    if parts.keys() - {"why", "fix"}:
        yield "pass only why= and fix= by name"
    if "fix" not in parts:
        yield "say what to do: fix=..."
    elif not parts["fix"].startswith("{}") and not parts["fix"][:1].isupper():
        yield f"begin fix with a capital letter: {parts['fix']!r}"
    if parts.get("why", "").split(" ")[0] in STARTERS:
        yield f"begin why in lower case, for it follows a colon: {parts['why']!r}"
    if what != "{}" and " " not in what.strip():
        yield f"write a sentence: {what!r}"
    for text in (what, *parts.values()):
        if text != text.strip():
            yield f"remove the space at the beginning or end: {text!r}"
        if "\n" in text:
            yield f"write one line: {text!r}"
        if text.endswith((".", ":")):
            yield f"leave the full stop to RetinartError: {text!r}"
        for command in COMMANDS:
            before, found, _ = text.partition(command)
            if found and not before.endswith("`"):
                yield f"put the command in backquotes, for a full stop follows it: {text!r}"


def _options(call: ast.Call) -> Iterator[str]:
    """Options of a command line that an error names, outside of a whole command in backquotes."""
    for part in (*call.args, *(keyword.value for keyword in call.keywords)):
        for option in re.findall(r"--[a-z][a-z-]*", re.sub("`[^`]*`", "", _text(part))):
            yield f"write `{option[2:].replace('-', '_')}`, not {option}: callers in Python read it"


def _calls(folders: Sequence[str]) -> dict[str, ast.Call]:
    return {
        f"{path.relative_to(ROOT)}:{call.lineno}": call
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        for call in _errors(path.read_text("utf-8"))
    }


def test_every_error_keeps_the_house_rule() -> None:
    calls = _calls(FOLDERS)
    assert len(calls) > 200
    wrong = [f"{place}: {fault}" for place, call in calls.items() for fault in _faults(call)]
    library = _calls(LIBRARY)
    wrong += [f"{place}: {fault}" for place, call in library.items() for fault in _options(call)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("'a is bad', why='it is', fix='Do c'", ""),
        ("'a is bad', why='It is', fix='Do c'", "begin why in lower case"),
        ("f'{a} is bad', fix=f'{c}'", ""),
        ("what, fix='Type `retinart export`'", ""),
        ("fix='Do c'", "one positional argument"),
        ("'a is bad', 'it is', fix='Do c'", "one positional argument"),
        ("'a is bad', hint='b', fix='Do c'", "only why= and fix="),
        ("'a is bad'", "say what to do"),
        ("'a is bad', fix='do c'", "capital letter: 'do c'"),
        ("'a is bad', fix=''", "capital letter"),
        ("'', fix='Do c'", "write a sentence: ''"),
        ("'bad', fix='Do c'", "write a sentence: 'bad'"),
        ("'a is bad ', fix='Do c'", "remove the space"),
        ("'a is ' + f'bad {b}', why='b\\nc', fix='Do c'", "write one line"),
        ("'a is bad', why='it is.', fix='Do c'", "leave the full stop"),
        ("'a is bad', fix='Use retinart export'", "backquotes"),
        ("'a is bad', fix='Use pip install retinart'", "backquotes"),
    ],
)
def test_the_house_rule_itself(arguments: str, fault: str) -> None:
    (call,) = _errors(f"def f():\n    raise BadInput({arguments})\n")
    found = list(_faults(call))
    assert [fault in text for text in found] == [True] * bool(fault), found


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("'`num` is 0', fix='Give `num`'", []),
        ("'a is bad', fix='Export it with `retinart export --dynamic`'", []),
        ("'--num is 0', fix='Leave --max-drop out'", ["--num", "--max-drop"]),
        ("f'--num {n}', fix='Do c'", ["--num"]),
    ],
)
def test_the_rule_on_options_itself(arguments: str, options: list[str]) -> None:
    (call,) = _errors(f"raise BadInput({arguments})")
    assert [text.split()[3].rstrip(":") for text in _options(call)] == options


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("a is bad", "", ""), "a is bad."),
        (("a is bad", "b", ""), "a is bad: b."),
        (("a is bad", "", "Do c"), "a is bad. Do c."),
        (("a is bad.", "b!", "Do c?"), "a is bad. b! Do c?"),
        ((" a is bad ", "b ", " Do c"), "a is bad: b. Do c."),
        (("a is bad", "2 differ:\n  x\n  y", "Do c"), "a is bad: 2 differ:\n  x\n  y\nDo c."),
    ],
)
def test_what_why_fix_become_sentences(parts: tuple[str, str, str], text: str) -> None:
    what, why, fix = parts
    error = RetinartError(what, why=why, fix=fix)
    assert str(error) == text
    assert (error.what, error.why, error.fix) == parts


def test_a_command_that_texts_share_can_be_copied() -> None:
    """The lint reads no text behind a name."""
    assert REEXPORT.endswith("`")


def test_exit_codes_and_family() -> None:
    codes = {CheckFailed: 1, BadInput: 2, MissingDependency: 3}
    for kind, code in codes.items():
        assert issubclass(kind, RetinartError) and kind.exit_code == code
        assert getattr(retinart, kind.__name__) is kind


class Installed:
    def __init__(self, noted: str | None) -> None:
        self._noted = noted

    def read_text(self, name: str) -> str | None:
        return self._noted if name == "direct_url.json" else None


@pytest.mark.parametrize(
    ("noted", "editable"),
    [
        ('{"url": "file:///a", "dir_info": {"editable": true}}', True),
        ('{"url": "file:///a", "dir_info": {}}', False),  # pip install .
        ('{"url": "file:///a.whl", "archive_info": {}}', False),
        (None, False),
        ("{", False),
        ("[]", False),
    ],
)
def test_the_command_keeps_an_editable_install(
    monkeypatch: pytest.MonkeyPatch, noted: str | None, editable: bool
) -> None:
    """Seen: the printed command replaced an editable install of a clone by a copy."""
    in_the_clone = Installed(None)
    monkeypatch.setattr(metadata, "distributions", lambda name: [in_the_clone, Installed(noted)])
    monkeypatch.setattr(errors, "_is_editable", errors._is_editable.__wrapped__)
    e = "-e " if editable else ""
    assert pip_command("eval") == f'pip install -c constraints.txt {e}".[eval]"'
    assert pip_command("") == f"pip install -c constraints.txt {e}."


def test_a_missing_package_names_its_command() -> None:
    error = MissingDependency.package("pycocotools", "eval", "COCO evaluation")
    assert str(error) == (
        "COCO evaluation needs the package pycocotools, which is not installed. "
        f"Install it with `{pip_command('eval')}` in retinart's folder."
    )
    assert MissingDependency.package("openvino", "", "x").fix == (
        f"Install it with `{pip_command('')}` in retinart's folder"
    )
