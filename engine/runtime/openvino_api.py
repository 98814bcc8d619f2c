"""OpenVINO: its import, what a device can do, and tensors by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from retinart.engine.errors import MissingDependency

_alive: dict[str, Any] = {}  # an openvino.Core for each device


def load_openvino() -> Any:
    """The module openvino, imported without its telemetry.

    Otherwise the import starts a thread that reports to a server, and writes an identifier to the
    home folder. A detector must not do that unasked.

    Raises:
        MissingDependency: it is not installed.
    """
    telemetry = "openvino_telemetry"
    blocked = "openvino" not in sys.modules and telemetry not in sys.modules
    if blocked:
        sys.modules[telemetry] = None  # type: ignore[assignment]  # how an import is made to fail
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingDependency.package("openvino", "", "Running on OpenVINO") from error
    finally:
        if blocked:
            del sys.modules[telemetry]


def keep_alive(core: Any, device: str) -> Any:
    """Keep an `openvino.Core` of a device until the process ends, and return the one that is kept.

    Unloading the library while its threads run can crash.
    """
    return _alive.setdefault(device, core)


def has_bf16(device: str = "CPU") -> bool:
    """Whether an OpenVINO device has instructions for bfloat16."""
    try:
        core = keep_alive(load_openvino().Core(), device)
        return "BF16" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    except RuntimeError:  # there is no such device; compiling a model for it says so
        return False


def find_tensors(model: Any, names: Iterable[str]) -> list[Any]:
    """The output ports of a graph that carry these tensors, in their order."""
    ports = {
        name: port for op in model.get_ops() for port in op.outputs() for name in port.get_names()
    }
    return [ports[name] for name in names]


def find_tensor(model: Any, name: str) -> Any:
    """The output port of a graph that carries a tensor's name."""
    return find_tensors(model, [name])[0]
