"""A bundle on a real Triton, served on loopback: `Detector`'s detections, single and batched.

The wheel of nvidia-pytriton 0.7 holds Triton 2.51 with the Python backend, and needs no GPU:

    pip download --no-deps nvidia-pytriton==0.7.0 && unzip nvidia_pytriton-*.whl -d triton
    RETINART_TRITON=triton/pytriton/tritonserver make slow
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinart.engine.detections import Detections
from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import match
from retinart.export.bundle.bundle import make_bundle
from retinart.export.bundle.settings import BundleSettings
from support import load_file, make_picture

pytestmark = pytest.mark.slow

STUB = "triton_python_backend_stub"
PICTURES, CLIENTS = 20, 8


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answer(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as reply:
        return str(reply.read().decode())


def _problems(log: Path) -> str:
    """The lines of Triton's log that are no part of a table."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if not line.startswith(("|", "+")))[-4000:]


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Triton's folder, with the stub of this Python's version beside the Python backend."""
    given = os.environ.get("RETINART_TRITON", "")
    if not given:
        pytest.skip("RETINART_TRITON is not set: the head of this file says how to get a Triton")
    folder = tmp_path_factory.mktemp("triton") / "tritonserver"
    shutil.copytree(given, folder, symlinks=True)
    libraries = Path(given).parent.parent / "nvidia_pytriton.libs"
    (folder.parent.parent / libraries.name).symlink_to(libraries)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = folder / "python_backend_stubs" / version / STUB
    shutil.copy(stub, folder / "backends" / "python" / STUB)
    for program in (folder / "bin" / "tritonserver", folder / "backends" / "python" / STUB):
        program.chmod(0o755)
    return folder


@pytest.fixture(params=["fp32", "int8"])
def bundle(
    request: pytest.FixtureRequest, model_path: Path, int8_path: Path, tmp_path: Path
) -> tuple[Path, Path]:
    """A model, and its bundle."""
    model = model_path if request.param == "fp32" else int8_path
    settings = BundleSettings(server="triton", backend="python", name="m")
    return model, make_bundle(model, [], tmp_path / "repository", settings).path


@pytest.fixture
def server(
    triton: Path, bundle: tuple[Path, Path], tmp_path: Path
) -> Iterator[tuple[str, str, str]]:
    """The addresses of a Triton that serves the bundle: of REST, of metrics, and of gRPC."""
    http, grpc, metrics = free_ports(3)
    log = tmp_path / "triton.log"
    command = [
        str(triton / "bin" / "tritonserver"),
        f"--model-repository={bundle[1]}",
        f"--backend-directory={triton / 'backends'}",
        *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")),
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
    ]
    # Python inside of Triton finds its packages beside the first python3 on the path
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(triton.parent.parent / "nvidia_pytriton.libs"),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        for _ in range(120):
            try:
                answer(f"http://127.0.0.1:{http}/v2/health/ready")
                break
            except OSError:
                assert process.poll() is None, _problems(log)
                time.sleep(0.5)
        else:
            raise AssertionError(_problems(log))
        addresses = (f"http://127.0.0.1:{http}", f"http://127.0.0.1:{metrics}/metrics")
        yield (*addresses, f"127.0.0.1:{grpc}")
    finally:
        process.terminate()
        process.wait(60)
    assert "Traceback" not in log.read_text(errors="replace")


def test_the_same_detections(server: tuple[str, str, str], bundle: tuple[Path, Path]) -> None:
    address, metrics, grpc = server
    model, folder = bundle
    client = load_file(folder / "client.py")
    images = [make_picture(seed) for seed in range(PICTURES)]
    single = [client.detect(address, image) for image in images]
    with ThreadPoolExecutor(CLIENTS) as pool:
        batched = list(pool.map(lambda image: client.detect(address, image), images * 3))
    with Detector(model) as detector:
        expected = [detector(image) for image in images]
        most = detector.thresholds.detections_per_img
        for found in (single, *(batched[i : i + PICTURES] for i in range(0, 60, PICTURES))):
            for one, answered in zip(expected, found, strict=True):
                cut = float(one.confidence[-1]) if len(one) == most else 0.0
                floor = max(cut, detector.thresholds.score_thresh)
                result = match(one, as_detections(answered, detector), floor=floor)
                assert result.same and result.matched, result
    (stats,) = json.loads(answer(f"{address}/v2/models/m/stats"))["model_stats"]
    print(
        f"batches: { {b['batch_size']: b['compute_infer']['count'] for b in stats['batch_stats']} }"
    )
    assert stats["inference_count"] >= 4 * PICTURES > 0
    assert stats["execution_count"] < stats["inference_count"]  # some requests shared a batch
    assert 'nv_inference_request_success{model="m"' in answer(metrics)
    check_grpc(grpc, np.stack(images[:2]), client.infer(address, np.stack(images[:2])))


def check_grpc(address: str, frames: Any, expected: dict[str, Any]) -> None:
    """KServe's protocol by gRPC gives what it gives by REST."""
    library = pytest.importorskip("tritonclient.grpc")
    given = library.InferInput("frames", list(frames.shape), "UINT8")
    given.set_data_from_numpy(frames)
    with library.InferenceServerClient(address) as grpc:
        found = grpc.infer("m", [given])
    for name, values in expected.items():
        np.testing.assert_array_equal(found.as_numpy(name), values)


def as_detections(answered: list[tuple[str, float, list[float]]], detector: Detector) -> Detections:
    names, scores, boxes = zip(*answered, strict=True) if answered else ((), (), ())
    ids: Any = [detector.classes.index(name) for name in names]
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array(scores, np.float32),
        class_id=np.array(ids, np.int32),
    )
