"""Standard output and error of a command: closed ones, full disks, readers that have gone away."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from retinart.engine.common.printable import printable
from retinart.engine.common.progress import CLEAR
from retinart.engine.errors import BadInput


@contextmanager
def guarded_streams(words: Sequence[str] = ()) -> Iterator[None]:
    """Guard stdout and stderr while a command runs.

    Args:
        words: of the command line. stderr shows the addresses in them without their secrets.

    - A closed stream is opened onto nothing. Otherwise the next file that is opened would get its
      number, and messages of libraries would land in that file.
    - stderr never fails: progress that cannot be shown does not stop the work.
    - stdout raises BadInput where what it is led into cannot take it.
    - A reader of stdout that has gone away raises BrokenPipeError, as ever.
    - stderr, and stdout on a terminal, show control characters in names as escapes.
    """
    _open_closed()
    out, err = sys.stdout, sys.stderr
    if isinstance(out, io.TextIOWrapper):  # a path need not be UTF-8: its bytes go through
        out.reconfigure(errors="surrogateescape")
    sys.stdout = _Stdout(out, shown=out.isatty())
    sys.stderr = _Stderr(err, shown=True, hidden=_without_secrets(words))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def discard_stdout() -> None:
    """Lead stdout to nothing, so that what is left in its buffer cannot fail at exit."""
    _to_nothing(1)


class _Guarded:
    """A stream whose `write` and `flush` have their errors treated.

    Args:
        stream: what is written to.
        shown: people see it. Names of files and classes must not command their terminal.
        hidden: what stands for some texts.
    """

    def __init__(
        self, stream: Any, *, shown: bool, hidden: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._stream, self._shown, self._hidden = stream, shown, hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        given = len(text)
        for secret, shown in self._hidden.items():
            text = text.replace(secret, shown)
        try:
            self._stream.write(_shown(text) if self._shown else text)
        except OSError as error:
            self._failed(error)
        return given

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        raise NotImplementedError


def _shown(text: str) -> str:
    """The text with escapes for control characters, except a bar's own at its beginning."""
    rest = text.removeprefix(CLEAR)
    return text[: len(text) - len(rest)] + printable(rest)


def _without_secrets(words: Sequence[str]) -> Mapping[str, str]:
    """How the addresses in a command line are shown, by the forms that messages have of them."""
    found: dict[str, str] = {}
    for word in words:
        if "://" in word or (":" in word and "@" in word):
            from retinart.engine.media.address import shown_address

            shown = shown_address(word)
            # as it is; as Python quotes it; and with one slash, as a path has it
            for form in (word, repr(word)[1:-1], str(Path(word)), repr(str(Path(word)))[1:-1]):
                if form != shown:
                    found[form] = shown
    return found


class _Stderr(_Guarded):
    def _failed(self, error: OSError) -> None:
        _to_nothing(2)


class _Stdout(_Guarded):
    def _failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        _to_nothing(1)
        raise BadInput(
            "cannot write to standard output",
            why=error.strerror or str(error),
            fix="Send it to a terminal, or to a file on a disk with room. Files that the command "
            "wrote are complete",
        ) from error


def _open_closed() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _to_nothing(number: int) -> None:
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, number)
        os.close(nothing)
