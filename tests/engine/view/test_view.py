"""The page in the browser: who may read it, what it costs a job, and what a viewer sees."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest

from retinart import BadInput, Detections
from retinart.engine.common.address import Address
from retinart.engine.media.frame import Frame
from retinart.engine.media.images import Image
from retinart.engine.view.board import Board, Figures
from retinart.engine.view.server import ViewServer
from support import make_picture

Command = Callable[..., CompletedProcess[str]]
CLASSES = ["disc", "<b>ring</b>"]


def _board(sources: int = 1) -> Board:
    about = {
        "sources": [f"source {i}" for i in range(sources)],
        "classes": CLASSES,
        "draw_conf": 0.3,
        "areas": {
            "size": [64, 48],
            "regions": [],
            "zones": [{"name": "yard", "points": [[4, 4], [20, 4], [20, 20]]}],
            "lines": [{"name": "gate", "start": [32, 48], "end": [32, 0]}],
        },
    }
    return Board(about, sources, lambda: Figures({}, [0] * sources, [["gate: 3", "yard: 2"]]))


def _frame(index: int = 0, source: int = 0, image: Image | None = None) -> Frame:
    image = make_picture(index) if image is None else image
    return Frame(source="x", source_index=source, index=index, time_ms=None, image=image)


FOUND = Detections(
    xyxy=np.array([[10, 10, 50, 50], [60, 20, 90, 60], [70, 70, 99, 90]], np.float32),
    confidence=np.array([0.9, 0.5, 0.2], np.float32),
    class_id=np.array([0, 1, 1], np.int32),
)


def _read(message: bytes) -> tuple[dict[str, Any], list[Image]]:
    """The object and the pictures of a message."""
    length = int.from_bytes(message[:4], "big")
    head, rest = json.loads(message[4 : 4 + length]), message[4 + length :]
    pictures = []
    for frame in head["frames"]:
        data, rest = rest[: frame["bytes"]], rest[frame["bytes"] :]
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        pictures.append(np.asarray(picture, np.uint8))
    assert rest == b""
    return head, pictures


def test_the_newest_frame_of_each_source() -> None:
    board = _board(2)
    for index in range(3):
        board.put(_frame(index), FOUND)
    board.put(_frame(7, 1), FOUND[:1])
    head, pictures = _read(board.news(0, 0))
    assert [(f["source"], f["frame"]) for f in head["frames"]] == [(0, 2), (1, 7)]
    assert (head["number"], head["ended"], head["dropped"]) == (4, False, [0, 0])
    assert head["frames"][0]["detections"][1] == [60, 20, 90, 60, 0.5, 1, -1]
    assert [picture.shape for picture in pictures] == [(96, 128, 3)] * 2
    assert np.abs(pictures[0].astype(int) - make_picture(2)).mean() < 12
    board.put(_frame(3), FOUND)
    head, _ = _read(board.news(4, 0))
    assert [(f["source"], f["frame"]) for f in head["frames"]] == [(0, 3)]
    head, _ = _read(board.news(5, 0))
    assert (head["number"], head["frames"]) == (5, [])


def test_a_large_picture_is_sent_smaller() -> None:
    board = _board()
    board.put(_frame(image=np.zeros((1440, 2560, 3), np.uint8)), FOUND)
    head, (picture,) = _read(board.news(0, 0))
    assert picture.shape == (720, 1280, 3) and head["frames"][0]["size"] == [2560, 1440]


def test_frames_are_encoded_once_and_for_viewers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    count, encode = list[int](), cv2.imencode

    def counted(*given: Any) -> Any:
        count.append(1)
        return encode(*given)

    monkeypatch.setattr(cv2, "imencode", counted)
    board = _board()
    for index in range(20):
        board.put(_frame(index), FOUND)
    assert not count
    threads = [threading.Thread(target=board.news, args=(0, 0)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1


def test_a_viewer_waits_for_the_next_frame_and_for_the_end() -> None:
    board = _board()
    got: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: got.append(_read(board.news(0, 30))[0]))
    waiting.start()
    board.put(_frame(4), FOUND)
    waiting.join(60)
    assert [f["frame"] for f in got[0]["frames"]] == [4]
    waiting = threading.Thread(target=lambda: got.append(_read(board.news(1, 30))[0]))
    waiting.start()
    board.end()
    waiting.join(60)
    assert got[1]["ended"] and not got[1]["frames"]


def test_addresses() -> None:
    assert Address.parse("127.0.0.1:8765") == Address(host="127.0.0.1", port=8765)
    assert Address.parse("[::1]:0").host == "::1" and not Address.parse("localhost:1").token
    wide = Address.parse("0.0.0.0:8765")
    assert len(wide.token) > 16 and wide.token != Address.parse("0.0.0.0:8765").token
    assert wide.link(81) == f"http://{socket.gethostname()}:81/?token={wide.token}"
    assert Address.parse("[fe80::1]:80").link(80).startswith("http://[fe80::1]:80/?token=")
    for text in ("8765", "localhost", ":80", "a:b", "1.2.3.4:70000", "::1:80", "clip.mp4"):
        with pytest.raises(BadInput, match="is not an address with a port"):
            Address.parse(text)


@pytest.mark.parametrize(
    ("served", "host", "allowed"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "localhost:1", True),
        ("127.0.0.1:1", "localhost", True),
        ("127.0.0.1:1", "[::1]:1", True),
        ("127.0.0.1:1", "evil.example:1", False),
        ("127.0.0.1:1", "10.0.0.1:1", False),
        ("127.0.0.1:1", "127.0.0.1.evil.example", False),
        ("127.0.0.1:1", "", False),
        ("0.0.0.0:1", "10.0.0.1:1", True),
        ("0.0.0.0:1", "[fe80::1]:1", True),
        ("0.0.0.0:1", f"{socket.gethostname()}:1", True),
        ("0.0.0.0:1", "evil.example:1", False),
    ],
)
def test_names_that_the_page_is_served_under(served: str, host: str, allowed: bool) -> None:
    assert Address.parse(served).allows_host(host) == allowed


@pytest.fixture
def server() -> Iterator[tuple[Board, ViewServer]]:
    board = _board(2)
    board.put(_frame(), FOUND)
    server = ViewServer(board, Address.parse("127.0.0.1:0"))
    yield board, server
    server.close()


def _status(link: str, **headers: str) -> int:
    request = urllib.request.Request(link, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_what_is_served(server: tuple[Board, ViewServer]) -> None:
    link = server[1].link
    for path in ("", "page.css", "page.js", "about", "news?after=0"):
        assert _status(link + path) == 200, path
    for path in ("server.py", "../view/server.py", "news?after=x", "news?after=-1"):
        assert _status(link + path) == 404, path
    for path in ("", "about", "news?after=0"):
        assert _status(link + path, Host="evil.example") == 421, path


def test_a_token_is_asked_for() -> None:
    address = Address(host="127.0.0.1", port=0, token="secret")
    server = ViewServer(_board(), address)
    try:
        link, _, token = server.link.partition("?")
        assert token == "token=secret"
        for path in ("", "about", "news?after=0"):
            assert _status(link + path) == 403
            assert _status(f"{link}{path}{'&' if '?' in path else '?'}token=wrong") == 403
        assert _status(server.link) == _status(f"{link}about?token=secret") == 200
    finally:
        server.close()


def test_viewers_that_do_not_read(server: tuple[Board, ViewServer]) -> None:
    """They hold neither the job nor other viewers up, and there is a limit to them."""
    board, view = server
    port = int(view.link.rpartition(":")[2].strip("/"))
    image = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    stuck = []
    for index in range(6):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(b"GET /news?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        board.put(_frame(index, image=image), FOUND)
        stuck.append(one)
    for index in range(6, 40):
        board.put(_frame(index, 1), FOUND)  # would never return
    with urllib.request.urlopen(f"{view.link}news?after=0", timeout=60) as answer:
        head, _ = _read(answer.read())
    assert [f["frame"] for f in head["frames"]] == [5, 39]
    more = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    more[-1].settimeout(60)
    assert more[-1].recv(1) == b""  # refused at once
    for one in stuck + more:
        one.close()


def test_an_occupied_port(
    retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        more = ["--out", tmp_path / "out", "--view", address]
        ran = retinart("detect", model_path, images, *more)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"the address {address} cannot be taken: address already in use. Give" in ran.stderr
    assert not (tmp_path / "out").exists()
    ran = retinart("detect", model_path, images, "--view", "clip.mp4")
    assert "'clip.mp4' is not an address with a port" in ran.stderr
    ran = retinart("detect", model_path, "--view", "clip.mp4")  # said that there was no source
    assert ran.returncode == 2 and "put the source before this option" in ran.stderr


def test_a_job_shows_its_frames(
    retinart: Command,
    model_path: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    close = ViewServer.close

    def look(self: ViewServer) -> None:
        for path in ("about", "news?after=0"):
            with urllib.request.urlopen(self.link + path, timeout=60) as answer:
                seen.append(answer.read())
        close(self)

    monkeypatch.setattr(ViewServer, "close", look)
    more = ["--out", tmp_path / "out", "--no-copies", "--view", "127.0.0.1:0"]
    ran = retinart("detect", model_path, video, *more)
    assert ran.returncode == 0 and "watch at http://127.0.0.1:" in ran.stderr
    assert json.loads(seen[0])["sources"] == [str(video)]
    head, (picture,) = _read(seen[1])
    assert head["frames"][0]["frame"] == 9 and picture.shape == (96, 128, 3)
    line = json.loads((tmp_path / "out" / "detections.jsonl").read_text().splitlines()[-1])
    assert len(head["frames"][0]["detections"]) == len(line["detections"]) > 0
    assert head["stages"]["infer"] > 0 and head["rates"][0] > 0


def test_in_a_browser(server: tuple[Board, ViewServer], browser: Any) -> None:
    board, view = server
    stop, errors = threading.Event(), list[str]()

    def feed() -> None:
        index = 0
        while not stop.wait(0.1):
            index += 1
            board.put(_frame(index), FOUND)
            board.put(_frame(index, 1), FOUND[:1])

    def open_page(**more: Any) -> Any:
        page = browser.new_page(**more)
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(view.link)
        page.wait_for_selector("canvas[data-frame]")
        return page

    def shows(page: Any, *counts: int) -> None:
        for i, count in enumerate(counts):
            page.locator("canvas").nth(i).and_(
                page.locator(f'canvas[data-shown="{count}"]')
            ).wait_for(state="attached")

    def frame(page: Any) -> int:
        return int(page.locator("canvas").first.get_attribute("data-frame"))

    def goes_on(page: Any) -> None:
        before, end = frame(page), time.monotonic() + 60
        while frame(page) <= before:
            assert time.monotonic() < end
            time.sleep(0.02)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        page = open_page(viewport={"width": 1280, "height": 800})
        phone = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        for one in (page, phone):  # both see new frames, and nothing is wider than the screen
            goes_on(one)
            assert (
                one.evaluate("document.documentElement.scrollWidth") <= one.viewport_size["width"]
            )
            shows(one, 2, 1)
        light, dark = (
            one.evaluate("getComputedStyle(document.body).backgroundColor") for one in (page, phone)
        )
        assert light != dark
        assert page.locator(".counts").all_inner_texts() == ["gate: 3; yard: 2", ""]
        assert page.locator(".class").all_inner_texts() == [f"{c}\n0.30" for c in CLASSES]
        page.locator("#score").fill("0.6")
        shows(page, 1, 1)
        page.locator(".class input[type=range]").nth(1).fill("0.1")
        shows(page, 3, 1)
        page.get_by_label("show disc").uncheck()
        shows(page, 2, 0)
        shows(phone, 2, 1)  # a viewer's sliders are its own
        page.get_by_role("button", name="Pause").click()
        page.locator("#state", has_text="paused").wait_for()
        still = frame(page)
        page.get_by_label("show disc").check()  # acts on the paused picture
        shows(page, 3, 1)
        goes_on(phone)
        assert frame(page) == still
        page.get_by_role("button", name="Go on").click()
        goes_on(page)
        page.locator("canvas").nth(1).click()
        assert page.locator("figure:visible").count() == 1
        page.keyboard.press("Escape")
        assert page.locator("figure:visible").count() == 2
        assert page.locator("#all:visible").count() == 0
        page.locator("canvas").nth(1).click()
        page.get_by_role("button", name="All sources", exact=True).click()
        assert page.locator("figure:visible").count() == 2
        with page.expect_download() as download:
            page.locator(".snapshot").first.click()
        picture = cv2.imread(str(download.value.path()))
        assert picture is not None and picture.shape == (96, 128, 3)
        board.end()
        page.locator("#state", has_text="the job has ended").wait_for()
    finally:
        stop.set()
        thread.join()
    assert errors == []
