"""`retinart benchmark`: every figure is there and plausible. Nothing here depends on time."""

from __future__ import annotations

import csv
import html
import json
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from made_up import interval, made_benchmark, model_times
from retinart.benchmarks.grid.steps import random_checkpoint
from retinart.benchmarks.latency import report as latency_report
from retinart.benchmarks.latency import run as latency
from retinart.benchmarks.latency import tables as latency_tables
from retinart.benchmarks.latency.shares import count_work, with_shares
from retinart.benchmarks.peers import find as peers
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.peaks import Peaks
from retinart.benchmarks.timing.results import Benchmark, Percentiles
from retinart.engine.common.html_page import why_no_page
from retinart.engine.common.typed_json import read_typed
from retinart.engine.cuda.devices import Gpu
from retinart.engine.errors import BadInput, pip_command
from retinart.engine.model.info import read_info
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from support import make_picture, narrow

Command = Callable[..., CompletedProcess[str]]


def test_benchmark(
    retinart: Command, model_path: Path, int8_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o" / "b"
    ran = retinart(
        "benchmark", model_path, int8_path, "--images", small_scenes, "--num-images", "2",
        "--repeats", "2", "--threads", "1", "--out", out,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("2 images x 2 repeats, 1 threads")
    assert [line.split("|")[1].strip() for line in lines[4:6]] == ["model.onnx", "model.int8.onnx"]
    result = json.loads((out / "benchmark.json").read_text())
    fp32, int8 = result["models"]
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    assert fp32["input"] == int8["input"] == [96, 128] and fp32["gmac"] == int8["gmac"] > 0
    for m in (fp32, int8):
        stages = m["ms"]
        parts = sum(stages[name]["p50"] for name in ("resize", "infer", "nms", "results"))
        assert 0.5 * parts < stages["total"]["p50"] and stages["infer"]["p50"] > 0
        assert stages["decode"]["p50"] > 0
        assert stages["total"]["p50"] <= stages["total"]["p90"] <= stages["total"]["p99"]
        assert len(m["runs_ms"]["total"]) == 4 and np.isclose(
            np.median(m["runs_ms"]["total"]), stages["total"]["p50"], atol=1e-3
        )
        assert m["load_ms"] > 0 and m["first_ms"] > 0
        # of the worker alone, which has no PyTorch: not what this process held when it started it
        assert 50 < m["peak_mib"] < resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert m["images_per_second"] > 0 and m["share_of_peak"] > 0
    assert fp32["times_as_fast_as_first"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    _check_files(out, result)
    assert len(result["reference_ms"]) == 3 * 3 and result["noise"] >= 0


def _check_files(out: Path, result: dict[str, Any]) -> None:
    """The table and the page hold what the JSON does; the page needs no network."""
    with (out / "benchmark.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["model.onnx", "model.int8.onnx"]
    for row, m in zip(rows, result["models"], strict=True):
        assert float(row["infer_p90_ms"]) == m["ms"]["infer"]["p90"]
    page = (out / "report.html").read_text()
    assert result["command"].startswith("retinart benchmark /") and (
        html.escape(result["command"]) in page
    )
    assert " --num-images 2 --repeats 2 --threads 1 --images " in result["command"]
    assert page.count("<svg") == 2 and "model.int8.onnx, 4 runs" in page
    assert re.fullmatch(r"[0-9a-f]{40}( with changes)?", result["machine"]["commit"])
    for text in (result["machine"]["commit"], result["machine"]["versions"]["openvino"]):
        assert text in page
    links = re.findall(r'(?:src|href)="([^"#]*)', page)
    assert not [link for link in links if link] and "url(http" not in page


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The numbers are written all the same, and the reason says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert pip_command("report") in why_no_page()
    result = made_benchmark(model_times())
    written = latency_report.write_results(tmp_path, result)
    assert [path.name for path in written] == ["benchmark.json", "benchmark.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.csv", "benchmark.json"]
    assert read_typed(Benchmark, written[0]) == result


def test_ap_is_in_points_in_the_table_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = made_benchmark(model_times(ap=0.5814, ap50=None))
    paths = latency_report.write_results(tmp_path, result)
    with paths[1].open(newline="") as file:
        row = next(csv.DictReader(file))  # a peer has a row behind it
    assert (row["ap"], row["ap50"]) == ("58.14", "")
    assert read_typed(Benchmark, paths[0]).models[0].ap == 0.5814


def test_benchmarks_of_other_versions_are_refused_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = latency_report.write_results(tmp_path, made_benchmark(model_times()))[0]
    content = json.loads(path.read_text())
    for change, message in (
        ({"schema": 0}, "has schema 0, and this version reads schema 1"),
        ({"schema": 2}, "Upgrade retinart"),
        ({"noise": "low"}, 'the field noise has to be a number, and is "low"'),
        ({"models": [{**content["models"][0], "sha256": 3}]}, "the field models[0].sha256 has to"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(BadInput, match=re.escape(message)):
            read_typed(Benchmark, path)


def test_macs(model_path: Path) -> None:
    """The first convolution of `tiny` is 7x7 with stride 2; the count grows with the area."""
    small, large = (count_work(model_path, (96, w)) for w in (128, 256))
    stem = 48 * 64 * 3 * 7 * 7  # a channel
    assert small.macs > 16 * stem
    assert large.macs == pytest.approx(2 * small.macs, rel=0.05)
    assert small.values < large.values < 2 * small.values  # the weights are the same


def test_gpus_and_their_driver_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(index=0, name="NVIDIA X", compute_capability="9.0", cuda="13.0")
    monkeypatch.setattr(machine, "find_gpus", lambda: [gpu])
    found = machine.describe()
    assert found.gpus == (gpu,) and found.driver
    page = latency_report.environment("retinart benchmark", found)
    assert "NVIDIA X, compute capability 9.0, CUDA 13.0" in page
    monkeypatch.setattr(machine, "find_gpus", list)
    assert (machine.describe().gpus, machine.describe().driver) == ((), None)


def test_shares() -> None:
    """A millisecond at a tenth of the peak; memory's share only where its limit is known."""
    ms = {"infer": Percentiles.of([1.0])}
    row = model_times(precision="int8", gmac=0.05, gvalues=0.25, share_of_peak=None, ms=ms)
    cpu = Peaks(fp32=250, int8=1000)
    on_cpu = with_shares(row, cpu)
    assert on_cpu.share_of_peak == pytest.approx(0.1) and on_cpu.share_of_bandwidth is None
    gpu = Peaks(fp32=250, int8=1000, fp16=500, bandwidth=1000)
    half = with_shares(replace(row, precision="fp16"), gpu)
    assert half.share_of_peak == pytest.approx(0.2)
    assert half.share_of_bandwidth == pytest.approx(0.5)  # 0.25 G numbers of two bytes
    for unknown in (with_shares(replace(row, gmac=None), cpu), with_shares(row, None)):
        assert unknown.share_of_peak is None


def test_scales_batches_streams_and_accuracy(
    retinart: Command, dynamic_model_path: Path, small_scenes: Path
) -> None:
    """Each setting has its row; times are for one image, for every batch; AP is the scale's."""
    ran = retinart(
        "benchmark", dynamic_model_path, "--images", small_scenes, "--num-images", "3",
        "--repeats", "1", "--threads", "1", "--imgsz", "64", "96", "--batch", "1", "2",
        "--streams", "2", "--annotations", small_scenes.parent / "instances.json", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    names = [m["model"].removeprefix("dynamic.onnx ") for m in result["models"]]
    assert names == [
        "at 64 2 streams", "at 64 batch 2 2 streams", "at 96 2 streams", "at 96 batch 2 2 streams",
    ]  # fmt: skip
    small, _, large, _ = result["models"]
    assert small["input"] == [64, 96] and large["input"] == [96, 128]
    for m in result["models"]:
        assert len(m["runs_ms"]["total"]) == 3 * 2  # a run for each image and stream
        assert m["ap"] is not None and m["detections"] > 0
    assert small["gmac"] < large["gmac"]
    assert "--imgsz 64 96 --batch 1 2 --streams 2" in result["command"]
    assert "--peers" not in result["command"]


def test_peers(
    retinart: Command, model_path: Path, noisy_checkpoint: Path, small_scenes: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Those that run here find as many objects as we do; the others are left out, and why."""
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    monkeypatch.setattr(peers, "find_gpus", list)
    out = tmp_path / "out"
    ran = retinart(
        "benchmark", model_path, "--images", small_scenes, "--num-images", "2", "--repeats", "1",
        "--threads", "1", "--peers", "--checkpoint", noisy_checkpoint, "--out", out,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result = json.loads((out / "benchmark.json").read_text())
    assert [p["peer"] for p in result["peers"]] == ["PyTorch eager", "ONNX Runtime"]
    (model,) = result["models"]
    assert list(model["times_as_fast_as"]) == ["PyTorch eager", "ONNX Runtime"]
    for peer in result["peers"]:
        assert peer["detections"] == pytest.approx(model["detections"], rel=0.05)
        assert peer["ms"]["total"]["p50"] > 0 and peer["input"] == model["input"]
    left_out = {p["name"]: p["why"] for p in result["left_out"]}
    assert left_out["torch-compile-fp16"] == "there is no GPU here"
    assert "needs a C++ compiler" in left_out["torch-compile"]
    for text in (ran.stdout, (out / "report.html").read_text()):
        assert "torchvision has no RetinaNet of retinart" in text
        assert "Left out: torch-compile-fp16, as there is no GPU here." in html.unescape(text)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_peer(retinart: Command, small_scenes: Path, tmp_path: Path) -> None:
    """The same network through torch.compile, which finds what the file finds.

    Each layer that it has takes a compiler seconds, so it has few.
    """
    torch.manual_seed(0)
    variant = replace(preset("tiny", 2), fpn_channels=16, head_convs=0, head_norm_groups=0)
    model = build_retinanet(variant, prior=0.3).eval()
    torch.nn.init.normal_(model.cls_head.output.weight, std=0.05)
    checkpoint, exported = tmp_path / "small.pt", tmp_path / "small.onnx"
    save_checkpoint(checkpoint, model=model, variant=variant, classes=("a", "b"), training={})
    export_checkpoint(checkpoint, exported, ExportSettings(height=64, width=64, tensorrt=False))
    ran = retinart(
        "benchmark", exported, "--images", small_scenes, "--num-images", "1", "--repeats", "1",
        "--threads", "1", "--peers", "torch-compile", "--checkpoint", checkpoint, "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    (peer,), (model,) = result["peers"], result["models"]
    assert not result["left_out"] and peer["peer"] == "torch.compile"
    assert peer["detections"] > 50
    assert peer["detections"] == pytest.approx(model["detections"], rel=0.05)


def test_torchvision_peer(retinart: Command, tmp_path: Path, shared: Callable[..., Path]) -> None:
    """torchvision's own network, with a backbone that it has no function for."""
    folder = Path("build/peers")
    if not (folder / "torchvision").is_dir():
        pytest.skip("torchvision is not in build/peers")
    checkpoint, model = tmp_path / "r18.pth", tmp_path / "r18.onnx"
    random_checkpoint(checkpoint, "resnet18", 4, make_picture(1))
    export_checkpoint(checkpoint, model, ExportSettings(imgsz=64, tensorrt=False))
    ran = retinart(
        "benchmark", model, "--images", shared("data", "coco_val206", "images"), "--num-images",
        "1", "--repeats", "1", "--threads", "1", "--peers", "torchvision", "--checkpoint",
        checkpoint, "--json", "--torchvision", folder,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert not result["left_out"]
    assert result["peers"][0]["peer"] == "torchvision eager"
    assert result["peers"][0]["input"] == result["models"][0]["input"]


def test_images_that_get_the_same_size(model_path: Path, tmp_path: Path) -> None:
    """A fixed 4:3 input holds other shapes smaller than a shorter side alone would make them."""
    info = read_info(model_path)
    info = replace(info, resize=replace(info.resize, short_side=96))
    for name, (height, width) in {"a": (480, 640), "b": (427, 640), "c": (640, 480)}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((height, width, 3), np.uint8))
    assert [p.stem for p in peers.same_size(sorted(tmp_path.iterdir()), info)] == ["a"]


def test_differences_that_are_too_small_to_tell() -> None:
    def warnings(noise: float, *rows: tuple[str, float, float], runs: int = 6) -> list[str]:
        models = [
            model_times(n, times_as_fast_as_first=interval((a + b) / 2, (b - a) / 2),
                        times_as_fast_as={})
            for n, a, b in rows
        ]  # fmt: skip
        result = made_benchmark(*models, noise=noise, images=("1.jpg",), repeats=runs)
        return latency_tables.warnings(result)

    told = warnings(0.02, ("a", 1, 1), ("b", 0.97, 1.05), ("c", 1.1, 1.2))
    assert re.match("The machine was quiet: the reference workload, .* varied by 2%.$", told[0])
    assert [t.split(":")[1] for t in told[1:]] == [
        " no difference can be told between b and the first"
    ]
    rows = (("a", 1, 1), ("d", 0.8, 0.9), ("e", 1.3, 1.36), ("f", 1.5, 1.7))
    noisy = warnings(0.4, *rows)
    assert re.match("WARNING: the machine was not quiet: .* varied by 40%.*nothing.$", noisy[0])
    assert [t.partition(". ")[0] for t in noisy[1:]] == [
        "WARNING: d is 0.85 (0.80 to 0.90) times as fast as the first",
        "WARNING: e is 1.33 (1.30 to 1.36) times as fast as the first",
    ]
    assert "The difference is 18%, and the machine's noise is 40%, so this" in noisy[1]
    assert len(warnings(0.1, *rows)) == 1
    (_, few) = warnings(0.02, ("a", 1, 1), runs=4)
    assert few.startswith("WARNING: 4 runs are too few for a 95% interval")


@pytest.mark.parametrize(
    ("int8", "fp32", "more", "said"),
    [
        (1.0, 2.0, {}, ["On this machine FP32 is faster than INT8: b.onnx is 2.00"]),
        (2.0, 1.0, {}, []),
        (1.0, 2.0, {"gmac": 3.0}, []),  # another model
        (1.0, 2.0, {"batch": 2}, []),
        (1.0, 2.0, {"precision": "bf16"}, []),
    ],
)
def test_where_fp32_is_faster_than_int8(
    int8: float, fp32: float, more: dict[str, Any], said: list[str]
) -> None:
    slow = model_times("a.onnx", int8, precision="int8")
    found = list(latency_tables.int8_is_slower((slow, model_times("b.onnx", fp32, **more))))
    assert [line[: len(said[0])] for line in found] == said if said else not found


def test_a_row_that_cannot_run_here_is_left_out(
    retinart: Command, model_path: Path, small_scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are measured; where no row is left, the reason is the error."""
    monkeypatch.setattr(latency, "has_bf16", lambda: False)
    arguments = ("benchmark", model_path, "--images", small_scenes, "--num-images", "1",
                 "--repeats", "1", "--threads", "1", "--compute", "bf16")  # fmt: skip
    ran = retinart(*arguments, "fp32")
    assert ran.returncode == 0, ran.stderr
    why = "Left out: model.onnx in bf16, as this CPU has no bf16 instructions."
    assert ran.stdout.count(why) == 1 and "| model.onnx | fp32 |" in narrow(ran.stdout)
    ran = retinart(*arguments)
    assert ran.returncode == 3 and "this CPU has no bf16 instructions" in ran.stderr


def test_what_would_fail_later_fails_before_the_work(
    retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Not even the machine's peaks are measured."""
    monkeypatch.setattr(latency, "measure_peaks", lambda threads: pytest.fail("work was begun"))
    for more, message in (
        (("--annotations", tmp_path / "none.json"), "none.json"),
        (("--images", tmp_path / "none"), "none"),
        (("--max-pixels", "9"), "exceeds limit of 9 pixels"),
        (("--peers", "tensorflow"), "there is no peer 'tensorflow'"),
        (("--peers", "onnxruntime", "--checkpoint", tmp_path / "no.pt"), "there is no checkpoint"),
    ):
        ran = retinart("benchmark", model_path, "--images", small_scenes, *more)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr


def test_drawn_scenes_where_no_images_are_given(
    retinart: Command, model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They leave no files, need no PyTorch, and the output names them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    few = ("--num-images", "2", "--repeats", "1", "--threads", "1", "--json")
    ran = retinart("benchmark", model_path, *few)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["images"] == ["000000.jpg", "000001.jpg"] and not list(tmp_path.iterdir())
    assert result["what"].endswith("drawn scenes") and "--images" not in result["command"]
    said = "WARNING: no real images were given"
    assert result["drawn"] and said in " ".join(
        latency_tables.warnings(made_benchmark(model_times(), drawn=True))
    )
    assert said not in " ".join(latency_tables.warnings(made_benchmark(model_times())))


def test_bad_input(retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path) -> None:
    peer = ("--images", small_scenes, "--peers", "torchvision")
    for arguments, message in (
        ((model_path, model_path, "--images", small_scenes), "a model is named twice"),
        ((model_path, "--images", tmp_path / "none"), "none"),
        ((model_path, "--annotations", tmp_path / "a.json"), "Give the folder with --images"),
        ((model_path, "--images", small_scenes, "--repeats", "0"), "repeats is 0"),
        ((tmp_path / "no.onnx", "--images", small_scenes), "there is no model at"),
        ((model_path, "--images", small_scenes, "--imgsz", "64"), "has a fixed input size"),
        ((model_path, "--images", small_scenes, "--batch", "0"), "batch is 0"),
        ((model_path, *peer, "torchvision"), "peers is torchvision, torchvision"),
        ((model_path, "--images", small_scenes, "--compute", "fp32", "fp32"), "compute is fp32, f"),
        ((model_path, "--images", small_scenes, "--peers", "x"), "there is no peer 'x'"),
        ((model_path, *peer, "--batch", "2"), "peers run one image at a time"),
        ((model_path, *peer, "--checkpoint", model_path), "was not exported from"),
    ):
        ran = retinart("benchmark", *arguments)
        assert ran.returncode == 2 and message in ran.stderr, ran.stderr
