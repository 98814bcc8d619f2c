"""Files that are mapped into memory."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from retinart.engine.runtime.mapped_file import MappedFile

PAGES = 4096


def resident() -> int:
    """Pages of this process that a file is behind."""
    status = Path("/proc/self/status").read_text("ascii")
    found = re.search(r"RssFile:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) // 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 16 * PAGES)
    return path


def test_pages_come_and_go(file: Path) -> None:
    mapped, before = MappedFile(file), resident()
    array = mapped.array
    assert int(array[::PAGES].sum()) == 0 and resident() - before > PAGES // 2
    mapped.drop()
    assert resident() - before < PAGES // 2
    file.unlink()
    assert int(array[1]) == 1


def test_a_block_leaves_no_pages(file: Path) -> None:
    mapped, before = MappedFile(file), resident()
    with mapped.dropping():
        assert np.array_equal(mapped.array[:256], np.arange(256))
        assert int(mapped.array[::PAGES].sum()) == 0
    assert resident() - before < PAGES // 2


def test_nothing_is_written_back(file: Path) -> None:
    mapped = MappedFile(file)
    mapped.array[5] = 77
    assert file.read_bytes()[5] == 5


def test_an_empty_file_cannot_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        MappedFile(tmp_path / "empty")
