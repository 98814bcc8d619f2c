"""CUDA graphs of the engine runtime, against recording doubles. Nothing here is a GPU test."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from fake_tensorrt import FakeTensorRTRTX, Made, frames, run

from retinart.engine.errors import RetinartError


def test_detections_with_and_without_a_graph(made: Made) -> None:
    for seed in range(5):
        made.check(frames(seed))
    # one plain run of each context that was used, then it is captured, then replayed
    assert made.cuda.count("make graph") == 1
    assert (made.cuda.count("execute"), made.cuda.count("launch")) == (1, 4 * 2)


@pytest.mark.parametrize("graphs", [True, False])
def test_without_graphs(model_path: Path, graphs: bool) -> None:
    made = Made(model_path, captures=False, graphs=graphs)
    for seed in range(12):
        made.check(frames(seed))
    assert made.cuda.count("capture execute") == (3 if graphs else 0)  # and never again
    assert (made.cuda.count("make graph"), made.cuda.count("execute")) == (0, 12)
    made.runner.close()


def test_a_capture_that_something_else_broke_is_tried_again(made: Made) -> None:
    made.check(frames(0))
    made.cuda.captures = False
    made.check(frames(1))
    assert made.runner.no_graph
    made.cuda.captures = True
    made.check(frames(2))
    assert not made.runner.no_graph and made.cuda.count("make graph") == 1


def test_a_stale_error_after_a_failed_capture(model_path: Path) -> None:
    """The plain run is tried once more, and only then."""
    made = Made(model_path, captures=False, contexts=1)
    made.trt.fail = "stale"
    for seed in range(3):
        made.check(frames(seed))
    assert made.cuda.count("execute") == 3
    made.trt.fail = "execute"
    with pytest.raises(RetinartError, match="could not run"):
        run(made.runner, frames(0))
    made.runner.close()


def test_no_context_is_made_or_first_run_during_a_capture(dynamic_model_path: Path) -> None:
    """TensorRT may then wait for the whole GPU, which would break the capture."""
    made = Made(dynamic_model_path, contexts=2)
    small = frames(1, height=64, width=64)
    threads, during = list[threading.Thread](), list[str]()

    def other() -> None:
        begin = len(made.cuda.log)
        thread = threading.Thread(target=run, args=(made.runner, small))
        thread.start()
        thread.join(0.3)
        threads.append(thread)
        during.extend(made.cuda.log[begin:])

    made.check(frames(0))
    made.cuda.at_capture = other
    made.check(frames(0))
    made.cuda.at_capture = lambda: None
    (thread,) = threads
    thread.join()
    assert "make execution context" not in during and "execute" not in during
    assert made.cuda.count("make execution context") == 2
    made.check(small)
    made.runner.close()


def test_why_there_is_no_graph(model_path: Path) -> None:
    for captures, graphs, why in ((False, True, "900"), (False, False, ""), (True, True, "")):
        made = Made(model_path, captures=captures, graphs=graphs)
        for _ in range(2):
            run(made.runner, frames(0))
        assert made.runner.no_graph.endswith(f"({why})." if why else "")
        assert bool(made.runner.no_graph) == bool(why)
        made.runner.close()


def test_rtx_is_told_how_to_make_contexts_and_asked_before_a_capture(model_path: Path) -> None:
    for fail, graphs in (("", 1), ("capture", 0)):
        made = Made(model_path, kind=FakeTensorRTRTX)
        made.trt.fail = fail
        for _ in range(3):
            made.check(frames(0))
        assert made.cuda.count("make graph") == graphs
        assert made.cuda.count("make runtime configuration") == 1
        assert bool(made.runner.no_graph) == bool(fail)
        made.runner.close()
        order = ["runtime configuration", "runtime cache", "engine", "runtime", "close context"]
        assert made.cuda.log[-5:] == [f"free {x}" for x in order[:4]] + order[4:]
