"""The command line: parses, calls one function, prints.

stdout is data, stderr is progress and problems. Exit codes: 0 done, 1 a check failed, 2 bad usage
or input, 3 something needed is missing here, 70 a defect of retinart itself, 130 interrupted, 143
ended by SIGTERM.

Each command has a module of its name here with two functions: `fill` adds its options to a parser,
`run` does it. Only the module of the command that is given is imported, and it imports what does
the work when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from retinart.cli.streams import discard_stdout, guarded_streams
from retinart.engine.common.option_names import with_flags
from retinart.engine.errors import BadInput, KeptFileWarning, MissingDependency, RetinartError

COMMANDS = {
    "export": "write a checkpoint as an ONNX file",
    "inspect": "show what a model file holds",
    "check": "run the self-test of a model file on this machine",
    "detect": "detect objects in images, videos and live streams",
    "eval": "measure the COCO accuracy of a model file, or compare two",
    "calibrate": "make an INT8 file from an FP32 file",
    "convert": "make an FP16 file, or OpenVINO's IR",
    "build": "build a TensorRT engine from an ONNX file",
    "bundle": "make a folder that an inference server loads",
    "benchmark": "time model files side by side",
    "curve": "measure accuracy against speed, over scales and precisions",
    "train": "train a RetinaNet on COCO-format data",
    "data": "check a dataset before you train on it",
    "make-scenes": "generate annotated pictures to train and test on",
    "demo": "go the whole way with the files that are shipped",
    "doctor": "show what is installed, and how to get what is missing",
    "completion": "print a script that completes commands and options in a shell",
}
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
_LONGEST = 4000  # characters of a message

# The extra that brings a module, for a command that runs without it.
_EXTRAS = {"torch": "export", "onnx": "export", "pycocotools": "eval", "matplotlib": "report"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with guarded_streams(given), _plain_warnings():
        return _main(given)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show our own warnings as one line, without the place in the code."""
    before = warnings.formatwarning

    def plain(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if issubclass(category, KeptFileWarning):
            return f"retinart: {message}\n"
        return before(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = before


def _main(given: Sequence[str]) -> int:
    parser = build_parser({next((word for word in given if not word.startswith("-")), "")})
    if not given:
        parser.print_help(sys.stderr)
        return 2
    try:
        args = _parsed(parser, given)
    except BadInput as error:  # stdout cannot take the help
        print(f"retinart: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        discard_stdout()
        return 0
    try:
        with _limits(args):
            code: int = args.run(args)
        sys.stdout.flush()  # if the reader has gone away, notice it here rather than at exit
        return code
    except RetinartError as error:
        return _fail(error, args)
    except ModuleNotFoundError as error:
        module = (error.name or "").split(".")[0]
        if module not in _EXTRAS:
            return _fail_unforeseen(error, args)
        extra = args.extra or _EXTRAS[module]
        missing = MissingDependency.package(module, extra, f"retinart {args.command}")
        return _fail(missing, args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `retinart inspect ... | head -1` needs no more output
        discard_stdout()
        return 0
    except OSError as error:
        if args.debug:
            raise
        name = f" {error.filename}" if error.filename else ""
        problem = BadInput(
            f"cannot read or write{name}",
            why=error.strerror or str(error),
            fix="Check the path, its permissions and the space on its disk",
        )
        return _fail(problem, args)
    except Exception as error:
        return _fail_unforeseen(error, args)


def _parsed(parser: argparse.ArgumentParser, given: Sequence[str]) -> argparse.Namespace:
    try:
        _refuse_slips(parser, given)
        args, unknown = parser.parse_known_args(given)
        if unknown:
            of_command: argparse.ArgumentParser = getattr(args, "options", parser)
            of_command.error(f"unrecognized arguments: {' '.join(unknown)}")
        return args
    except SystemExit:
        sys.stdout.flush()  # what --help or --version printed
        raise


def _refuse_slips(parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
    """Name the command and the options that wrong ones may have been meant for.

    argparse comes to speak of a wrong option only if nothing else is missing.
    """
    words = list(itertools.takewhile(lambda word: word != "--", given))
    known, commands = _option_names(parser), _commands_of(parser)
    for word in words:
        if word in commands:
            parser = commands[word]
            known |= _option_names(parser)
            commands = _commands_of(parser)
        elif commands and not word.startswith("-"):
            if near := _near([word], commands, 0.6):
                parser.error(f"there is no command {word}.{near}")
            return
    flags = (word.partition("=")[0] for word in words if word.startswith("--"))
    wrong = [flag for flag in flags if not any(name.startswith(flag) for name in known)]
    if near := _near(wrong, known, 0.75):
        parser.error(f"unrecognized arguments: {' '.join(wrong)}.{near}")


def _option_names(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


def _commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {name: command for action in actions for name, command in action.choices.items()}


def _near(wrong: Sequence[str], known: Iterable[str], cutoff: float) -> str:
    """What wrong words may have been meant for, as a question; "" if nothing is near."""
    if not wrong:
        return ""  # each command comes here, and the import takes time
    from difflib import get_close_matches

    near = [name for word in wrong for name in get_close_matches(word, sorted(known), 2, cutoff)]
    return f" Is {' or '.join(near)} meant?" if near else ""


def build_parser(fill: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        fill: the commands whose options are added; the others have their names only.
    """
    parser = argparse.ArgumentParser(
        prog="retinart",
        formatter_class=HelpFormatter,
        description="Take a RetinaNet checkpoint to a fast detector that can be trusted.",
        epilog="`retinart COMMAND --help` shows a command's options, their defaults and examples.",
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print retinart's version and exit"
    )
    parser.color = False  # type: ignore[attr-defined]  # of Python 3.14: our streams would show codes
    commands = parser.add_subparsers(
        prog="retinart", dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=HelpFormatter)
        if name in fill:
            module = import_module(f"retinart.cli.{name.replace('-', '_')}")
            command.set_defaults(run=module.run, extra="", options=command)
            module.fill(command)
            command.get_default("options").add_argument(
                "--debug", action="store_true", help="show Python's traceback after an error"
            )
    return parser


def _limits(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    if getattr(args, "max_pixels", None) is None:
        return contextlib.nullcontext()
    from retinart.engine.media.pixel_limit import limited_pixels

    return limited_pixels(args.max_pixels)


class HelpFormatter(argparse.HelpFormatter):
    """A short usage. A text of one line is wrapped; one of several, as an example, is not."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, max_help_position=28, **more)
        self._action_max_length = 15  # argparse does not count the indent of a command's name

    def _format_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], *more: Any
    ) -> str:
        needed = [action for action in actions if action.required]
        text = super()._format_usage(usage, needed, *more)
        return text.replace(self._prog, f"{self._prog} [options]", 1)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # keep --options whole

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Version(argparse.Action):
    """Looks the version up when it is asked for: the look-up imports more than the help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"retinart {version('retinart')}")
        parser.exit()


def _fail(error: RetinartError, args: argparse.Namespace) -> int:
    if args.debug:
        raise error
    print(f"retinart: {_shortened(with_flags(str(error), args.options))}", file=sys.stderr)
    return error.exit_code


def _shortened(text: str) -> str:
    """A message whose middle is left out if a stranger's name in it is endless."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _fail_unforeseen(error: Exception, args: argparse.Namespace) -> int:
    if args.debug:
        raise error
    print(
        f"retinart: this should not have happened: {type(error).__name__}: {error}\n"
        "Run it again with --debug and report what it prints.",
        file=sys.stderr,
    )
    return INTERNAL_ERROR
