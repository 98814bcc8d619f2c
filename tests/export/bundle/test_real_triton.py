"""A bundle on a real Triton, served on loopback: `Detector`'s detections, single and batched.

The wheel of nvidia-pytriton 0.7 holds Triton 2.51 with the Python backend, and needs no GPU:

    pip download --no-deps nvidia-pytriton==0.7.0 && unzip nvidia_pytriton-*.whl -d triton
    RETINART_TRITON=triton/pytriton/tritonserver make slow
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from real_servers import answer, check_same, free_ports, infer_by_grpc, running

from retinart.engine.detector import Detector
from retinart.engine.model.info import OUTPUTS
from retinart.export.bundle.bundle import make_bundle
from retinart.export.bundle.settings import BundleSettings
from support import load_file, make_picture

pytestmark = pytest.mark.slow

STUB = "triton_python_backend_stub"
PICTURES, CLIENTS = 20, 8


def _problems(log: str) -> str:
    """The lines of Triton's log that are no part of a table."""
    lines = [line for line in log.splitlines() if not line.startswith(("|", "+"))]
    return "\n".join(lines)[-4000:]


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
    address = f"http://127.0.0.1:{http}"
    with running(command, address, log, _problems, env=environment):
        yield address, f"http://127.0.0.1:{metrics}/metrics", f"127.0.0.1:{grpc}"
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
        for found in (single, *(batched[i : i + PICTURES] for i in range(0, 60, PICTURES))):
            check_same(detector, expected, found)
    (stats,) = json.loads(answer(f"{address}/v2/models/m/stats"))["model_stats"]
    print(
        f"batches: { {b['batch_size']: b['compute_infer']['count'] for b in stats['batch_stats']} }"
    )
    assert stats["inference_count"] >= 4 * PICTURES > 0
    assert stats["execution_count"] < stats["inference_count"]  # some requests shared a batch
    assert 'nv_inference_request_success{model="m"' in answer(metrics)
    two = np.stack(images[:2])
    by_grpc = infer_by_grpc(grpc, "m", two, OUTPUTS)
    for name, values in client.infer(address, two).items():
        np.testing.assert_array_equal(by_grpc[name], values)
