"""OpenVINO: its import, what a device can do, and tensors by name."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from retinart.engine.errors import MissingDependency

_cores: dict[bool, Any] = {}
_making = threading.Lock()
_TELEMETRY, _CONVERTER = "openvino_telemetry", "openvino.tools.ovc"


def load_openvino() -> Any:
    """The module openvino, imported without its telemetry and without its converter of models.

    The telemetry starts a thread that reports to a server, and writes an identifier to the home
    folder. A detector must not do that unasked. The converter takes longer to import than all the
    rest. `openvino.convert_model` imports it when it is first called.

    Raises:
        MissingDependency: it is not installed.
    """
    if "openvino" in sys.modules:
        return importlib.import_module("openvino")
    try:
        with _absent(_TELEMETRY), _absent(_CONVERTER):
            openvino: Any = importlib.import_module("openvino")
    except ImportError as error:
        raise MissingDependency.package("openvino", "", "Running on OpenVINO") from error
    if not hasattr(openvino, "convert_model"):
        openvino.convert_model = _convert_model
    return openvino


@contextlib.contextmanager
def _absent(name: str) -> Iterator[None]:
    """A block in which a module that was not imported yet cannot be imported."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)  # another thread may have done so


def _convert_model(*given: Any, **more: Any) -> Any:
    """What `openvino.convert_model` is until it is called."""
    with _absent(_TELEMETRY):
        converter = importlib.import_module(_CONVERTER)
    load_openvino().convert_model = converter.convert_model
    return converter.convert_model(*given, **more)


def openvino_core(*, snippets: bool = True) -> Any:
    """The process's `openvino.Core`. It lives until the process ends, for two reasons.

    Unloading a device's library while its threads run can crash. And on a CPU with AMX that library
    gives its thread a stack for signal handlers, which it frees when it is unloaded in another
    thread; the next signal, such as Ctrl-C, then ends the process with a segmentation fault.

    Args:
        snippets: False for a Core of its own that keeps additions inside INT8 convolutions. With
            Snippets such a convolution writes four bytes a value, which costs 1 to 5% of a frame.
            The property is not public; an OpenVINO without it keeps Snippets.

    Raises:
        MissingDependency: OpenVINO is not installed.
    """
    with _making:
        if snippets not in _cores:
            core = load_openvino().Core()
            if not snippets:
                with contextlib.suppress(RuntimeError):
                    core.set_property("CPU", {"SNIPPETS_MODE": "DISABLE"})
            _cores[snippets] = core
        return _cores[snippets]


def has_bf16(device: str = "CPU") -> bool:
    """Whether an OpenVINO device has instructions for bfloat16."""
    try:
        return "BF16" in openvino_core().get_property(device, "OPTIMIZATION_CAPABILITIES")
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


def fold_constants(model: Any) -> None:
    """Compute what depends on constants alone, in an `openvino.Model` that is changed in place."""
    passes: Any = importlib.import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
