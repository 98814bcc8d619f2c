"""Files that are mapped into memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retinart.engine.runtime.mapped_file import MappedFile, move_constants
from retinart.engine.runtime.openvino_api import load_openvino, openvino_core

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


def model_of(weight: npt.NDArray[np.float32]) -> Any:
    openvino = load_openvino()
    ops = openvino.opset13
    x = ops.parameter([4, weight.shape[1]], np.float32)
    y = ops.matmul(x, ops.constant(weight), False, True)
    z = ops.matmul(y, ops.constant(weight), False, False)  # of the same values
    return openvino.Model([ops.add(z, ops.constant(np.float32(1)))], [x], "products")


@pytest.fixture
def weight() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((130, 128)).astype(np.float32)


def test_constants_move_to_a_file(weight: npt.NDArray[np.float32]) -> None:
    x = np.random.default_rng(1).standard_normal((4, 128)).astype(np.float32)
    plain, moved = model_of(weight), model_of(weight)
    mapped = move_constants(moved, load_openvino())
    assert mapped is not None and len(mapped.array) >= 2 * weight.nbytes
    with mapped.dropping():
        compiled = openvino_core().compile_model(moved, "CPU")
    want = openvino_core().compile_model(plain, "CPU")([x])[0]
    assert np.array_equal(compiled([x])[0], want)
    addresses = [op.get_data().ctypes.data for op in moved.get_ops() if is_large(op)]
    begin = mapped.array.ctypes.data
    assert len(addresses) == 2
    assert all(begin <= one < begin + len(mapped.array) for one in addresses)


def is_large(op: Any) -> bool:
    return bool(op.get_type_name() == "Constant" and op.get_data().nbytes > 1000)


def test_constants_stay_where_there_is_no_room(
    weight: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda: full)
        assert move_constants(model_of(weight), load_openvino()) is None
    small = model_of(weight[:2, :2])
    assert move_constants(small, load_openvino()) is None
