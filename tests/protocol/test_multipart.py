"""Forms: reading them in pieces, refusing what is none, and writing them."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.parsers.charsets import KNOWN, UnknownCharset, decode
from imagegate.protocol.parsers.multipart import (
    MAX_NAME,
    Event,
    FormEncoder,
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
    boundary_of,
)

BOUNDARY = b"----Boundary7MA4YWxk"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Part(NamedTuple):
    """A part as a client means it."""

    name: str
    filename: str | None
    content_type: str | None
    content: bytes


class Style(NamedTuple):
    """What clients do differently and the standards leave open."""

    backslash: bool = False
    """Quotes inside names are written ``\\"`` (older curl), not ``%22`` (browsers, httpx)."""
    type_first: bool = False
    header_case: str = "title"
    more_headers: bool = False
    opening: bytes = b""
    closing: bytes = b"\r\n"


# An encoder of our own, so that the reader is not measured by its own twin.


def quoted(text: str, style: Style) -> str:
    if style.backslash:
        return text.replace("\\", "\\\\").replace('"', '\\"')
    return text.replace('"', "%22")


def encoded(parts: Sequence[Part], boundary: bytes = BOUNDARY, style: Style | None = None) -> bytes:
    """A form as a client sends it."""
    style = style or Style()
    body = style.opening
    for part in parts:
        disposition = f'form-data; name="{quoted(part.name, style)}"'
        if part.filename is not None:
            disposition += f'; filename="{quoted(part.filename, style)}"'
        headers = [("content-disposition", disposition)]
        if part.content_type is not None:
            headers.insert(0 if style.type_first else 1, ("content-type", part.content_type))
        if style.more_headers:
            headers += [("content-length", str(len(part.content))), ("x-own", "a: b;c")]
        names = {"title": str.title, "lower": str.lower, "upper": str.upper}[style.header_case]
        body += b"--" + boundary + b"\r\n"
        body += b"".join(f"{names(name)}: {value}\r\n".encode() for name, value in headers)
        body += b"\r\n" + part.content + b"\r\n"
    return body + b"--" + boundary + b"--" + style.closing


def events_of(body: bytes, boundary: bytes = BOUNDARY, cuts: Iterable[int] = ()) -> list[Event]:
    """Everything that the reader says about a body that comes in pieces, the data of each part in one."""
    reader = MultipartReader(boundary)
    places = [0, *sorted(cuts), len(body)]
    raw = [event for start, end in itertools.pairwise(places) for event in reader.feed(body[start:end])]
    reader.finish()
    merged: list[Event] = []
    for event in raw:
        if isinstance(event, PartData) and merged and isinstance(merged[-1], PartData):
            merged[-1] = PartData(merged[-1].data + event.data)
        elif not isinstance(event, PartData) or event.data:
            merged.append(event)
    for event, content in itertools.pairwise(merged):
        if isinstance(event, PartBegin) and event.offset:
            text = content.data if isinstance(content, PartData) else b""
            assert body.startswith(text + b"\r\n--" + boundary, event.offset)
    return [event._replace(offset=0) if isinstance(event, PartBegin) else event for event in merged]


def expected_events(parts: Sequence[Part], style: Style | None = None) -> list[Event]:
    """What a form means."""
    style = style or Style()
    events: list[Event] = []
    for part in parts:
        name, filename = (
            text if text is None or style.backslash else text.replace('"', "%22") for text in (part.name, part.filename)
        )
        kind = (part.content_type or "").partition(";")[0].strip().lower()
        charset = (part.content_type or "").lower().partition("charset=")[2]
        events.append(PartBegin(name or "", filename, kind, charset, quoted_name(filename, style)))
        events += [PartData(part.content)] if part.content else []
        events.append(PartEnd())
    return events


def quoted_name(filename: str | None, style: Style) -> str:
    """How the client wrote it, where that is not how the gateway would."""
    return quoted(filename, style) if filename and style.backslash and '"' in filename else ""


# Forms

