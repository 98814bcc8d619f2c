"""A package that an extra installs: missing, broken, or there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retinart.engine.common.packages import import_package
from retinart.engine.errors import MissingDependency, pip_command

FIX = "Install it again"


def _imported(module: str) -> object:
    return import_package(module, package="the-package", extra="some", purpose="This", fix=FIX)


def test_it_is_there() -> None:
    assert _imported("json") is json


def test_it_is_missing() -> None:
    with pytest.raises(MissingDependency) as caught:
        _imported("retinart_none")
    assert str(caught.value) == (
        "This needs the package the-package, which is not installed. "
        f"Install it with `{pip_command('some')}` in retinart's folder."
    )


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_one_of_its_libraries_is_missing(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"broken_{error}.py").write_text(f"raise {error}('libfoo.so.1: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency) as caught:
        _imported(f"broken_{error}")
    assert str(caught.value) == (
        "the-package is installed and cannot be loaded: libfoo.so.1: no such file. "
        "Install it again."
    )
