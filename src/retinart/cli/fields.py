"""Options of a command from the fields of a settings record: name, type, choices and default.

A default and a list of choices stand in the record alone. The command line adds the phrase that
explains an option.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "FILE"}


def describe_command(parser: argparse.ArgumentParser, text: str, *examples: str) -> None:
    """Begin a command's help with a text, and end it with examples."""
    parser.description = text
    title = "example" if len(examples) == 1 else "examples"
    parser.epilog = "\n".join([f"{title}:", *(f"  {line}" for line in examples)])


def options_of(
    parser: argparse._ActionsContainer, record: type[Any], title: str = ""
) -> Callable[..., None]:
    """`add_option` for one record, in a group of options with a title."""
    return partial(add_option, parser.add_argument_group(title) if title else parser, record)


def add_option(
    parser: argparse._ActionsContainer,
    record: type[Any],
    field: str,
    text: str,
    *,
    flag: str = "",
    otherwise: str = "",
    **more: Any,
) -> None:
    """Add the option of a field; `record_of` reads it.

    A field that is true by default becomes a flag `--no-FIELD`, which turns it off.

    Args:
        text: the phrase that explains the option.
        flag: how it is written; `--field-name` if empty.
        otherwise: what happens without it, where the field's default does not tell that.
        more: for `add_argument`, in place of what the field says.
    """
    declared = next(f for f in dataclasses.fields(record) if f.name == field)
    value = declared.default
    if declared.default_factory is not dataclasses.MISSING:
        value = declared.default_factory()
    keywords = {"dest": field, **_keywords(get_type_hints(record)[field], value)}
    if value is dataclasses.MISSING:
        keywords["required"] = True
    else:
        keywords["default"] = list(value) if isinstance(value, tuple) else value
        otherwise = otherwise or _shown(value)
    keywords |= more
    if "required" not in keywords and keywords.get("action") not in ("store_true", "store_false"):
        assert otherwise, f"say what happens without {field}"
        text += f" (default: {otherwise})"
    flag = flag or f"--{'no-' if value is True else ''}{field.replace('_', '-')}"
    parser.add_argument(flag, help=text.replace("%", "%%"), **keywords)


def record_of(record: type[Record], args: argparse.Namespace, **more: Any) -> Record:
    """The record that the options say.

    Args:
        more: fields that have no option, or another value than their option.
    """
    given = vars(args)
    names = [f.name for f in dataclasses.fields(record) if f.name in given]  # type: ignore[arg-type]
    values = {name: _as_tuple(given[name]) for name in names}
    return record(**{**values, **more})


def _keywords(hint: Any, default: Any) -> dict[str, Any]:
    """What `add_argument` is told of a type."""
    if hint is bool:
        return {"action": "store_false" if default is True else "store_true"}
    inner = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [_keywords(kind, default) for kind in inner if kind is not types.NoneType]
        choices = [choice for kind in kinds for choice in kind.get("choices", ())]
        return {**kinds[0], "choices": choices} if choices else kinds[0]
    if get_origin(hint) is tuple:
        return {**_keywords(inner[0], default), "nargs": "+" if ... in inner else len(inner)}
    if get_origin(hint) is Literal:
        return {"type": type(inner[0]), "choices": list(inner)}
    return {"type": hint, "metavar": _METAVARS.get(hint, "TEXT")}


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")


ANNOTATION_FORMS = "COCO file, YOLO's data.yaml or labels folder, or Pascal VOC's folder"


def add_file(parser: argparse.ArgumentParser, default: str, text: str) -> None:
    """Add `--out` for a file."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(default),
        metavar="FILE",
        help=f"{text} (default: %(default)s)",
    )


def add_written(parser: argparse.ArgumentParser, suffix: str, text: str, more: str = "") -> None:
    """Add `--out` for a file that is made of the command's model; see `written`."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help=f"{text} (default: the model's name with {suffix}, in the working folder{more})",
    )


def written(args: argparse.Namespace, suffix: str) -> Path:
    """The file that a command writes: `--out`, or one that is named after the model."""
    return args.out or Path(f"{args.model.stem}{suffix}")


def add_out(parser: argparse._ActionsContainer, default: Path, text: str) -> None:
    """Add `--out` for a folder."""
    parser.add_argument(
        "--out", type=Path, default=default, metavar="DIR", help=f"{text} (default: %(default)s)"
    )


def add_results_out(parser: argparse._ActionsContainer, default: Path, text: str) -> None:
    """Add `--out` for a folder with the results of one run, and `--overwrite`.

    `results_folder` makes the folder.
    """
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"{text}; it must not hold the results of another run (default: {default}; if that "
        f"exists, {default}2 and so on)",
    )
    add_overwrite(parser)


def add_overwrite(parser: argparse._ActionsContainer) -> None:
    """Add `--overwrite`, for a folder of results."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="let files of this run replace files of another run with the same names",
    )


def add_size(parser: argparse._ActionsContainer, default: tuple[int, int], of_what: str) -> None:
    """Add `--height` and `--width`."""
    for name, value in zip(("height", "width"), default, strict=True):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=value,
            metavar="N",
            help=f"{name} {of_what} in pixels (default: %(default)s)",
        )


def add_max_pixels(parser: argparse._ActionsContainer) -> None:
    """Add `--max-pixels`, which `main` sets for the whole command."""
    from retinart.engine.media.pixel_limit import MAX_PIXELS

    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse images of more pixels, before they are decoded: a small file can ask for all "
        f"of the memory (default: {MAX_PIXELS})",
    )
