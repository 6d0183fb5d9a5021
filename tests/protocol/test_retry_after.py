"""Retry-After: as seconds, and as a date of whoever's clock."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.headers import seconds_asked

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("\u0663", None),
        ("1e3", None),
        ("9" * 400, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("Fri, 99 Dec 1999 23:59:59 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_what_is_asked(asked: str, seconds: float | None) -> None:
    assert seconds_asked({"retry-after": asked}, now=NOW) == seconds


@given(st.integers(1, 10**6), st.integers(-(10**8), 10**8))
def test_a_date_is_counted_from_the_replys_own(left: int, wrong: int) -> None:
    """A provider whose clock is wrong by years still asks for the pause that it means."""
    headers = {
        "retry-after": formatdate(NOW + wrong + left, usegmt=True),
        "date": formatdate(NOW + wrong, usegmt=True),
    }
    assert seconds_asked(headers, now=NOW) == left
    assert seconds_asked({"retry-after": formatdate(NOW + left, usegmt=True)}, now=NOW) == left


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_breaks_it(asked: str, date: str) -> None:
    seconds = seconds_asked({"retry-after": asked, "date": date}, now=NOW)
    assert seconds is None or seconds >= 0
