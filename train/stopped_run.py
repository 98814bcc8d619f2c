"""The checkpoints that a stopped run goes on from: its last one, or the one before it."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput
from retinart.train.model.checkpoint import FinishedRun, empty_model, load_resume_state
from retinart.train.run_folder import COLUMNS
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
            state = load_resume_state(path)
            _check_state(state, path)
            return Stopped(state=state, note="; ".join(notes))
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


def _check_state(state: dict[str, Any], path: Path) -> None:
    """Check what a run goes on from, before a network of the file's sizes takes memory."""
    rows, ids = state["rows"], state.get("image_ids", [])
    wrong = ""
    if not rows or not all(_is_row(row) for row in rows):
        wrong = "its rows are not a run's rows"
    elif not _is_number(state["best"]) or state["updates"] < 0:
        wrong = "its best AP or its count of updates is not a number of a run"
    elif not isinstance(ids, list) or not all(type(number) is int for number in ids):
        wrong = "its image ids are not whole numbers"
    elif not all(_is_number(value) for value in state["scaler"].values()):
        wrong = "its loss's scale is not a number"
    else:
        for weights in ("model", "average"):
            try:
                # of a copy: PyTorch notes in a state dict that it was assigned, and then does so
                # in each later load, which would take the optimizer's weights away
                tensors = dict(state[weights])
                empty_model(state["variant"]).load_state_dict(tensors, assign=True)
            except (RuntimeError, TypeError) as error:
                wrong = " ".join(str(error).split())[:300]
    if wrong:
        raise BadInput(f"the state in {path} is damaged", why=wrong, fix="Copy it again")


def _is_row(row: dict[str, Any]) -> bool:
    known = all(name in row for name in COLUMNS)
    needed = all(_is_number(row[name]) for name in ("epoch", "step", "seconds")) if known else False
    return needed and all(value is None or _is_number(value) for value in row.values())


def _is_number(value: object) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))
