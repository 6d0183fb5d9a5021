"""Images of another size or format than a client has been led to expect are disclosed."""

from __future__ import annotations

import pytest

from imagegate.contracts.changes import Change
from imagegate.delivery.disclosure import format_changes, size_changes
from imagegate.protocol.image_format import JPEG, PNG, SVG, WEBP

FITTED = Change("size", "mapped", "1920x1080", "1920x1088")
ADDED = Change("size", "added", None, "512x512")


@pytest.mark.parametrize(
    ("asked", "disclosed", "made", "said"),
    [
        ("1024x1024", (), "1024x1024", None),
        ("1024x1024", (), "1254x1254", ("1024x1024", "1254x1254")),
        ("1920x1080", (FITTED,), "1920x1088", None),
        ("1920x1080", (FITTED,), "1024x1024", ("1920x1080", "1024x1024")),
        (None, (ADDED,), "512x512", None),
        (None, (ADDED,), "640x512", ("512x512", "640x512")),
        (None, (), "640x512", None),
        ("16:9", (), "640x512", None),
    ],
)
def test_another_size_is_said(asked, disclosed, made, said):
    """From what the client asked for, else from what the gateway added."""
    expected = () if said is None else (Change("size", "made", *said),)
    assert size_changes(asked, [made], disclosed) == expected


@pytest.mark.parametrize(
    ("asked", "disclosed", "made", "said"),
    [
        ("webp", (), [WEBP, WEBP], []),
        ("webp", (), [WEBP, PNG, PNG], ["png"]),
        ("webp", (), [JPEG, PNG], ["jpeg", "png"]),
        ("JPG", (), [JPEG], []),
        ("image/svg+xml", (), [SVG], []),
        ("webp", (Change("output_format", "mapped", "webp", "png"),), [PNG], []),
        ("webp", (Change("output_format", "mapped", "webp", "png"),), [JPEG], ["jpeg"]),
        ("jpeg", (Change("output_format", "converted", "png", "jpg"),), [JPEG], []),
        ("webp", (Change("output_format", "dropped"),), [PNG], []),
        (None, (), [PNG], []),
        (None, (Change("output_format", "added", None, "png"),), [JPEG], []),
    ],
)
def test_another_format_is_said(asked, disclosed, made, said):
    """Once for each format, in comparison with what was sent; where none was asked for or sent, none was promised."""
    assert format_changes(asked, made, disclosed) == tuple(
        Change("output_format", "made", asked, name) for name in said
    )
