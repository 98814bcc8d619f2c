"""What the programs of `python -m retinart.benchmarks.NAME` share; `retinart.verify` too."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence

from retinart.engine.common.option_names import with_flags
from retinart.engine.errors import RetinartError


def new_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows defaults.

    Args:
        name: of the program's module, below retinart.
        doc: its docstring, whose first line describes it.
    """
    return argparse.ArgumentParser(
        prog=f"python -m retinart.{name}",
        description=(doc or "").splitlines()[0],
        formatter_class=_Help,
    )


class _Help(argparse.HelpFormatter):
    """An option's text ends with its default, where it has one that the parser knows."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required or action.default in (None, False, argparse.SUPPRESS):
            return text
        default = action.default
        shown = " ".join(map(str, default)) if isinstance(default, list | tuple) else default
        return f"{text} (default: {shown})"


def run(
    work: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> int:
    """Do the work, which returns an exit code or None for 0; an error becomes a line on stderr.

    Args:
        work: gets the options.
        parser: of the options. Before `work` gets them, `command` is set to the whole command.
        argv: None takes this process's own arguments.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    args.command = shlex.join([*parser.prog.split(), *words])
    try:
        return work(args) or 0
    except RetinartError as error:
        print(f"error: {with_flags(str(error), parser)}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        print(f"error: something is not installed here: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
