"""What may be a secret in an address is shown nowhere."""

from __future__ import annotations

import pytest

from retinart.engine.media.address import shown_address, without_secrets
from retinart.engine.media.settings import LiveSettings, Selection
from retinart.engine.media.sources import Sources


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://host/cam@1", "rtsp://host/cam@1"),
        ("rtsp://me@host", "rtsp://host"),
        ("rtsp://me:p@ss@host:9/x", "rtsp://host:9/x"),
        ("rtsp://[::1]:554/a", "rtsp://[::1]:554/a"),
        ("http://me:PW@host/x?token=T&size=2", "http://host/x?token=…&size=…"),
        ("http://host:80/x?mail=a@b", "http://host:80/x?mail=…"),
        ("http://host/x?SECRET", "http://host/x?…"),
        ("http://host/x#T", "http://host/x#…"),
        ("rtsp://admin:p/w@host/live?a=T", "rtsp://…@host/live?a=…"),
        ("rtsp://admin:p?w@host/live", "rtsp://…@host/live"),
        ("rtsp://admin:p#w@host/live", "rtsp://…@host/live"),
        ("rtsp://admin:1/2@host", "rtsp://…@host"),
        ("rtsp://admin:1?2@host", "rtsp://…@host"),
        ("rtsp://admin:p@s/w@host/live", "rtsp://…@host/live"),
        ("rtsp://us/er:SECRET@host/live", "rtsp://…@host/live"),
        ("rtsp://us?er:SEC=RET@host/live?a=T", "rtsp://us?…"),
        ("rtsp:user:SECRET@host/live", "rtsp:…@host/live"),
        ("http:/user:SEC@RET@host/live", "http:…@host/live"),
        ("frame_%04d.png", "frame_%04d.png"),
        ("photos:me@home.jpg", "photos:me@home.jpg"),
    ],
)
def test_shown_address(address: str, shown: str) -> None:
    assert shown_address(address) == shown


def test_addresses_in_messages() -> None:
    text = "[Errno 5] Input/output error: 'rtsp://me:secret@host/x?key=T'; see file://a b"
    shown = "[Errno 5] Input/output error: 'rtsp://host/x?key=…'; see file://a b"
    assert without_secrets(text) == shown
    text = "there is no video at http:/me:secret@host/x.mp4. Check the path."
    assert without_secrets(text) == "there is no video at http:…@host/x.mp4. Check the path."


def test_addresses_that_differ_in_what_is_hidden_have_names_of_their_own() -> None:
    names = [f"http://127.0.0.1:9/x?camera={n}" for n in (1, 2)]
    sources = Sources(names, selection=Selection(), settings=LiveSettings(max_retries=0))
    shown = [source.name for source in sources.all]
    sources.close()
    assert shown == ["http://127.0.0.1:9/x?camera=…", "http://127.0.0.1:9/x?camera=… (2)"]
