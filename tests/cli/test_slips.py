"""Commands and options with a slip: what may have been meant."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

Command = Callable[..., CompletedProcess[str]]


def test_an_option_with_a_slip(retinart: Command) -> None:
    """The usage was that of `retinart`, and no option was named."""
    ran = retinart("detect", "model.onnx", "a.jpg", "--strickt", "--bogus")
    assert ran.returncode == 2 and ran.stderr.startswith("usage: retinart detect")
    assert "unrecognized arguments: --strickt --bogus. Is --strict or --track meant?" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("detekt model.onnx", "retinart: error: there is no command detekt. Is detect meant?"),
        ("data chek", "retinart data: error: there is no command chek. Is check meant?"),
        ("--hlep", "retinart: error: unrecognized arguments: --hlep. Is --help meant?"),
        ("eval --hlep", "retinart eval: error: unrecognized arguments: --hlep. Is --help meant?"),
        ("detect -- --hlep", "the following arguments are required: SOURCE"),
        ("zzz", "invalid choice: 'zzz'"),
    ],
)
def test_a_slip_is_named_before_what_is_missing(
    retinart: Command, arguments: str, said: str
) -> None:
    """Seen: all 17 commands for `detekt`, and "required: COMMAND" for `--hlep`."""
    ran = retinart(*arguments.split())
    assert ran.returncode == 2 and said in ran.stderr