BOUNDARIES = st.sampled_from([BOUNDARY, b"-", b"x", b"a--b", b"d41d8cd98f00b204e9800998ecf8427e"]) | st.text(
    alphabet="0123456789abcXYZ'()+_,-./:=?", min_size=1, max_size=70
).map(str.encode)
# Backslashes have a test of their own: clients do not agree on what they mean.
_TEXT = st.text(alphabet=st.characters(exclude_characters="\\", exclude_categories=("Cs", "Cc")), max_size=40).filter(
    lambda text: len(text.encode()) <= MAX_NAME - 80
)
NAMES = st.sampled_from(
    ["image", "image[]", "mask", "prompt", "a[b][c]", 'say "x"; name="y"', "größe", " "]
) | _TEXT.filter(bool)
FILENAMES = (
    st.none() | st.sampled_from(["", "a.png", 'he said "hi".png', "猫 写真.png", "a;b=c.png", "%22.png"]) | _TEXT
)
TYPES = st.none() | st.sampled_from(["image/png", "IMAGE/Png; charset=binary", "application/octet-stream", ""])
STYLES = st.builds(
    Style,
    backslash=st.booleans(),
    type_first=st.booleans(),
    header_case=st.sampled_from(["title", "lower", "upper"]),
    more_headers=st.booleans(),
    opening=st.sampled_from([b"", b"\r\n"]),
    closing=st.sampled_from([b"", b"\r\n", b"\r\nepilogue\r\n--more"]),
)


@st.composite
def contents(draw: st.DrawFn, boundary: bytes) -> bytes:
    """Bytes with everything in them that could be taken for a boundary, but none."""
    alike = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"--", b"\r\n-", b"\r\n--", boundary, b"--" + boundary, b"\r\r\n--"]
    alike += [b"\r\n--" + boundary[:-1], b"\r\n--" + boundary[:1], b"\n--" + boundary + b"\r\n", b"\r--" + boundary]
    content = b"".join(draw(st.lists(st.binary(max_size=24) | st.sampled_from(alike), max_size=8)))
    while b"\r\n--" + boundary in b"\r\n" + content + b"\r\n":
        content = (b"\r\n" + content + b"\r\n").replace(b"\r\n--" + boundary, b"")[2:]
    return content


class FormOf(NamedTuple):
    """A form, and the bytes that a client makes of it."""

    boundary: bytes
    parts: list[Part]
    style: Style

    @property
    def body(self) -> bytes:
        return encoded(self.parts, self.boundary, self.style)

    @property
    def length(self) -> int:
        """Bytes up to the end of the closing delimiter; what follows says nothing."""
        return len(self.body) - len(self.style.closing)


@st.composite
def forms(draw: st.DrawFn, min_parts: int = 0) -> FormOf:
    """Any valid form."""
    boundary = draw(BOUNDARIES)
    count = draw(st.integers(min_parts, 6))
    parts = [Part(draw(NAMES), draw(FILENAMES), draw(TYPES), draw(contents(boundary))) for _ in range(count)]
    return FormOf(boundary, parts, draw(STYLES))


@st.composite
def cuts_of(draw: st.DrawFn, length: int) -> list[int]:
    """Where a body of that length is cut: anywhere, or everywhere."""
    step = draw(st.sampled_from([0, 0, 0, 1, 2, 7]))
    if step:
        return list(range(step, length, step))
    return draw(st.lists(st.integers(0, length), max_size=12))


@given(forms(), st.data())
def test_any_split_of_any_form_gives_the_same_events(form, data):
    """Where a body is cut makes no difference, and what is read is what the client meant."""
    whole = events_of(form.body, form.boundary)
    assert expected_events(form.parts, form.style) == whole
    assert whole == events_of(form.body, form.boundary, data.draw(cuts_of(len(form.body))))


