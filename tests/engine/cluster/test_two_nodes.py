"""`detect --ray` on two nodes of this machine, of which parts are killed in the middle.

`pytest -m slow -s -n 0 tests/engine/cluster/test_two_nodes.py` prints what happened.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retinart.engine.cluster.session import NICENESS
from support import files_below

pytestmark = pytest.mark.slow

PICTURES = 640
LONG = 240.0  # seconds


@pytest.fixture(scope="module")
def pictures(small_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with many names of twelve pictures, and one that cannot be read."""
    folder, files = tmp_path_factory.mktemp("many"), sorted(small_scenes.iterdir())
    for i in range(PICTURES):
        file = files[i % len(files)]
        os.link(file, folder / f"{i:04d}{file.suffix}")
    (folder / "0100-damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head node and another node, each with 1 CPU."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ[NICENESS] = "0"
    utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed")
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def command(model: Path, pictures: Path, out: Path, *more: str) -> list[str]:
    words = ["-m", "retinart", "detect", model, pictures, "--out", out, *more]
    return [sys.executable, *map(str, words)]


@pytest.fixture(scope="module")
def expected(model_path: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The lines without Ray."""
    out = tmp_path_factory.mktemp("here") / "out"
    how = ("--no-copies", "--threads", "1")
    subprocess.run(command(model_path, pictures, out, *how), check=True, capture_output=True)
    return (out / "detections.jsonl").read_bytes()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)


def actors() -> list[int]:
    """The processes of actors on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::DetectorActor.detect"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def shards(out: Path) -> list[Path]:
    return sorted((out / "shards").glob("0*.jsonl"))


@pytest.mark.parametrize("lost", ["nothing", "an actor", "a node"])
def test_two_nodes_give_the_same_lines(
    cluster: Any, model_path: Path, pictures: Path, expected: bytes, tmp_path: Path, lost: str
) -> None:
    out = tmp_path / "out"
    words = command(model_path, pictures, out, "--ray", cluster.address)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as run:
        if lost != "nothing":
            wait_for(lambda: len(shards(out)) >= 1 and (lost == "a node" or actors()))
            if lost == "a node":
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            else:
                os.kill(actors()[0], signal.SIGKILL)
        paths, told = run.communicate(timeout=LONG)
    print(f"\nlost {lost}: exit code {run.returncode}\n{told}")
    assert run.returncode == 0
    assert paths.split() == [str(out / "detections.jsonl"), str(out / "summary.json")]
    assert "2 actors of Ray with 1 CPU each" in told
    assert (out / "detections.jsonl").read_bytes() == expected
    assert files_below(out) == ["detections.jsonl", "summary.json"]
    assert ("another one takes its place" in told) == (lost != "nothing")


def test_a_killed_command_and_a_lost_cluster_are_taken_up_again(
    cluster: Any, model_path: Path, pictures: Path, expected: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = command(model_path, pictures, out, "--ray", cluster.address)
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as killed:
        wait_for(lambda: len(shards(out)) >= 2)
        killed.kill()
    kept = {path: path.stat().st_mtime_ns for path in shards(out)}
    print(f"\nkilled with {len(kept)} shards finished: {files_below(out)}")
    assert not (out / "detections.jsonl").exists()

    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as run:
        wait_for(lambda: len(shards(out)) > len(kept))
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        begin = time.monotonic()
        cluster.head_node.kill_gcs_server()
        cluster.head_node.kill_raylet()
        _, told = run.communicate(timeout=LONG)
    print(f"head node lost: exit code {run.returncode} after {time.monotonic() - begin:.0f} s")
    print(told[-1000:])
    assert run.returncode == 1 or "Ray ended before the work was done" in told  # 1: Ray's own end
    assert not (out / "detections.jsonl").exists()
    kept = {path: path.stat().st_mtime_ns for path in shards(out)}

    words = command(model_path, pictures, out, "--ray", "--ray-cpus", "1")
    done = subprocess.run(words, capture_output=True, text=True, timeout=LONG)
    print(f"a new Ray: exit code {done.returncode}\n{done.stderr}")
    assert done.returncode == 0, done.stderr
    assert "are finished by an earlier run" in done.stderr
    assert (out / "detections.jsonl").read_bytes() == expected
