"""What senders say of the length of a body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.headers import length_of_reply, read_length


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("0", 0),
        (b"1024", 1024),
        ("9" * 19, 10**19 - 1),
        ("9" * 20, None),
        ("9" * 5000, None),  # more digits than `int` takes
        (b"9" * 5000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        (" 1", None),
        ("1, 1", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("\xb2".encode("latin-1"), None),
    ],
)
def test_lengths(value: str | bytes, length: int | None) -> None:
    """ASCII digits and nothing else, and no more of them than a body can have bytes."""
    assert read_length(value) == length


@given(st.text() | st.binary())
def test_any_text_is_read(value: str | bytes) -> None:
    """No header is an exception."""
    length = read_length(value)
    assert length is None or length >= 0


def test_an_encoded_body_has_another_length() -> None:
    """What is sent compressed tells how much is sent, not how much it becomes."""
    assert length_of_reply({"content-length": "7"}) == 7
    assert length_of_reply({"content-length": "7", "content-encoding": "gzip"}) is None
    assert length_of_reply({}) is None
