"""Pictures through the actors of a Ray on this machine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from retinart.engine.cluster.actor import ActorSettings
from retinart.engine.cluster.batches import DetectBatch
from retinart.engine.cluster.job import RayJob, run_ray_job
from retinart.engine.cluster.pool import Pool, PoolSettings
from retinart.engine.errors import BadInput
from retinart.engine.job.settings import DetectJob
from retinart.engine.job.stop import StopRequest
from support import files_below, read_lines, write_images

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures and a damaged one."""
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder, *(f"{i}.png" for i in range(7)))
    (folder / "4-damaged.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


@pytest.mark.usefixtures("local_ray")
def test_the_command_writes_what_it_writes_without_ray(
    retinart: Command, model_path: Path, pictures: Path, tmp_path: Path
) -> None:
    """Of two sources too, whose lines take turns; and COCO results and CSV."""
    sources = [pictures, pictures / "6.png"]
    written = {}
    for name, how in (("here", ["--no-copies"]), ("ray", ["--ray", "--ray-cpus", "1"])):
        out = tmp_path / name
        files = ["--csv", out / "all.csv", "--coco", out / "coco.json"]
        done = retinart("detect", model_path, *sources, "--out", out, *files, *how)
        assert done.returncode == 0, done.stderr
        assert f"skipped {pictures / '4-damaged.jpg'}: " in done.stderr
        names = ("detections.jsonl", "all.csv", "coco.json")
        assert sorted(files_below(out)) == sorted([*names, "summary.json"])
        summary = json.loads((out / "summary.json").read_text())
        counts = {k: v for k, v in summary["frames"].items() if k != "covers"}
        written[name] = [(out / name).read_bytes() for name in names], counts
    assert written["here"] == written["ray"]


@pytest.mark.usefixtures("local_ray")
def test_killed_actors_and_a_stopped_job_lose_and_repeat_nothing(
    model_path: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor is killed after the first shard, and the job is stopped after the second."""
    detector = {"threads": 1, "check": False, "throughput": True}
    on = RayJob(
        actor=ActorSettings(model=model_path, detector=detector),
        pool=PoolSettings(cpus=2),
        shard=2,
    )
    stop, given, lost = StopRequest(), list[list[int]](), list[int]()
    run = Pool.run

    def troubled(
        pool: Pool, shards: Mapping[int, Sequence[str]], asked: Callable[[], bool]
    ) -> Iterator[Any]:
        given.append(sorted(shards))
        for count, result in enumerate(run(pool, shards, asked)):
            if len(given) == 1 and count == 0:
                [pid] = pool.pids
                os.kill(pid, signal.SIGKILL)
            if len(given) == 1 and count == 1:
                stop.request("the test")
            lost[len(given) - 1 :] = [pool.lost]
            yield result

    monkeypatch.setattr(Pool, "run", troubled)
    job = DetectJob(source=str(pictures), out=tmp_path / "ray", copies=False)
    job.out.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_ray_job(job, on, stop=stop)
    kept = files_below(job.out / "shards")
    assert len(kept) == 3 and "job.json" in kept
    assert not (job.out / "detections.jsonl").exists()

    summary = run_ray_job(job, on, stop=StopRequest())
    assert given[0] == [0, 1, 2, 3] and len(given[1]) == 2
    assert lost[0] == 1 and lost[1] == 0
    assert (summary.frames, len(summary.skipped), summary.seconds) == (7, 1, 0.0)
    assert files_below(job.out) == ["detections.jsonl", "summary.json"]
    names = [Path(line["source"]).name for line in read_lines(job.out / "detections.jsonl")]
    assert names == [f"{i}.png" for i in range(7)]


@pytest.mark.usefixtures("local_ray")
def test_an_evaluation_has_the_same_figures(
    retinart: Command, tiny_path: Path, scenes: Path, tmp_path: Path
) -> None:
    images, reports, results = scenes / "images", [], []
    annotations = scenes / "instances.json"
    for how in ([], ["--ray"]):
        file = tmp_path / f"results{len(how)}.json"
        data = ["--images", images, "--annotations", annotations, "--save-results", file]
        done = retinart("eval", tiny_path, *data, "--json", *how)
        assert done.returncode == 0, done.stderr
        reports.append({**json.loads(done.stdout), "ms_per_image": {}})
        results.append(file.read_bytes())
    assert reports[0] == reports[1] and reports[0]["figures"]["AP"] > 0.3
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray Data's own settings
def test_batches_of_a_dataset_are_written_as_parquet_and_json(
    local_ray: Any, model_path: Path, pictures: Path, tmp_path: Path
) -> None:
    from pyarrow import parquet
    from ray import data

    data.DataContext.get_current().enable_progress_bars = False
    rows = [{"path": str(path)} for path in sorted(pictures.iterdir())]
    found = data.from_items(rows, override_num_blocks=1).map_batches(
        DetectBatch,
        fn_constructor_kwargs={"model": model_path, "check": False},
        num_cpus=1,
        compute=data.ActorPoolStrategy(size=1),
        batch_size=3,
    )
    found = found.materialize()
    found.write_parquet(str(tmp_path / "parquet"))
    found.write_json(str(tmp_path / "json"))
    lines = [line for file in (tmp_path / "json").iterdir() for line in read_lines(file)]
    table = parquet.read_table(tmp_path / "parquet")
    expected = DetectBatch(model_path, threads=1)({"path": [row["path"] for row in rows]})
    assert table.equals(expected)
    for line, row in zip(lines, expected.to_pylist(), strict=True):
        for name in ("boxes", "scores"):  # as decimal numbers
            assert np.allclose(line.pop(name), row.pop(name), atol=1e-6)
        assert line == row


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--ray", "--track"], "--track and --ray exclude each other. Leave out --track or --ray"),
        (["--ray", "--threads", "1"], "--threads and --ray exclude each other. Give --ray-cpus"),
        (["--ray-cpus", "2"], "--ray-cpus is for --ray"),
        (["--ray", "--ray-cpus", "64"], "no node of the cluster has 64 CPUs"),
        (["--ray", "somewhere"], "put the source before this option"),
    ],
)
def test_options_that_cannot_be(
    retinart: Command,
    model_path: Path,
    pictures: Path,
    tmp_path: Path,
    options: list[str],
    text: str,
) -> None:
    out = tmp_path / "out"
    done = retinart("detect", model_path, pictures, "--out", out, *options)
    assert done.returncode == 2 and text in done.stderr
    assert not out.exists()


def test_the_end_of_ray_is_named(
    local_ray: Any, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: "cannot read or write: Broken pipe. Check the path" when the head node was gone."""

    def wait(*args: object, **more: object) -> None:
        raise OSError("Broken pipe")

    pool = Pool(local_ray, ActorSettings(model=model_path), PoolSettings(cpus=1))
    monkeypatch.setattr(local_ray, "wait", wait)
    with pytest.raises(BadInput, match=r"Ray ended before .*: Broken pipe\. See its logs"):
        list(pool.run({0: ["picture.png"]}))


def test_an_address_that_is_not_there_leaves_nothing(
    retinart: Command,
    model_path: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have begun one
    out = tmp_path / "out"
    done = retinart("detect", model_path, pictures, "--out", out, "--ray", "127.0.0.1:1")
    assert done.returncode == 2, done.stderr
    assert "no Ray answers at 127.0.0.1:1: Connection refused. Give the address" in done.stderr
    assert not out.exists()
