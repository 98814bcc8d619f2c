"""What KServe needs: the manifests of an `InferenceService`, and the folder of its own predictor.

KServe's documentation has the fields of the manifests.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from retinart.engine.common.files import write_json
from retinart.engine.model.info import ModelInfo
from retinart.export.bundle.settings import BundleSettings
from retinart.export.bundle.triton import NETWORK, REPOSITORY, Plan, write_triton
from retinart.export.openvino_ir import write_ir

# what the tests ran with
_REQUIREMENTS = "kserve==0.21.0\nopenvino==2026.4.1\n"
_PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
_LEAST_BYTES = 8 << 20  # KServe's own limit of a message by gRPC
_DYNAMIC_BYTES = 64 << 20
_DOCKERFILE = """\
# No container engine has built this file yet. Its RUN lines ran in a bare Debian 12 root, and the
# predictor ran there as user 10001 on a read-only root.
FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends python3-venv \\
    && rm -rf /var/lib/apt/lists/*
WORKDIR /model
COPY requirements.txt .
RUN python3 -m venv /opt/kserve && /opt/kserve/bin/pip install --no-cache-dir -r requirements.txt
COPY . .
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
ENTRYPOINT ["/opt/kserve/bin/python", "predictor.py"]
"""


def write_kserve(
    folder: Path, model: Path, info: ModelInfo, plans: Sequence[Plan], settings: BundleSettings
) -> tuple[str, str, str]:
    """Write a repository for KServe's Triton, a predictor of our own, and a manifest for each.

    Args:
        folder: an empty folder.

    Returns:
        The model's name, what runs it, and what must be known where it runs.
    """
    name, backend, _ = write_triton(folder / REPOSITORY, model, info, plans, settings)
    note = _write_predictor(folder / "predictor", model, name, settings)
    (folder / "triton.yaml").write_text(_triton_service(name), "utf-8")
    service = _predictor_service(name, info, settings.max_batch)
    (folder / "predictor.yaml").write_text(service, "utf-8")
    return name, f"{backend} in Triton, and by OpenVINO in the predictor", note


def _write_predictor(folder: Path, model: Path, name: str, settings: BundleSettings) -> str:
    """Write what runs the model on OpenVINO, to build an image of; returns the IR's note."""
    folder.mkdir()
    note = write_ir(model, folder / "model.xml", winograd=settings.winograd).note
    here = Path(__file__).parent
    shutil.copyfile(here / "kserve_predictor.py", folder / "predictor.py")
    shutil.copyfile(here / NETWORK, folder / NETWORK)
    known = {"name": name, "max_batch": settings.max_batch, "properties": _PROPERTIES}
    write_json(folder / "predictor.json", known, indent=1)
    (folder / "requirements.txt").write_text(_REQUIREMENTS, "utf-8")
    (folder / "Dockerfile").write_text(_DOCKERFILE, "utf-8")
    return note


def _head(name: str) -> str:
    """The lines of an `InferenceService` that come before what its predictor is."""
    return f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {_label(name)}
spec:
  predictor:
"""


def _triton_service(name: str) -> str:
    """An `InferenceService` for KServe's Triton; users fill in the storage's address."""
    return f"""{_head(name)}\
    model:
      modelFormat:
        name: triton
      protocolVersion: v2
      # where the folder `repository` was copied to: pvc://, s3://, gs:// or https://
      storageUri: pvc://models/{name}/repository
"""


def _predictor_service(name: str, info: ModelInfo, max_batch: int) -> str:
    """An `InferenceService` for the predictor; users fill in the image's name."""
    canvas = info.resize.canvas
    frames = max_batch * canvas[0] * canvas[1] * 3 if canvas else _DYNAMIC_BYTES
    return f"""{_head(name)}\
    containers:
      - name: kserve-container
        # what `docker build` makes of the folder `predictor`
        image: registry.example.com/{_label(name)}:1
        args:
          - --threads=2  # as many as `cpu` below
          - --grpc_max_receive_message_length={max(_LEAST_BYTES, frames + (1 << 20))}
        ports:
          - containerPort: 8080
            protocol: TCP
        readinessProbe:
          httpGet:
            path: /v2/models/{name}/ready
            port: 8080
        resources:
          requests:
            cpu: "2"
            memory: 2Gi
          limits:
            cpu: "2"
            memory: 2Gi
        securityContext:
          runAsNonRoot: true
          allowPrivilegeEscalation: false
"""


def _label(name: str) -> str:
    """A model's name as Kubernetes takes it: small letters, digits and -, a letter first."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (label if label[:1].isalpha() else f"model-{label}")[:63].rstrip("-")
