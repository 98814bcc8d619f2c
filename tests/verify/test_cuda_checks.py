"""The group "cuda" of the checks on a GPU, through the real cuda-bindings on a driver of a CPU.

Each check passes there, and notices a fault of the driver that it is there to notice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinart.engine.cuda.devices import find_gpus
from retinart.engine.cuda.open_gpu import installed_bindings
from retinart.verify.cuda_checks import CHECKS
from stand_in_cuda import compile_driver, run_on
from support import Once

# One check on its own, so that one process is enough
ONE = """
import sys
from retinart.verify.cuda_checks import CHECKS
from retinart.benchmarks.timing.worker import Incomplete
try:
    CHECKS[sys.argv[1]]("cuda-bindings")
except Incomplete as error:
    print("faults:", error.figures["over the limit"])
"""


@pytest.fixture(scope="module")
def driver(once: Once) -> Path:
    if find_gpus() or installed_bindings() != ["cuda-bindings"]:
        pytest.skip("this is about a machine without a GPU, with cuda-bindings and without pycuda")
    return once("driver", compile_driver)


def test_every_check_passes_on_a_driver_that_works(driver: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    code = (
        "import sys\n"
        "from retinart.verify import __main__ as program\n"
        "from retinart.verify import run_checks\n"
        "run_checks.RUNNER = ()\n"  # that has a test of its own
        "sys.exit(program.main(sys.argv[1:]))"
    )
    program = ("-c", code, "--cuda", "--out", out)
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
        ("lost replay", "1,000 replays of a graph", "100 of 1000 replays gave another picture"),
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


# The runner over PyTorch: argv holds the check, and what to break in it
RUNNER = """
import sys
import torch
from retinart.verify import over_pytorch, run_checks, torch_tensorrt
from retinart.benchmarks.timing.worker import Incomplete
from retinart.engine.tensorrt import lane

assert tuple(over_pytorch.CHECKS) == run_checks.RUNNER
torch.set_num_threads(1)
name, broken = sys.argv[1:]
if broken == "scores":
    at = torch_tensorrt._Detect._suppress
    torch_tensorrt._Detect._suppress = lambda self, boxes, scores: at(self, boxes, scores * 0.9)
if broken == "graph":
    lane.Lane._capture = lambda self, bound: setattr(self, "no_graph", "broken")
effort = {"frames": 2, "seconds": 0.01, "contexts": (1, 2), "repeats": 2}
try:
    figures = over_pytorch.over_pytorch(over_pytorch.CHECKS[name], "cuda-bindings", effort)
    print("good:", figures)
except Incomplete as error:
    print("faults:", error.figures)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "broken", "fault", "says"),
    [
        ("detections", "", "", "good: {'no graph': {'onnxruntime': {'counted': "),
        ("GPU resize", "", "", "good: {'onnxruntime': "),
        ("detections", "scores", "", "of the detections have a partner"),
        ("detections", "graph", "", "plain launches, for want of a graph: broken"),
        ("GPU resize", "scores", "", "of the detections have a partner"),
    ],
)
def test_the_runner_over_pytorch(
    driver: Path, check: str, broken: str, fault: str, says: str
) -> None:
    done = run_on(driver, "-c", RUNNER, check, broken, fault=fault)
    assert says in done.stdout, done.stdout + done.stderr
    assert done.stdout.startswith("good:" if not broken and not fault else "faults:")
