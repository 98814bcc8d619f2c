"""The errors that users see: each says what is wrong, why, and what to do."""

from __future__ import annotations

import functools
import json
from typing import ClassVar

_END = (".", "!", "?", ":")
_WITH_TORCH = {"demo", "export", "train"}  # extras


class RetinartError(Exception):
    """Base of every error that retinart raises on purpose.

    Args:
        what: what is wrong, naming the file or value.
        why: the reason, when it is known; it follows `what` and a colon.
        fix: what the user can do about it.

    Attributes:
        exit_code: what the command line exits with (1 a check failed, 2 bad input, 3 missing here).
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        problem = what.strip()
        if why:
            problem += (" " if problem.endswith(_END) else ": ") + why.strip()
        after = "\n" if "\n" in problem else " "  # a list ends with its line
        super().__init__(after.join(_sentence(part) for part in (problem, fix) if part))


class CheckFailed(RetinartError):
    """A comparison that must hold failed: parity, accuracy, a budget."""

    exit_code = 1


class BadInput(RetinartError):
    """A file, an image, a flag or an array cannot be used."""

    exit_code = 2


class MissingDependency(RetinartError):
    """This machine lacks something that the job needs."""

    exit_code = 3

    @classmethod
    def package(cls, module: str, extra: str, purpose: str) -> MissingDependency:
        """The error for a Python package that comes with an extra of retinart."""
        more = (
            "; the README tells how to get PyTorch without CUDA"
            if _WITH_TORCH & set(extra.split(","))
            else ""
        )
        return cls(
            f"{purpose} needs the package {module}, which is not installed",
            fix=f"Install it with `{pip_command(extra)}` in retinart's folder{more}",
        )


class KeptFileWarning(UserWarning):
    """A file that an earlier run kept cannot be used; what it held is found out anew."""


def pip_command(extra: str) -> str:
    """What installs an extra, or retinart alone for "", in the versions that the tests ran with.

    Where retinart is an editable install, the command keeps it one: without `-e`, pip would replace
    it by a copy.
    """
    sources = f'".[{extra}]"' if extra else "."
    return f"pip install -c constraints.txt {'-e ' if _is_editable() else ''}{sources}"


@functools.cache
def _is_editable() -> bool:
    """Whether pip installed retinart with `-e`, as it notes in direct_url.json.

    A program that runs in the clone also finds retinart.egg-info there, which has no such note.
    """
    from importlib import metadata  # slow, and seldom needed

    for found in metadata.distributions(name="retinart"):
        try:
            noted = json.loads(found.read_text("direct_url.json") or "{}")
        except (OSError, ValueError):
            continue
        place = noted.get("dir_info") if isinstance(noted, dict) else None
        if isinstance(place, dict) and place.get("editable") is True:
            return True
    return False


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith(_END) or "\n" in text else f"{text}."
