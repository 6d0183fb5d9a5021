"""What is said of pictures of another size than a client has been led to expect."""

from __future__ import annotations

import pytest

from imagegate.contracts.changes import Change
from imagegate.delivery.size_disclosure import size_changes

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
