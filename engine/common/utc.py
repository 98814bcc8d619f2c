"""The time of day in UTC, as files and their names have it."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

START = "{start}"  # in a path: when the job started


def now() -> datetime:
    """The time of day."""
    return datetime.now(timezone.utc)


def iso(moment: datetime) -> str:
    """As a JSON text: 2026-11-29T16:42:00.125Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_names(moment: datetime) -> str:
    """As a part of a file's name: 20261129T164200Z."""
    return f"{moment:%Y%m%dT%H%M%SZ}"


def with_start(path: Path, started: datetime) -> Path:
    """A path with the time in place of each `{start}`."""
    return Path(str(path).replace(START, in_names(started)))
