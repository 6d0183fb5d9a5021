"""The `Imagegate-Changes` header: what it says, and that any parser of structured fields can read it."""

from __future__ import annotations

import re
from decimal import Decimal
from math import inf, nan
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.contracts.changes import MAX_LISTED, Change, header_value

MOST_BYTES = 8192
"""What servers and proxies take for one header."""


# A strict reader of RFC 9651 lists


class Token(NamedTuple):
    text: str


class Display(NamedTuple):
    text: str


class Reader:
    """Parses a list by the grammar of RFC 9651, section 4.2; whatever strays from it is a `ValueError`."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def take(self, pattern: str) -> str:
        found = re.match(pattern, self.rest, re.DOTALL)
        if not found:
            raise ValueError(f"expected {pattern} at {self.rest[:40]!r}")
        self.rest = self.rest[found.end() :]
        return found[0]

    def members(self) -> list[tuple[Any, dict[str, Any]]]:
        found = []
        self.take(r" *")
        while self.rest:
            found.append((self.bare(), self.parameters()))
            self.take(r"[ \t]*")
            if not self.rest:
                return found
            self.take(r",[ \t]*")
            if not self.rest:
                raise ValueError("a comma at the end")
        return found

    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.rest.startswith(";"):
            self.take(r"; *")
            key = self.take(r"[a-z*][a-z0-9_\-.*]*")
            found[key] = True
            if self.rest.startswith("="):
                self.take("=")
                found[key] = self.bare()
        return found

    def bare(self) -> Any:
        first = self.rest[:1]
        if first == '"':
            text = self.take(r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"')
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        if first == "?":
            return self.take(r"\?[01]") == "?1"
        if first == "%":
            text = self.take(r'%"(?:[\x20-\x21\x23-\x24\x26-\x7e]|%[0-9a-f]{2})*"')[2:-1]
            octets = re.sub(rb"%(..)", lambda found: bytes.fromhex(found[1].decode()), text.encode("ascii"))
            return Display(octets.decode("utf-8"))
        if first in "-0123456789" and first:
            text = self.take(r"-?[0-9]+(?:\.[0-9]+)?")
            whole, point, decimals = text.lstrip("-").partition(".")
            if len(whole) > (12 if point else 15) or len(decimals) > 3:
                raise ValueError(f"{text} has too many digits")
            return Decimal(text) if point else int(text)
        return Token(self.take(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"))


def read(header: str) -> list[tuple[Any, dict[str, Any]]]:
    return Reader(header).members()


def name_of(item: Any) -> str:
    return item if isinstance(item, str) else item.text


@pytest.mark.parametrize(
    "text",
    ["a,", ";a", "a;B", 'a;b="', 'a;b="é"', "a;b=1000000000000000", "a;b=1.2345", 'a;b=%"%C3%A9"', "a b", "1a", "a;b="],
)
def test_the_reader_of_these_tests_is_strict(text):
    """What is no list of RFC 9651 is refused by the reader that the other tests trust."""
    with pytest.raises((ValueError, UnicodeError)):
        read(text)


# What the header says


def test_a_header_names_what_was_mapped_and_dropped():
    """One item a field, with what was asked for and what is sent."""
    changes = [
        Change("size", "mapped", "1792x1024", "aspect_ratio=16:9,resolution=1k"),
        Change("input_fidelity", "dropped"),
    ]
    expected = 'size;from="1792x1024";to="aspect_ratio=16:9,resolution=1k", input_fidelity;dropped'
    assert expected == header_value(changes)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change("style", "dropped"), "style;dropped"),
        (
            Change("compression", "renamed", "compression", "output_compression"),
            'compression;renamed="output_compression"',
        ),
        (Change("operation", "added", to="image-to-image"), 'operation;added;to="image-to-image"'),
        (Change("quality", "mapped", "hd", "high"), 'quality;from="hd";to="high"'),
        (Change("n", "clamped", 20, 10), "n;from=20;to=10"),
        (Change("n", "mapped", 5, "2+2+1"), 'n;from=5;to="2+2+1"'),
        (Change("metadata.resolution", "dropped"), "metadata.resolution;dropped"),
        (Change("a name", "dropped"), '"a name";dropped'),
        (Change("1st", "dropped"), '"1st";dropped'),
        (Change("", "dropped"), '"";dropped'),
        (Change("größe", "dropped"), '%"gr%c3%b6%c3%9fe";dropped'),
        (Change('a"b\\c', "dropped"), '"a\\"b\\\\c";dropped'),
        (Change("a,b;c=1", "dropped"), '"a,b;c=1";dropped'),
        (Change("a\r\nb: c", "dropped"), '%"a%0d%0ab: c";dropped'),
        (Change("\ud800", "dropped"), '%"?";dropped'),
    ],
)
def test_each_kind_of_change_has_its_form(change, expected):
    """Names that are no tokens become strings, and text beyond ASCII a display string."""
    assert expected == header_value([change])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "?1"),
        (False, "?0"),
        (0, "0"),
        (-5, "-5"),
        (999_999_999_999_999, "999999999999999"),
        (10**15, '"1000000000000000"'),
        (0.5, "0.5"),
        (-0.25, "-0.25"),
        (2.0, "2.0"),
        (1e-9, "0.0"),
        (1 / 3, "0.333"),
        (1e15, '"1000000000000000.0"'),
        (None, '"null"'),
        ([1, "a"], '"[1,\\"a\\"]"'),
        ({"a": {"b": 1}}, '"{\\"a\\":{\\"b\\":1}}"'),
        ("", '""'),
        ("日", '%"%e6%97%a5"'),
        ("100%", '"100%"'),
        ("100% ñ", '%"100%25 %c3%b1"'),
    ],
)
def test_values_are_bare_items(value, expected):
    """Booleans, numbers and text have their own form; everything else is a string of JSON."""
    assert f"x;added;to={expected}" == header_value([Change("x", "added", to=value)])


@pytest.mark.parametrize("value", [999_999_999_999.9999, -999_999_999_999.9999, 123_456_789_012.345, 1e12, inf, nan])
def test_large_decimals_stay_within_the_grammar(value):
    """A decimal has at most twelve digits before the point, also after it was rounded."""
    assert [(Token("x"), ["added", "to"])] == [
        (item, list(found)) for item, found in read(header_value([Change("x", "added", to=value)]))
    ]


@pytest.mark.parametrize(("length", "cut"), [(96, False), (97, True), (100_000, True)])
def test_long_values_are_cut(length, cut):
    """A value has at most 96 characters, and a cut one ends in three dots."""
    ((_, parameters),) = read(header_value([Change("x", "mapped", "é" * length, "y" * length)]))
    expected = ("é" * 93 + "...", "y" * 93 + "...") if cut else ("é" * length, "y" * length)
    assert expected == (parameters["from"].text, parameters["to"])


def test_a_long_list_ends_with_the_number_of_those_left_out():
    """At most 32 changes are listed."""
    members = read(header_value([Change(f"f{number}", "dropped") for number in range(40)]))
    assert [f"f{number}" for number in range(MAX_LISTED)] == [item.text for item, _ in members[:-1]]
    assert members[-1] == (Token("*"), {"more": 8})


def test_the_longest_list_is_whole():
    """32 changes fit without a remark."""
    members = read(header_value([Change(f"f{number}", "dropped") for number in range(MAX_LISTED)]))
    assert members[-1] == (Token("f31"), {"dropped": True})


def test_no_changes_make_an_empty_header():
    """Nothing is said about nothing."""
    assert header_value([]) == ""


# Whatever the changes

TEXT = st.text(st.characters(exclude_categories=()), max_size=120)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=120),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
CHANGES = st.builds(
    Change, TEXT, st.sampled_from(["added", "clamped", "dropped", "mapped", "renamed"]), VALUES, VALUES | TEXT
)


@given(st.lists(CHANGES, max_size=40))
def test_any_changes_make_a_readable_header(changes):
    """The header is an RFC 9651 list in ASCII: one item a change, in order, and the number of those left out."""
    header = header_value(changes)
    members = read(header)
    left_out = 0
    if members and members[-1][0] == Token("*") and "more" in members[-1][1]:
        left_out = members.pop()[1]["more"]
    assert header.isascii()
    assert len(members) <= MAX_LISTED
    assert len(changes) == len(members) + left_out
    forms = {"dropped": ["dropped"], "added": ["added", "to"], "renamed": ["renamed"]}
    listed = changes[: len(members)]
    assert [forms.get(change.kind, ["from", "to"]) for change in listed] == [list(said) for _, said in members]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=96), st.integers(-(10**15) + 1, 10**15 - 1))
def test_text_and_numbers_come_back_as_they_went_in(text, number):
    """A reader gets back the very name, text and number that were written."""
    ((item, parameters),) = read(header_value([Change(text, "mapped", text, number)]))
    assert (text, text, number) == (name_of(item), name_of(parameters["from"]), parameters["to"])


@pytest.mark.parametrize("character", ["a", '"', "é", "😀", "\n"], ids=["ascii", "quote", "latin", "emoji", "newline"])
@pytest.mark.parametrize("kind", ["dropped", "mapped"])
def test_a_header_of_long_changes_stays_below_8_kib(character, kind):
    """Whatever a client sends, the answer's header is one that servers and proxies take."""
    long = character * 200
    changes = [Change(f"{number}{long}", kind, long, long) for number in range(100)]
    size = len(header_value(changes))
    assert size < MOST_BYTES


def test_changes_are_written_as_json_without_what_is_not_said():
    """`explain` and the logs show a change with the members `field`, `kind`, `from` and `to`."""
    changes = [Change("size", "mapped", "1:1", "1024x1024"), Change("style", "dropped")]
    expected = [
        {"field": "size", "kind": "mapped", "from": "1:1", "to": "1024x1024"},
        {"field": "style", "kind": "dropped"},
    ]
    assert expected == msgspec.to_builtins(changes)
