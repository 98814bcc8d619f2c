"""Names of tensors are read by one template and written by another."""

from __future__ import annotations

import pytest

from retinart.export.key_templates import read, rename, write


@pytest.mark.parametrize(
    ("name", "template", "other", "renamed"),
    [
        ("body.layer1.0.bn1.bias", "body.{rest}", "backbone.{rest}", "backbone.layer1.0.bn1.bias"),
        (
            "neck.convs.2.bias",
            "neck.convs.{first}.{key}",
            "fpn.{first}.{key}",
            "fpn.2.bias",
        ),
        ("neck.convs.3.bias", "neck.convs.{first}.{key}", "fpn.{first}.{key}", None),
        ("a.weight.more", "a.{key}", "b.{key}", None),  # the whole name, to its end
        ("axb", "a.b", "c", None),  # a dot is a dot
        ("fpn.p6.bias", "fpn.p{high}.{key}", "nets.{NAME}.p{high}.{key}", "nets.NAME.p6.bias"),
        ("nets.R50.p6.bias", "nets.{NAME}.p{high}.{key}", "fpn.p{high}.{key}", "fpn.p6.bias"),
    ],
)
def test_renaming(name: str, template: str, other: str, renamed: str | None) -> None:
    assert rename(name, template, other) == renamed


def test_reading_and_writing_are_each_other_s_reverse() -> None:
    template, name = "{head}_head.8.{key}", "box_head.8.weight"
    fields = read(template, name)
    assert fields == {"head": "box", "key": "weight"}
    assert write(template, fields) == name
    assert write(template, {}) == "head_head.8.key"
