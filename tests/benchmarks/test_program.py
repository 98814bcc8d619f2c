"""What the programs of `python -m retinart.benchmarks.NAME` have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from retinart.benchmarks.program import new_parser, run
from retinart.engine.errors import BadInput, CheckFailed


def parser() -> argparse.ArgumentParser:
    made = new_parser("benchmarks.name", "What it does.\n\nMore.")
    made.add_argument("--num-images", type=int, default=8, help="images")
    made.add_argument("--sizes", nargs="+", default=(1, 2), help="sides")
    made.add_argument("--out", type=Path, required=True, help="a file")
    made.add_argument("--full", action="store_true", help="all of it")
    return made


def test_help_shows_defaults_where_there_are_any() -> None:
    text = parser().format_help()
    for line in ("usage: python -m retinart.benchmarks.name", "images (default: 8)", "a file\n",
                 "sides (default: 1 2)", "all of it\n"):  # fmt: skip
        assert line in text
    assert "None" not in text and "False" not in text and "More." not in text


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            BadInput("`num_images` is 0", fix="Give `out`, not `other`"),
            2,
            "error: --num-images is 0. Give --out, not `other`.\n",
        ),
        (CheckFailed("a figure differs", fix="Do c"), 1, "error: a figure differs. Do c.\n"),
        (ImportError("No module named 'x'"), 3,
         "error: something is not installed here: No module named 'x'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(args: argparse.Namespace) -> None:
        raise error

    assert run(work, parser(), ["--out", "x"]) == code
    assert capsys.readouterr().err == said


def test_the_work_gets_the_command_that_repeats_it() -> None:
    seen = []
    assert run(lambda args: seen.append(args.command), parser(), ["--out", "a b"]) == 0
    assert seen == ["python -m retinart.benchmarks.name --out 'a b'"]
    assert run(lambda args: 3, parser(), ["--out", "x"]) == 3
