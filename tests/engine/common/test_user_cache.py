"""What is remembered in the user's cache; a damaged note counts as none."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinart.engine.common.user_cache import Remembered


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe good"])
def test_a_damaged_note_is_as_good_as_none(
    damaged: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = Remembered("facts")
    known.set("good", "a", 1)
    assert known.get("a", 1) == "good" and known.get("a", 2) is None
    (note,) = (tmp_path / "retinart" / "facts").iterdir()
    note.write_bytes(damaged)
    assert known.get("a", 1) is None
