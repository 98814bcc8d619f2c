"""Files of `torch.save`, checked before PyTorch reads them, and their tensors after it."""

from __future__ import annotations

import argparse
import io
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinart.engine.common.bounded_reading import check_regular
from retinart.engine.errors import BadInput
from retinart.train.model.pickle_check import check_pickle

_PICKLES = 5  # of files before PyTorch 1.6: magic number, version, machine, content, storages
_ITEM_BYTES = {
    "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
    "FloatStorage": 4, "IntStorage": 4, "QInt32Storage": 4,
    "HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2,
}  # fmt: skip
_WHOLE_MODEL = (
    "holds a whole model and you trust it, save its weights alone: "
    "`model = torch.load(FILE, weights_only=False)`, then "
    "`torch.save(model.state_dict(), 'model.pth')`"
)
# What training scripts put beside weights: options and paths. Building one of these runs no code.
_HARMLESS: tuple[type, ...] = (argparse.Namespace, pathlib.PosixPath)


def read_torch_file(path: Path) -> Any:
    """The content of a torch file, read with `weights_only` so that no code in it runs.

    Besides weights it may hold an `argparse.Namespace`, as torchvision's training scripts save it.

    Raises:
        BadInput: the file is missing, truncated, not a torch file, wants to run code, or asks for
            more memory than it holds.
    """
    if not path.exists():
        raise BadInput(f"there is no checkpoint at {path}", fix="Check the path")
    check_regular(path, noun="checkpoint")
    if kind := _other_kind(path):
        raise BadInput(f"{path} is {kind[0]}, not a checkpoint", fix=kind[1])
    try:
        if zipfile.is_zipfile(path):
            _check_zip(path)
        else:
            _check_old_file(path)
        with torch.serialization.safe_globals(list(_HARMLESS)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _Oversized as error:
        raise BadInput(
            f"refused to read the checkpoint {path}",
            why=str(error),
            fix="A checkpoint of this form was not written by PyTorch; copy or download it again",
        ) from error
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"refused to read the checkpoint {path}",
            why=f"it is damaged, or wants to call {_unsafe_name(error)}",
            fix="A checkpoint may hold tensors, numbers, strings, lists and dicts only. If it "
            f"{_WHOLE_MODEL}",
        ) from error
    except Exception as error:  # bytes that are not a pickle may raise any exception
        raise BadInput(
            f"cannot read the checkpoint {path}",
            why=f"it is truncated or not a torch file ({_first_line(error)})",
            fix="Copy or download it again and compare its size",
        ) from error
    _check_tensors(content, path)
    return content


class _Oversized(Exception):
    """Reading the file would take more memory than it holds."""


def _check_zip(path: Path) -> None:
    """Refuse an archive whose parts, or whose pickle, would grow when they are read.

    PyTorch looks parts up without regard to case.
    """
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.lower(): entry.file_size for entry in archive.infolist()}
        if len(sizes) < len(archive.infolist()):
            raise _Oversized("two of its parts have one name")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise _Oversized("its parts are compressed, as PyTorch never writes them")
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise _Oversized("its parts overlap")
        names = [name for name in archive.namelist() if name.lower().endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl")
        folder = names[0][: -len("data.pkl")]

        def storage(identifier: Sequence[object]) -> None:
            key, size = _storage(identifier)
            if sizes.get(f"{folder}data/{key}".lower()) != size:
                raise ValueError(f"its tensor {key} has another size than its bytes")

        data = archive.read(names[0])
        _check_pickle(io.BytesIO(data), len(data), storage)


def _check_old_file(path: Path) -> None:
    length, sizes = path.stat().st_size, dict[object, int]()

    def storage(identifier: Sequence[object]) -> None:
        key, size = _storage(identifier)
        sizes[key] = size
        if sum(sizes.values()) > length:
            raise ValueError("it is shorter than its tensors")

    with path.open("rb") as file:
        if file.read(2) == b"PK":
            raise ValueError("the end of the archive is missing")
        file.seek(0)
        for _ in range(_PICKLES):
            if file.tell() < length:
                _check_pickle(file, length, storage)


def _check_pickle(file: Any, length: int, storage: Any) -> None:
    try:
        check_pickle(file, length, storage)
    except pickle.UnpicklingError as error:
        raise _Oversized(str(error)) from error


def _storage(identifier: Sequence[object]) -> tuple[object, int]:
    """The key of a storage and its bytes, from what a pickle calls it."""
    count = identifier[4] if len(identifier) > 4 else None
    if not isinstance(count, int):
        raise ValueError("a tensor has no size")
    kind = str(identifier[1]).rpartition(" ")[2]
    if count < 0:
        raise ValueError("a tensor has a negative size")
    return identifier[2], count * _ITEM_BYTES.get(kind, 1)


def _check_tensors(content: object, path: Path) -> None:
    """Refuse tensors that are larger than their bytes, as by a stride of 0, and odd kinds."""
    waiting, seen = [("", content)], set[int]()
    while waiting:
        name, found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, Mapping):
            waiting += [(str(key)[:80], value) for key, value in found.items()]
        elif isinstance(found, argparse.Namespace):
            waiting.append((name, vars(found)))
        elif isinstance(found, list | tuple):
            waiting += [(name, value) for value in found]
        elif isinstance(found, Tensor) and (why := _why_odd(found)):
            raise BadInput(
                f"refused to read the checkpoint {path}",
                why=f"its tensor {name} {why}",
                fix="Save plain tensors: `torch.save({k: v.contiguous() for k, v in "
                "model.state_dict().items()}, FILE)`",
            )


def _why_odd(tensor: Tensor) -> str:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return f"is of the kind {tensor.layout}, {tensor.dtype} on {tensor.device}"
    if tensor.is_complex():
        return "holds complex numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"has {tensor.numel():,} values, and the file holds fewer for it"
    return ""


def _other_kind(path: Path) -> tuple[str, str] | None:
    """The kind of a file that people may take for a checkpoint, and what to do with it."""
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".onnx":
        return "an ONNX model", "Export from the checkpoint that it was made from"
    if path.suffix == ".safetensors" or (head[8:] == b"{" and head[4:8] == bytes(4)):
        return (
            "a safetensors file",
            "Save what it holds with torch.save(safetensors.torch.load_file(FILE), 'model.pth')",
        )
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return None  # reading it tells what is wrong
        if any(name.endswith("/constants.pkl") for name in names):
            return (
                "a TorchScript program",
                "Save its weights with torch.save(torch.jit.load(FILE).state_dict(), 'model.pth')",
            )
    return None


def _unsafe_name(error: pickle.UnpicklingError) -> str:
    """What PyTorch's message says that the file wanted, such as `os.system`."""
    found = re.search(r"(?:GLOBAL|class|type|function)\s+[`'\"]?(\w+(?:\.\w+)+)", str(error))
    return found.group(1) if found else "something other than tensors and containers"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
