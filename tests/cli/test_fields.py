"""Options that are made from the fields of a record."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from retinart.calib.settings import METHODS, CalibrationSettings, ConvertSettings
from retinart.cli import build_parser
from retinart.cli.fields import options_of, record_of
from retinart.engine.common.option_names import with_flags
from retinart.export.settings import BuildSettings, ExportSettings
from retinart.train.settings import TrainSettings

Size = Literal["small", "large"]


@dataclass(frozen=True, kw_only=True)
class Toy:
    name: str
    size: Size = "small"
    other: Literal["auto"] | Size = "auto"
    bits: Literal[8, 7] = 8
    rate: float = 1 / 8
    count: int | None = None
    path: Path | None = None
    pair: tuple[int, int] = (1, 2)
    many: tuple[float, ...] = (0.5,)
    words: tuple[str, ...] = field(default_factory=tuple)
    loud: bool = False
    copies: bool = True


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add = options_of(parser, Toy, "toys")
    for name in ("name", "size", "other", "bits", "rate", "pair", "many"):
        add(name, "text")
    for name in ("count", "path", "words"):
        add(name, "text", otherwise="nothing")
    add("loud", "text")
    add("copies", "text")
    return parser


def test_what_is_not_given_is_the_records_default(parser: argparse.ArgumentParser) -> None:
    assert record_of(Toy, parser.parse_args(["--name", "n"])) == Toy(name="n")


def test_every_kind_of_value(parser: argparse.ArgumentParser) -> None:
    given = (
        "--name n --size large --other small --bits 7 --rate 0.25 --count 3 --path p --pair 3 4 "
        "--many 1 2 3 --words a b --loud --no-copies"
    )
    assert record_of(Toy, parser.parse_args(given.split())) == Toy(
        name="n", size="large", other="small", bits=7, rate=0.25, count=3, path=Path("p"),
        pair=(3, 4), many=(1.0, 2.0, 3.0), words=("a", "b"), loud=True, copies=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "given", ["--size huge", "--bits 6", "--other big", "--rate fast", "--pair 1", "--many"]
)
def test_other_values_are_refused(parser: argparse.ArgumentParser, given: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--name", "n", *given.split()])


def test_a_field_without_a_default_is_required(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([])
    assert "required: --name" in capsys.readouterr().err


def test_the_help_shows_defaults(parser: argparse.ArgumentParser) -> None:
    text = " ".join(parser.format_help().split())
    assert "--rate X text (default: 0.125)" in text and "--pair N N text (default: 1 2)" in text
    assert "--size {small,large} text (default: small)" in text
    assert "--count N text (default: nothing)" in text
    assert "--loud text --no-copies text" in text  # a flag is off
    with pytest.raises(AssertionError, match="say what happens without count"):
        options_of(argparse.ArgumentParser(), Toy)("count", "text")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("export ckpt", ExportSettings()),
        ("build model", BuildSettings()),
        ("calibrate model --images i --images j", CalibrationSettings(images=("i", "j"))),
        ("convert model", ConvertSettings()),
    ],
)
def test_a_command_has_the_defaults_of_its_record(command: str, expected: Any) -> None:
    assert record_of(type(expected), build_parser().parse_args(command.split())) == expected


def test_choices_are_those_of_the_record() -> None:
    for method in METHODS:
        args = build_parser().parse_args(["calibrate", "m", "--images", "i", "--method", method])
        assert record_of(CalibrationSettings, args).method == method


def test_options_with_other_names_than_their_fields() -> None:
    given = ["--batch", "4", "--out", "o", "--warmup", "3", "--ema", "0"]
    args = build_parser().parse_args(["train", *given])
    assert (args.batch_size, args.runs, args.warmup_steps, args.ema_decay) == (4, Path("o"), 3, 0)
    assert {"batch_size", "runs", "warmup_steps", "ema_decay"} <= set(TrainSettings.__annotations__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`count` is -1", "--count is -1"),
        ("leave `copies` on, or use `copies=False`", "leave `copies` on, or use --no-copies"),
        ("`iou` and `nms_thresh`", "`iou` and `nms_thresh`"),  # this command has no such options
        ("run `retinart export --count`", "run `retinart export --count`"),
    ],
)
def test_an_error_names_options(parser: argparse.ArgumentParser, text: str, expected: str) -> None:
    assert with_flags(text, parser) == expected


def test_an_error_about_thresholds_names_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--iou")
    parser.add_argument("--max-det")
    text = "`nms_thresh`, `detections_per_img` and `score_thresh`"
    assert with_flags(text, parser) == "--iou, --max-det and `score_thresh`"
