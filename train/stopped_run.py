"""The checkpoints that a stopped run goes on from: its last one, or the one before it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

from retinart.engine.errors import BadInput
from retinart.train.model.checkpoint import FinishedRun, load_resume_state
from retinart.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What a stopped run left.

    Attributes:
        state: see `load_resume_state`; None for a run without a whole epoch.
        note: a line about a damaged checkpoint, or "".
    """

    state: dict[str, Any] | None
    note: str = ""


def stopped_run(settings: TrainSettings) -> Stopped:
    """The state to go on from. No file changes, for several processes may look at once.

    Raises:
        BadInput: the run is finished.
    """
    notes = list[str]()
    for path, then in (
        (settings.last, "the run goes on from the epoch before it"),
        (settings.previous, "the run begins anew"),
    ):
        if not path.exists():
            continue
        try:
            return Stopped(state=load_resume_state(path), note="; ".join(notes))
        except FinishedRun:
            raise
        except BadInput as error:
            if not settings.previous.exists():
                then = "the run begins anew"
            notes.append(f"{path} is damaged ({error.why or error.what}): {then}")
    return Stopped(state=None, note="; ".join(notes))


def set_damaged_aside(settings: TrainSettings) -> None:
    """Give the damaged last checkpoint another name, before a new one replaces it."""
    if settings.last.exists():
        settings.last.replace(settings.last.with_name("last.pt.broken"))


def keep_previous(settings: TrainSettings) -> None:
    """Keep the last checkpoint under a second name, before a new one replaces it."""
    if not settings.last.exists():
        return
    settings.previous.unlink(missing_ok=True)
    try:
        os.link(settings.last, settings.previous)
    except OSError:  # a file system without links
        shutil.copyfile(settings.last, settings.previous)
