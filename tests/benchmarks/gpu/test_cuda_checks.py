"""The group "cuda" of the checks on a GPU, through the real cuda-bindings on a driver of a CPU.

Each check passes there, and notices a fault of the driver that it is there to notice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinart.benchmarks.gpu.cuda_checks import CHECKS
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.cuda.open_gpu import installed_bindings
from stand_in_cuda import compile_driver, run_on

# One check on its own, so that one process is enough
ONE = """
import sys
from retinart.benchmarks.gpu.cuda_checks import CHECKS
from retinart.benchmarks.timing.worker import Incomplete
try:
    CHECKS[sys.argv[1]]("cuda-bindings")
except Incomplete as error:
    print("faults:", error.figures["over the limit"])
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_gpus() or installed_bindings() != ["cuda-bindings"]:
        pytest.skip("this is about a machine without a GPU, with cuda-bindings and without pycuda")
    return compile_driver(tmp_path_factory.mktemp("driver"))


def test_every_check_passes_on_a_driver_that_works(driver: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    program = ("-m", "retinart.benchmarks.gpu.verify", "--cuda", "--out", out)
    done = run_on(driver, *program)
    steps: dict[str, Any] = json.loads(out.read_text())["steps"]
    states = {name: step["state"] for name, step in steps.items()}
    pytorch = states.pop("cuda, beside PyTorch, cuda-bindings")
    assert pytorch == "skipped" and "has no CUDA" in done.stdout
    names = {f"cuda, {name}, cuda-bindings" for name in CHECKS}
    assert names - set(states) == {"cuda, beside PyTorch, cuda-bindings"}
    assert set(states.values()) == {"done"} and (done.returncode, done.stderr) == (3, "")
    assert "stand-in" in steps["environment"]["result"]["gpus"][0]


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        ("short copy", "page-locked copies", "came back changed"),
        ("clock", "page-locked copies", "clock stands still"),
        ("resize", "resize kernel", "pictures of the GPU are not the CPU's"),
        ("nms", "NMS kernel", "3 of 3 images differ"),
        ("lost replay", "1,000 replays of a graph", "10 of 1000 replays gave another picture"),
        ("capture runs", "1,000 replays of a graph", "the capture ran its work"),
        ("early", "a broken capture", "after it a copy went wrong"),
        ("recovery", "a broken capture", "CAPTURE_UNSUPPORTED"),
        ("lost replay", "8 threads", "another thread's, or came too early"),
        ("current", "contexts", "still current after its block"),
        ("leak", "memory", "MB of the GPU's memory are gone"),
    ],
)
def test_a_check_notices_its_fault(driver: Path, fault: str, check: str, says: str) -> None:
    done = run_on(driver, "-c", ONE, check, fault=fault)
    assert says in done.stdout + done.stderr
    assert done.stdout.startswith("faults:") or fault == "recovery"
