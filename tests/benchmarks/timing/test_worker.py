"""A process that works for another one: it answers, and the other one survives its end."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from retinart.benchmarks.timing.worker import Incomplete, Lost, Worker, nothing, stateless
from retinart.engine.errors import BadInput

# The other process cannot import this module, because tests are not a package.
incomplete = partial(
    exec,
    "from retinart.benchmarks.timing.worker import Incomplete\n"
    "raise Incomplete({'no graph': {'ms': 1}, 'graph': 'CudaError: 900'})",
    {},
)
bad_input = partial(
    exec, "from retinart.engine.errors import BadInput\nraise BadInput('a', fix='b')", {}
)


def test_a_worker_keeps_its_state_between_calls() -> None:
    with Worker(partial(iter, (1, 2, 3))) as worker:
        assert [worker.call(next) for _ in range(3)] == [1, 2, 3]


def test_a_worker_outlives_what_it_does() -> None:
    with Worker(nothing, seconds=30) as worker:
        first = worker.call(stateless(os.getpid))
        assert first == worker.call(stateless(os.getpid)) != os.getpid()
        end = partial(exec, "import os, signal\nos.kill(os.getpid(), 11)\nsignal.pause()")
        with pytest.raises(Lost, match="its process died with exit code -11"):
            worker.call(stateless(end))
        with pytest.raises(Lost, match="ValueError: invalid literal") as lost:
            worker.call(stateless(partial(int, "x")))
        assert "Traceback" in str(lost.value.__cause__)
        assert worker.call(stateless(os.getpid)) != first


def test_our_own_errors_come_as_they_are() -> None:
    with Worker(nothing) as worker:
        with pytest.raises(Incomplete) as caught:
            worker.call(stateless(incomplete))
        assert caught.value.figures["graph"] == "CudaError: 900"
        with pytest.raises(BadInput) as bad:
            worker.call(stateless(bad_input))
        assert (bad.value.what, bad.value.fix) == ("a", "b")
        with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
            worker.call(stateless(partial(exec, "import a_module_that_is_not_there")))


def test_what_takes_too_long_is_ended() -> None:
    with Worker(nothing, seconds=0.5) as short:
        with pytest.raises(Lost, match=r"stopped after 0\.5 s"):
            short.call(stateless(partial(time.sleep, 60)))
        with pytest.raises(Lost, match=r"stopped after 0\.2 s"):
            short.call(stateless(partial(time.sleep, 60)), seconds=0.2)