@given(forms(), st.data())
def test_every_truncation_of_any_form_is_an_error(form, data):
    """A body that ends before its closing delimiter is never taken for a whole form."""
    length = data.draw(st.integers(0, form.length - 1))
    with pytest.raises(MultipartError):
        events_of(form.body[:length], form.boundary, data.draw(cuts_of(length)))


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_every_truncation_of_one_form_is_an_error(step):
    """All the places at which one form can be cut off, in pieces of several sizes."""
    parts = [Part("prompt", None, None, b"A kite"), Part("image", "a.png", "image/png", b"\r\n--\r\n\x00\xff")]
    body = encoded(parts, style=Style(closing=b""))
    for length in range(len(body)):
        with pytest.raises(MultipartError):
            events_of(body[:length], cuts=range(step, length, step))
    assert expected_events(parts) == events_of(body, cuts=range(step, len(body), step))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A boundary, and a body that was a form before something happened to it."""
    form = draw(forms(min_parts=1))
    body = bytearray(form.body)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 30)))
        delimiter = b"\r\n--" + form.boundary
        put = draw(
            st.binary(max_size=8)
            | st.sampled_from([b"", b"\r\n", b"\n", b"\0", b'"', b";", b"\\", bytes(body[start:end]) * 2])
            | st.sampled_from([delimiter, delimiter + b"--", delimiter + b"\r\n", delimiter + b" \t", b"name="])
        )
        body[start:end] = put
    return form.boundary, bytes(body)


@given(mutated(), st.data())
def test_any_mutation_is_read_or_refused_wherever_it_is_cut(broken, data):
    """Nothing but `MultipartError` is ever raised, and neither the verdict nor the events depend on the pieces."""
    boundary, body = broken
    outcomes: list[list[Event] | None] = []
    for cuts in ([], data.draw(cuts_of(len(body)))):
        try:
            outcomes.append(events_of(body, boundary, cuts))
        except MultipartError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]
    open_parts = 0
    for event in outcomes[0] or []:
        open_parts += isinstance(event, PartBegin) - isinstance(event, PartEnd)
        assert open_parts in ((1,) if isinstance(event, PartBegin | PartData) else (0,))


@given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda rest: b"multipart/form-data; boundary" + rest))
def test_any_header_names_a_boundary_or_is_refused(header):
    """A content type is read or refused with `MultipartError`, and what it names can be read with."""
    try:
        boundary = boundary_of(header)
    except MultipartError:
        return
    assert 1 <= len(boundary) <= 70
    with pytest.raises(MultipartError):
        MultipartReader(boundary).finish()


# Writing


@given(
    st.lists(
        st.tuples(
            NAMES | st.sampled_from(["a\r\nb", 'a"b']),
            st.none() | FILENAMES.filter(bool) | st.sampled_from(["a\nb.png"]),
            st.sampled_from(["image/png", "application/octet-stream"]),
            st.binary(max_size=60),
        ),
        max_size=6,
    ),
    st.data(),
)
def test_what_the_encoder_writes_the_reader_reads(rows, data):
    """Fields and files come back as they were, names quoted as browsers quote them."""
    encoder = FormEncoder()
    body = b""
    expected: list[Event] = []
    for name, filename, kind, content in rows:
        shown, shown_file = (
            text and text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A") for text in (name, filename)
        )
        if filename is None:
            text = content.decode("latin-1")
            body += encoder.field(name, text)
            content, kind = text.encode(), ""
        else:
            body += encoder.file_head(name, filename, kind) + content + encoder.PART_END
        expected.append(PartBegin(shown, shown_file, kind))
        expected += [PartData(content)] if content else []
        expected.append(PartEnd())
    body += encoder.end()
    boundary = boundary_of(encoder.content_type.encode())
    assert expected == events_of(body, boundary, data.draw(cuts_of(len(body))))


@pytest.mark.parametrize("filename", ["a\\b.png", "tail\\", "a\\\\b.png", '\\".png', "\\"])
def test_backslashes_in_file_names_survive(filename):
    """What a client that escapes them calls its file is what the next reader calls it, backslashes and all."""
    (begin, *_) = events_of(encoded([Part("image", filename, "image/png", b"x")], style=Style(backslash=True)))
    assert isinstance(begin, PartBegin)
    assert filename == begin.filename
    assert begin == read_again(begin)


@given(st.text(alphabet=st.sampled_from('ab.\\"%2;='), min_size=1, max_size=12))
def test_file_names_go_on_as_they_were_written(text):
    """Whatever stands between the quotes, in whichever dialect, stands there again for the provider."""
    wire = re.sub(r'(?<!\\)((?:\\\\)*)"', r'\1\\"', text)  # no quote that would end it
    body = form_with(f'Content-Disposition: form-data; name="image"; filename="{wire}"\r\n'.encode())
    (begin, *_) = events_of(body)
    assert isinstance(begin, PartBegin)
    encoder = FormEncoder()
    head = encoder.file_head("image", begin.filename or "", "image/png", quoted_name=begin.quoted_name)
    assert f'name="image"; filename="{wire}"\r\n'.encode() in head


@pytest.mark.parametrize("wire", [rb"a\b.png", rb"C:\fakepath\a.png", rb"\\server\a.png", rb"a\%22b", rb"a\;b.png"])
def test_names_of_clients_that_escape_nothing_survive(wire):
    """However a name is read, it is written so that it is read in the same way again."""
    (begin, *_) = events_of(form_with(b'Content-Disposition: form-data; name="image"; filename="' + wire + b'"\r\n'))
    assert isinstance(begin, PartBegin)
    assert wire.rpartition(b"\\")[2].decode() in (begin.filename or "")
    assert begin._replace(content_type="image/png") == read_again(begin)


def read_again(begin: PartBegin) -> Event:
    """The head of a file as the next reader finds it."""
    encoder = FormEncoder()
    head = encoder.file_head(begin.name, begin.filename or "", "image/png", quoted_name=begin.quoted_name)
    body = head + b"x" + encoder.PART_END + encoder.end()
    return events_of(body, boundary_of(encoder.content_type.encode()))[0]


def test_every_form_has_a_boundary_of_its_own():
    """No client can know the boundary that its files are sent on with."""
    boundaries = {boundary_of(FormEncoder().content_type.encode()) for _ in range(100)}
    assert len(boundaries) == 100
    assert all(len(boundary) >= 32 for boundary in boundaries)


# Refused


def form_with(headers: bytes, content: bytes = b"x") -> bytes:
    """A form of one part with exactly these header lines."""
    return b"--" + BOUNDARY + b"\r\n" + headers + b"\r\n" + content + b"\r\n--" + BOUNDARY + b"--\r\n"


GOOD = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n'
REFUSED_HEADERS = {
    "no disposition": b"Content-Type: image/png\r\n",
    "no headers": b"",
    "two dispositions": GOOD + GOOD,
    "two dispositions, another name": GOOD + b'content-disposition: form-data; name="mask"\r\n',
    "no name": b'Content-Disposition: form-data; filename="a.png"\r\n',
    "empty name": b'Content-Disposition: form-data; name=""\r\n',
    "empty disposition": b"Content-Disposition:\r\n",
    "attachment": b'Content-Disposition: attachment; name="image"\r\n',
    "NUL in the name": b'Content-Disposition: form-data; name="ima\0ge"\r\n',
    "NUL in the file name": b'Content-Disposition: form-data; name="image"; filename="a.php\0.png"\r\n',
    "NUL in the type": GOOD + b"Content-Type: image/png\0\r\n",
    "name not UTF-8": b'Content-Disposition: form-data; name="im\xe4ge"\r\n',
    "file name not UTF-8": b'Content-Disposition: form-data; name="image"; filename="\xff.png"\r\n',
    "long name": b'Content-Disposition: form-data; name="' + b"n" * (MAX_NAME + 1) + b'"\r\n',
    "long file name": b'Content-Disposition: form-data; name="image"; filename="' + b"n" * (MAX_NAME + 1) + b'"\r\n',
    "base64": GOOD + b"Content-Transfer-Encoding: base64\r\n",
    "quoted-printable": GOOD + b"Content-Transfer-Encoding: Quoted-Printable\r\n",
    "unknown encoding": GOOD + b"Content-Transfer-Encoding: gzip\r\n",
    "a second encoding": GOOD + b"Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: base64\r\n",
    "no colon": GOOD + b"Content-Type image/png\r\n",
    "space in a header name": GOOD + b"Content Type: image/png\r\n",
    "folded header": GOOD + b"Content-Type: image/png;\r\n charset=binary\r\n",
    "empty header name": GOOD + b": image/png\r\n",
    "bare line feeds": GOOD.replace(b"\r\n", b"\n") + b"\n",
    "line feed in a value": GOOD + b'Content-Type: image/png\nContent-Disposition: form-data; name="mask"\r\n',
    "carriage return in a value": GOOD + b"Content-Type: image/\rpng\r\n",
    "endless header": GOOD + b"X-Own: " + b"x" * 100_000 + b"\r\n",
    "many headers": GOOD + b"X-Own: x\r\n" * 1000,
}


@pytest.mark.parametrize("step", [1, 1_000_000])
@pytest.mark.parametrize("headers", REFUSED_HEADERS.values(), ids=REFUSED_HEADERS)
def test_bad_part_heads_are_refused(headers, step):
    """A part that says about itself two things, nothing, or something that hides what it is, is an error."""
    body = form_with(headers)
    with pytest.raises(MultipartError):
        events_of(body, cuts=range(step, len(body), step))


GOOD_HEADERS = {
    "plain": (GOOD, PartBegin("image", "a.png", "")),
    "lower case": (b'content-disposition: FORM-DATA; NAME="image"\r\n', PartBegin("image", None, "")),
    "without quotes": (
        b"Content-Disposition: form-data; name=image; filename=a.png\r\n",
        PartBegin("image", "a.png", ""),
    ),
    "white space": (b'Content-Disposition: \t form-data ; \tname="image"\t\r\n', PartBegin("image", None, "")),
    "semicolon in quotes": (b'Content-Disposition: form-data; name="a;b"\r\n', PartBegin("a;b", None, "")),
    "longest name": (
        b'Content-Disposition: form-data; name="' + b"n" * MAX_NAME + b'"\r\n',
        PartBegin("n" * MAX_NAME, None, ""),
    ),
    "empty file name": (b'Content-Disposition: form-data; name="image"; filename=""\r\n', PartBegin("image", "", "")),
    "binary": (GOOD + b"Content-Transfer-Encoding: Binary\r\n", PartBegin("image", "a.png", "")),
    "8bit": (GOOD + b"Content-Transfer-Encoding: 8bit\r\n", PartBegin("image", "a.png", "")),
    "type with parameters": (GOOD + b"Content-Type: Image/PNG ; q=1\r\n", PartBegin("image", "a.png", "image/png")),
    "RFC 8187 beside a plain name": (
        b'Content-Disposition: form-data; name="image"; filename="a.png"; filename*=UTF-8\'\'b.png\r\n',
        PartBegin("image", "b.png", ""),
    ),
    "RFC 8187 before a plain name": (
        b"Content-Disposition: form-data; filename*=utf-8'zh'%E7%8C%AB.png; filename=a.png; name=image\r\n",
        PartBegin("image", "\u732b.png", ""),
    ),
    "RFC 8187 alone, in quotes": (
        b"Content-Disposition: form-data; name=image; filename*=\"iso-8859-1''K%E4se.png\"\r\n",
        PartBegin("image", "K\u00e4se.png", ""),
    ),
    "an extended name that is none": (
        b"Content-Disposition: form-data; name=image; filename=a.png; filename*=klingon''b.png\r\n",
        PartBegin("image", "a.png", ""),
    ),
    "an extended name that is none, alone": (
        b"Content-Disposition: form-data; name=image; filename*=b.png\r\n",
        PartBegin("image", "b.png", ""),
    ),
    "charset": (
        GOOD + b'Content-Type: text/plain; charset="GBK"\r\n',
        PartBegin("image", "a.png", "text/plain", "GBK"),
    ),
    "longest file name": (
        b'Content-Disposition: form-data; name=image; filename="' + b"%F0%9F%90%88" * 255 + b'"\r\n',
        PartBegin("image", "%F0%9F%90%88" * 255, ""),
    ),
}


@pytest.mark.parametrize(("headers", "expected"), GOOD_HEADERS.values(), ids=GOOD_HEADERS)
def test_odd_part_heads_are_read(headers, expected):
    """Every spelling that the standards allow."""
    assert [expected, PartData(b"x"), PartEnd()] == events_of(form_with(headers))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"--",
        b"--" + BOUNDARY,
        b"--" + BOUNDARY + b"\r\n",
        b"--" + BOUNDARY + b"-",
        b"--" + BOUNDARY + b"x--",
        b"--other--\r\n",
        b'{"model": "m"}',
        b"preamble--" + BOUNDARY + b"--\r\n",
        b" --" + BOUNDARY + b"--\r\n",
        b"x\r\n" * 30_000 + b"--" + BOUNDARY + b"--\r\n",
        b"--" + BOUNDARY[:-1] + b"--\r\n",
        form_with(GOOD).replace(b"--\r\n", b"\r\n"),
        form_with(GOOD).replace(BOUNDARY + b"--", BOUNDARY + b"-!"),
    ],
)
def test_bodies_that_are_no_forms_are_refused(body):
    """Nothing, something else, another boundary, and forms without an end."""
    with pytest.raises(MultipartError):
        events_of(body)


@pytest.mark.parametrize("preamble", [b"\r\0\n", b"\r\n!", b"\n\r\n\r", b"\rpreamble\r\n", b"\r\npre-amble\r\n"])
def test_the_verdict_on_a_preamble_does_not_depend_on_the_pieces(preamble):
    """What stands before the first boundary is refused or passed over, but the same however it is cut."""
    body = preamble + form_with(GOOD)
    verdicts: set[str] = set()
    for step in (1, 2, 3, 5, len(body)):
        try:
            verdicts.add(str(events_of(body, cuts=range(step, len(body), step))))
        except MultipartError:
            verdicts.add("refused")
    assert len(verdicts) == 1


def test_a_line_end_before_the_first_boundary():
    """RFC 2046 lets every delimiter begin with its line end, and hand-written clients do so with the first one too."""
    body = form_with(GOOD)
    assert events_of(body) == events_of(b"\r\n" + body) == events_of(b"\r\n" + body, cuts=range(1, 40))


@given(
    st.lists(
        st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"--", BOUNDARY, b"MIME-Version: 1.0", b"--" + BOUNDARY + b"x"]),
        max_size=8,
    ),
    st.sampled_from([b"", b" \t "]),
    st.data(),
)
def test_any_preamble(pieces, blanks, data):
    """The form begins with the first line that is its boundary, however the body is cut."""
    preamble = b"".join(pieces)
    is_boundary = re.compile(rb"(?m)^--" + re.escape(BOUNDARY) + rb"(--|[ \t]*\r\n)")
    hypothesis.assume(not is_boundary.search(preamble + b"\r\n"))
    form = form_with(GOOD).replace(BOUNDARY + b"\r\n", BOUNDARY + blanks + b"\r\n", 1)
    body = preamble + b"\r\n" + form
    assert events_of(body, cuts=data.draw(cuts_of(len(body)))) == events_of(form_with(GOOD))


@given(st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=255))
def test_extended_file_names(name):
    """Whatever a file is called, its RFC 8187 name is its name."""
    hypothesis.assume(len(unquote(name)) <= 255)
    head = f"Content-Disposition: form-data; name=image; filename=x; filename*=UTF-8''{quote(name, safe='')}\r\n"
    assert events_of(form_with(head.encode()))[0] == PartBegin("image", name, "")


def test_file_names_that_are_too_long():
    for name in (b"n" * 256, b"%C3%A4" * 256, b"a\0b"):
        with pytest.raises(MultipartError):
            events_of(form_with(b'Content-Disposition: form-data; name=image; filename="' + name + b'"\r\n'))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_charsets_have_the_names_that_python_gives_them(name):
    assert codecs.lookup(name).name == name
    assert decode("A kite".encode(name), name) == "A kite"


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "ISO-8859-1", "latin1", "windows-1252", "GB18030", "Shift_JIS"])
def test_charsets(charset):
    assert decode("A kite".encode(charset), charset) == "A kite"


@pytest.mark.parametrize("charset", ["", "klingon", "base64", "rot13", "idna", "unicode_escape", "a\0b", "x" * 999])
def test_what_is_no_charset(charset):
    """Python's other codecs are none."""
    with pytest.raises(UnknownCharset):
        decode(b"A kite", charset)


