"""The documentation site: what is laid out for it, and that a broken link is noticed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import retinart
from retinart.cli import COMMANDS
from support import ROOT


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/build_site.py, for a repository of its own."""
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "build_site", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PAGES", tmp_path / "build" / "pages")
    return module


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_links_lead_to_the_same_places(site: ModuleType, tmp_path: Path) -> None:
    readme = "[a](docs/a.md#x) [b](lib/b.py) [c](https://c) `[d](d.md)`\n\n    [e](e.md)\n"
    write(
        tmp_path,
        README_dot_md=readme,
        docs__a_dot_md="![p](p.png) [b](../lib/b.py)",
        docs__p_dot_png="picture",
        lib__b_dot_py="print(1)\n",
        lib__unused_dot_py="",
    )
    site.lay_pages()
    pages = tmp_path / "build" / "pages"
    files = {str(path.relative_to(pages)) for path in pages.rglob("*") if path.is_file()}
    assert files == {"README.md", "docs/a.md", "docs/p.png", "lib/b.py.md"}
    assert (pages / "README.md").read_text() == readme.replace("b.py", "b.py.md")
    assert "```python\nprint(1)\n" in (pages / "lib" / "b.py.md").read_text()


def test_broken_links_are_found(site: ModuleType, tmp_path: Path) -> None:
    write(
        tmp_path,
        index_dot_html='<a href="a/b.html#there">1</a> <a href="#gone">2</a> <a href="https://x">3</a>',
        a__b_dot_html='<h1 id="there">B</h1> <img src="p%20q.png"> <a href="..">4</a>',
    )
    assert list(site.broken_links(tmp_path)) == [
        "a/b.html: p%20q.png: no such file",
        "index.html: #gone: no such anchor",
    ]
    (tmp_path / "a" / "p q.png").touch()
    assert len(list(site.broken_links(tmp_path))) == 1


def test_every_command_and_option_is_in_the_reference(site: ModuleType) -> None:
    text = site.commands()
    for name in COMMANDS:
        assert f"### retinart {name}\n" in text
    assert "### retinart data check\n" in text
    assert "\n| `--no-copies` | write no annotated images or videos |\n" in text
    assert "--help" not in text
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") == 3, line


def test_every_public_name_is_in_the_reference(site: ModuleType) -> None:
    assert all(f"::: retinart.{name}\n" in site.names() for name in retinart.__all__)
