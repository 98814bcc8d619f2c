"""A Ray on this machine, which the tests of the room share."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from retinart.engine.cluster.session import NICENESS


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Any]:
    """Ray's module, connected to a Ray with 2 CPUs that ends with the tests."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_AUTH_TOKEN", "of-the-tests")  # or Ray writes one to the home
    os.environ[NICENESS] = "0"  # or the tests wait for all others on the machine
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path has 107 bytes at most
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray", reason="ray is not installed")
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=80_000_000,
            _temp_dir=folder,
        )
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
