"""The double of CUDA that other tests rely on."""

from __future__ import annotations

import numpy as np
import pytest

from recording_gpu import RecordingCuda


def test_the_double_itself() -> None:
    """It notices what it is there to notice."""
    cuda = RecordingCuda()
    with pytest.raises(AssertionError, match="without the context"):
        cuda.device_memory(10)
    with cuda.current():
        memory, host, stream = cuda.device_memory(10), cuda.host_memory(10), cuda.stream()
        with pytest.raises(AssertionError, match="page-locked"):
            stream.upload(memory.address, np.zeros(10, np.uint8))
        host.array[:] = 7
        stream.upload(memory.address, host.array)
        host.array[:] = 8  # too early: it is not copied yet
        stream.synchronize()
        assert (cuda.at(memory.address, 10) == 8).all()
        with pytest.raises(AssertionError, match="out of an allocation"):
            cuda.at(memory.address + 4, 10)
        stream.download(host.array, memory.address)
        memory.free()
        with pytest.raises(AssertionError, match="no memory"):
            stream.synchronize()
        with pytest.raises(AssertionError, match="freed twice"):
            memory.free()
    with pytest.raises(AssertionError, match="not freed"):
        cuda.close()
