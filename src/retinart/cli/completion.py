"""`retinart completion`: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from retinart.cli.fields import describe_command


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart completion`."""
    describe_command(
        parser,
        "Print a script that makes the Tab key complete retinart's commands, options, choices and "
        "files. The script is complete in itself: Python does not run when you press Tab. Print it "
        "again after an update of retinart.",
        "retinart completion bash > ~/.local/share/bash-completion/completions/retinart",
        "retinart completion zsh > ~/.zfunc/_retinart    # with fpath+=~/.zfunc before compinit",
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="your shell")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    import shtab

    from retinart.cli import build_parser

    parser = build_parser()
    for action in _actions(parser):
        if action.type is Path or action.metavar in ("SOURCE", "DIR"):
            files = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
            action.complete = files  # type: ignore[attr-defined]
    print(shtab.complete(parser, args.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a parser and of all its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
