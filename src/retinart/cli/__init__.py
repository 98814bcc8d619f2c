"""The command line: parses, calls one function, prints.

stdout is data, stderr is progress and problems. Exit codes: 0 done, 1 a check failed, 2 bad usage
or input, 3 something needed is missing here, 70 a defect of retinart itself, 130 interrupted, 143
ended by SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from retinart.cli import (
    benchmark,
    build,
    calibrate,
    convert,
    curve,
    data,
    demo,
    detect,
    doctor,
    eval,
    export,
    inspect,
    make_scenes,
    train,
)
from retinart.engine.errors import BadInput, MissingDependency, RetinartError

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h

# modules that an extra brings, for whoever runs a command without it
_EXTRAS = {"torch": "train", "onnx": "export", "pycocotools": "eval", "matplotlib": "report"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path need not be UTF-8: its bytes go through
        sys.stdout.reconfigure(errors="surrogateescape")
    try:
        code: int = args.run(args)
        sys.stdout.flush()  # a reader that went away is noticed here rather than at exit
        return code
    except RetinartError as error:
        return _fail(error, args.debug)
    except ModuleNotFoundError as error:
        module = (error.name or "").split(".")[0]
        if module not in _EXTRAS:
            return _fail_unforeseen(error, args.debug)
        extra = args.extra or _EXTRAS[module]
        missing = MissingDependency.package(module, extra, f"retinart {args.command}")
        return _fail(missing, args.debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `retinart inspect ... | head -1`: nobody wants the rest
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
        return _fail(problem)
    except Exception as error:
        return _fail_unforeseen(error, args.debug)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="retinart",
        description="Take a RetinaNet checkpoint to a fast detector that can be trusted.",
    )
    parser.add_argument("--version", action="version", version=f"retinart {version('retinart')}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    common.set_defaults(extra="")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        export,
        inspect,
        doctor,
        demo,
        calibrate,
        convert,
        build,
        detect,
        eval,
        benchmark,
        curve,
        data,
        make_scenes,
        train,
    ):
        module.add_command(commands, common)
    return parser


def _fail(error: RetinartError, debug: bool = False) -> int:
    if debug:
        raise error
    print(f"retinart: {error}", file=sys.stderr)
    return error.exit_code


def _fail_unforeseen(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    print(
        f"retinart: this should not have happened: {type(error).__name__}: {error}\n"
        "Run it again with --debug and report what it prints.",
        file=sys.stderr,
    )
    return INTERNAL_ERROR