def test_form_without_parts():
    """A form may be empty."""
    assert events_of(b"--" + BOUNDARY + b"--") == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"multipart/form-data; boundary=x", b"x"),
        (b'multipart/form-data; boundary="a b;c"', b"a b;c"),
        (b"Multipart/Form-Data; charset=utf-8; BOUNDARY=x", b"x"),
        (
            b"multipart/form-data;boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        (b"multipart/form-data; boundary=" + b"b" * 70, b"b" * 70),
    ],
)
def test_boundary_of_a_header(header, expected):
    """The boundary in every spelling of the header."""
    assert expected == boundary_of(header)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"multipart/form-data",
        b"multipart/form-data;",
        b"multipart/form-data; boundary",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; charset=x",
        b"multipart/form-data; boundary=" + b"b" * 71,
        b"multipart/mixed; boundary=x",
        b"application/json; boundary=x",
        b"multipart/form-data-x; boundary=x",
        b"text/plain",
    ],
)
def test_headers_without_a_boundary_are_refused(header):
    """No boundary, one that is too long, and other media types."""
    with pytest.raises(MultipartError):
        boundary_of(header)


@given(mutated())
def test_heads_that_are_read_hide_nothing(broken):
    """Whatever a head looked like, what is handed on has a bounded name and no control characters in its type."""
    boundary, body = broken
    try:
        events = events_of(body, boundary)
    except MultipartError:
        return
    for event in events:
        if isinstance(event, PartBegin):
            assert 0 < len(event.name.encode()) <= MAX_NAME
            assert "\0" not in event.name + (event.filename or "")
            assert CONTROL.search(event.content_type) is None
