"""The help of every command, and that its examples work."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest

from retinart.cli import COMMANDS, build_parser

Command = Callable[..., CompletedProcess[str]]
NAMES = [name if name != "data" else "data check" for name in COMMANDS]

# Options without which nothing is left out: what happens then needs no words.
NO_DEFAULT = {"help", "resume", "set", "against", "compare"}


def parser_of(name: str) -> argparse.ArgumentParser:
    parser = build_parser()
    for word in name.split():
        (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = commands.choices[word]
    return parser


def examples_of(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    title, *lines = (parser.epilog or "").replace("\\\n", " ").splitlines()
    assert title in ("example:", "examples:")
    for line in lines:
        words = shlex.split(line, comments=True)
        yield words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(retinart: Command, name: str) -> None:
    ran = retinart(*name.split(), "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "None" not in ran.stdout and "%(" not in ran.stdout
    parser = parser_of(name)
    assert parser.description and parser.description.endswith(".")
    for action in parser._actions:
        text = action.help or ""
        assert len(text.split()) > 1, f"{action.dest} is not explained"
        takes_a_value = action.nargs != 0 and action.option_strings
        if takes_a_value and not action.required and action.dest not in NO_DEFAULT:
            said = "(default: " in text or "a new run needs it" in text
            assert said, f"{action.dest}: say what happens without it"


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_understood(name: str) -> None:
    examples = list(examples_of(parser_of(name)))
    assert examples
    for words in examples:
        assert words[: 1 + len(name.split())] == ["retinart", *name.split()]
        args = build_parser().parse_args(words[1:])
        assert callable(args.run)


@pytest.mark.parametrize("name", NAMES)
def test_a_commands_own_parser_is_the_same_as_in_that_of_all(retinart: Command, name: str) -> None:
    """It alone is filled when it runs, since others import more."""
    assert retinart(*name.split(), "--help").stdout == parser_of(name).format_help()


def test_nothing_given_is_a_usage_error_with_help(retinart: Command) -> None:
    ran = retinart()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == retinart("--help").stdout


def test_the_help_lists_every_command(retinart: Command) -> None:
    lines = retinart("--help").stdout.splitlines()
    for name, text in COMMANDS.items():
        assert any(line.split() == [name, *text.split()] for line in lines), name
    assert retinart("--version").stdout.startswith("retinart 0.")
