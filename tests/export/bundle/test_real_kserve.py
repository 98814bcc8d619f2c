"""The bundle's predictor on a real KServe server, and its manifests by KServe's classes.

The package kserve wants an older protobuf than retinart's other packages, so it has an environment
of its own. It was tried with kserve 0.21.0:

    retinart bundle model.onnx --for kserve -o kserve
    python3 -m venv kserve-env && kserve-env/bin/pip install -r kserve/predictor/requirements.txt
    RETINART_KSERVE=kserve-env/bin/python make slow
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_servers import answer, check_same, free_ports, infer_by_grpc, running

from retinart.calib.calibrate import calibrate
from retinart.calib.settings import CalibrationSettings
from retinart.engine.detector import Detector
from retinart.engine.media.images import list_images, read_image
from retinart.engine.model.info import OUTPUTS
from retinart.export.bundle.bundle import make_bundle
from retinart.export.bundle.settings import BundleSettings
from support import ROOT, load_file

pytestmark = pytest.mark.slow

MODEL = ROOT / "src" / "retinart" / "demo" / "assets" / "bccd.onnx"
FRAME = (256, 320, 3)
PICTURES, CLIENTS = 20, 8

# Checks manifests by the classes of the packages kserve and kubernetes, and prints what is wrong
# with each: a field that they do not have, a value of another type, or a missing field.
CHECKER = """
import json, re, sys
import kserve, kubernetes.client, yaml

PLAIN = {"str": str, "int": int, "bool": bool, "float": float, "IntOrString": (int, str)}

def check(kind, value, place):
    listed = re.fullmatch(r"[Ll]ist\\[(.+)\\]", kind)
    mapped = re.fullmatch(r"[Dd]ict[([]str, (.+)[)\\]]", kind)
    if listed or mapped:
        if not isinstance(value, list if listed else dict):
            raise ValueError(f"{place} is {value!r}, and not of the type {kind}")
        for key, one in enumerate(value) if listed else value.items():
            check((listed or mapped)[1], one, f"{place}.{key}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]):
            raise ValueError(f"{place} is {value!r}, and not of the type {kind}")
    elif kind != "object":
        model = getattr(kserve, kind, None) or getattr(kubernetes.client, kind)
        names = {key: name for name, key in model.attribute_map.items()}
        for key, one in (value or {}).items():
            if key not in names:
                raise ValueError(f"{place} has no field {key}")
            check(model.openapi_types[names[key]], one, f"{place}.{key}")
        model(**{names[key]: one for key, one in (value or {}).items()})

def problem(text):
    service = yaml.safe_load(text)
    try:
        check("V1ObjectMeta", service["metadata"], "metadata")
        check("V1beta1InferenceService", service, "service")
    except ValueError as error:
        return str(error)
    return ""

print(json.dumps([problem(text) for text in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def python() -> str:
    """The Python that has kserve."""
    given = os.environ.get("RETINART_KSERVE", "")
    if not given:
        pytest.skip("RETINART_KSERVE is not set: the head of this file says how to get a KServe")
    return given


@pytest.fixture(scope="module")
def pictures(shared: Callable[..., Path]) -> list[Path]:
    """Pictures that the model is for."""
    return list_images(str(shared("data", "bccd", "images")))[:PICTURES]


@pytest.fixture(scope="module", params=["fp32", "int8"])
def bundle(
    request: pytest.FixtureRequest, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A model, and its bundle."""
    folder, model = tmp_path_factory.mktemp("kserve"), MODEL
    if request.param == "int8":
        model = folder / "bccd.int8.onnx"
        settings = CalibrationSettings(images=str(pictures[0].parent), num=16)
        calibrate(MODEL, model, settings)
    settings_of_bundle = BundleSettings(server="kserve", name="m")
    return model, make_bundle(model, [], folder / "new", settings_of_bundle).path


@pytest.fixture(scope="module")
def server(
    python: str, bundle: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The addresses of a predictor that runs with the manifest's arguments: REST, and gRPC."""
    http, grpc = free_ports(2)
    arguments = re.findall(r"- (--\S+)", (bundle[1] / "predictor.yaml").read_text())
    assert len(arguments) == 2
    ports = [f"--http_port={http}", f"--grpc_port={grpc}"]
    command = [python, "predictor.py", *arguments, *ports]
    log = tmp_path_factory.mktemp("log") / "kserve.log"
    address, folder = f"http://127.0.0.1:{http}", bundle[1] / "predictor"
    with running(command, address, log, str, cwd=folder):
        yield address, f"127.0.0.1:{grpc}"


def test_health_and_metadata(server: tuple[str, str]) -> None:
    """The same tensors as on Triton."""
    address, grpc = server
    assert json.loads(answer(f"{address}/v2/health/live")) == {"live": True}
    assert json.loads(answer(f"{address}/v2/models/m/ready")) == {"name": "m", "ready": True}
    metadata = json.loads(answer(f"{address}/v2/models/m"))
    print(metadata)
    found = {
        one["name"]: (one["datatype"], one["shape"])
        for one in metadata["inputs"] + metadata["outputs"]
    }
    assert found == {
        "frames": ("UINT8", [-1, 256, 320, 3]),
        "num_detections": ("INT32", [-1, 1]),
        "detection_boxes": ("FP32", [-1, 100, 4]),
        "detection_scores": ("FP32", [-1, 100]),
        "detection_classes": ("INT32", [-1, 100]),
    }
    library = pytest.importorskip("tritonclient.grpc")
    with library.InferenceServerClient(grpc) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("m")
        by_grpc = client.get_model_metadata("m")
        assert {
            one.name: (one.datatype, list(one.shape)) for one in (*by_grpc.inputs, *by_grpc.outputs)
        } == found


def test_the_same_detections(
    server: tuple[str, str], bundle: tuple[Path, Path], pictures: list[Path]
) -> None:
    """Requests one by one, concurrent ones, and one of eight frames; by REST and by gRPC."""
    address, grpc = server
    model, folder = bundle
    client = load_file(folder / "client.py")
    images = [read_image(path)[:, :600] for path in pictures]  # they fill the frame
    with Detector(model) as detector:
        expected = [detector(image) for image in images]
        single = [client.detect(address, image) for image in images]
        check_same(detector, expected, single)
        with ThreadPoolExecutor(CLIENTS) as pool:
            found = list(pool.map(lambda image: client.detect(address, image), images))
            check_same(detector, expected, found)
            # the client of REST with the requests of gRPC
            frames = [client.resize(image)[0] for image in images]
            ask = lambda frame: infer_by_grpc(grpc, "m", frame[None], OUTPUTS)  # noqa: E731
            by_grpc = list(pool.map(ask, frames))
            by_rest = list(pool.map(lambda frame: client.infer(address, frame[None]), frames))
        eight = infer_by_grpc(grpc, "m", np.stack(frames[:8]), OUTPUTS)
    for name in OUTPUTS:
        for one, other in zip(by_grpc, by_rest, strict=True):
            np.testing.assert_array_equal(one[name], other[name])
    counts = [int(one["num_detections"][0, 0]) for one in by_grpc]
    print(f"{model.name}: {sum(counts)} detections on {len(images)} pictures")
    assert eight["num_detections"].ravel().tolist() == counts[:8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "image"}, "the model takes one input: frames, UINT8 of the shape [-1, 256,"),
        ({"datatype": "FP32"}, "the model takes one input: frames, UINT8"),
        ({"shape": [1, 2, 2, 3]}, "the shape is [1, 2, 2, 3]; the model takes frames, UINT8 of"),
        ({"shape": [5]}, "frames cannot be read: cannot reshape array"),
        ({"data": [300] * 12}, "frames cannot be read: "),
        ({"shape": [9, *FRAME], "data": [0] * (9 * math.prod(FRAME))}, "9 images are more than 8"),
    ],
)
def test_what_is_refused(server: tuple[str, str], change: dict[str, Any], message: str) -> None:
    tensor = {"name": "frames", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [0] * 12}
    body = json.dumps({"inputs": [{**tensor, **change}]}).encode()
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server[0]}/v2/models/m/infer", body, head)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    text = caught.value.read().decode()
    print(caught.value.code, text)
    assert caught.value.code == 400 and message in text


def test_manifests_have_the_fields_of_kserve(python: str, bundle: tuple[Path, Path]) -> None:
    """Each change of a manifest is refused, and the manifest itself is not."""
    texts, messages = list[str](), list[str]()
    for name, changes in {
        "triton.yaml": {
            "modelFormat:": ("modelformat:", "predictor.model has no field modelformat"),
            "protocolVersion: v2": ("protocolVersion: 2", "protocolVersion is 2, and not of the"),
            "        name: triton\n": ("", "Invalid value for `model_format`, must not be `None`"),
            "  predictor:": ("  predictors:", "service.spec has no field predictors"),
            "metadata:\n  name:": ("metadata:\n  nme:", "metadata has no field nme"),
        },
        "predictor.yaml": {
            "        image:": ("        imag:", "containers.0 has no field imag"),
            "httpGet:": ("httpget:", "readinessProbe has no field httpget"),
            "8080\n            protocol": ("'x'\n            protocol", "containerPort is 'x'"),
            "limits:": ("limit:", "resources has no field limit"),
            "runAsNonRoot:": ("runAsNobody:", "securityContext has no field runAsNobody"),
        },
    }.items():
        text = (bundle[1] / name).read_text()
        texts.append(text)
        messages.append("")
        for old, (new, message) in changes.items():
            assert text.count(old) == 1
            texts.append(text.replace(old, new))
            messages.append(message)
    command = [python, "-c", CHECKER]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for found, message in zip(json.loads(done.stdout), messages, strict=True):
        print(found or "no problem")
        assert message in found if message else not found
