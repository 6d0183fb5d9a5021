"""``multipart/form-data``, read and written piece by piece (RFC 7578). No I/O.

The reading is python-multipart's; on top come the checks that it leaves to its users: every part has one
disposition and a name, nothing is hidden behind a NUL or a transfer encoding, and the end was there.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from imagegate.protocol.parsers.charsets import decode_extended

MAX_NAME: Final = 256
"""Bytes of a part's name."""
MAX_FILE_NAME: Final = 255
"""Characters of a file name, as in file systems, however many bytes they are written with."""
_MAX_HEADER: Final = 8192
"""Bytes of a header line: a file name of 255 characters may be in it twice, a dozen bytes for each."""
_MAX_PREAMBLE: Final = 64 * 1024
"""Bytes before the first boundary."""
_MAX_BOUNDARY: Final = 70  # RFC 2046
_MAX_BLANKS: Final = 80
_LINE_BREAKING = re.compile(rb"[\x00\r\n]")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# Quoted or bare, as clients write them.
# The second alternative ends in a backslash, which browsers do not escape.
_PARAMETER = re.compile(
    rb';[ \t]*([A-Za-z]+\*?)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|"(?:[^"\\]|\\.)*\\"(?=[ \t]*\Z)|[^";]*)'
)
_HEAD_END: Final = b"\r\n\r\n"
_ALPHANUMERICS: Final = string.ascii_letters + string.digits
_PLAIN_ENCODINGS: Final = (b"", b"binary", b"7bit", b"8bit")


class MultipartError(ValueError):
    """The body is no whole, well-formed form; the message is for the client."""


class PartBegin(NamedTuple):
    """The head of a part."""

    name: str
    filename: str | None
    """None: a text field."""
    content_type: str
    """As declared, in lower case and without parameters; empty where nothing was declared."""
    charset: str = ""
    """As declared."""
    quoted_name: str = ""
    """The file name as it is spelled between its quotes, where `FormEncoder` would write it otherwise."""
    offset: int = 0
    """Bytes of the body before the content of the part; 0: not known."""


class PartData(NamedTuple):
    """Some bytes of the part that has begun."""

    data: bytes


class PartEnd(NamedTuple):
    """The part is complete."""


Event = PartBegin | PartData | PartEnd


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary of a ``multipart/form-data`` header. Raises `MultipartError`."""
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if media_type != b"multipart/form-data":
        raise MultipartError("The body is no multipart/form-data.")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise MultipartError(f"The form needs a boundary of 1 to {_MAX_BOUNDARY} characters.")
    return boundary


class _Parts:
    """Callbacks of the parser. Refers to neither parser nor reader, to avoid reference cycles."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.has_ended = False
        self.start = 0
        """Bytes of the body before the piece that is being parsed."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._field = b""
        self._value = b""
        self._value_end = 0

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._headers.clear,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_end": self._on_end,
        }

    def _on_part_end(self) -> None:
        self.events.append(PartEnd())

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(PartData(data[start:end]))

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._value_end = self.start + end

    def _on_header_end(self) -> None:
        self._headers.append((self._field.strip().lower(), self._value.strip()))
        self._value_end *= bool(self._value)
        self._field = self._value = b""

    def _on_headers_finished(self) -> None:
        offset = self._value_end + len(_HEAD_END) if self._value_end else 0
        self.events.append(_part_begin(self._headers, offset))

    def _on_end(self) -> None:
        self.has_ended = True


class MultipartReader:
    """Turns pieces of a body into events; where the pieces are cut makes no difference.

    Raises from every method: `MultipartError`.
    """

    def __init__(self, boundary: bytes) -> None:
        self._parts = _Parts()
        self._preamble: _Preamble | None = _Preamble(boundary)
        self._size = 0
        try:
            callbacks = cast("Any", self._parts.callbacks())
            self._parser = MultipartParser(boundary, callbacks, max_header_size=_MAX_HEADER)
        except FormParserError as error:
            raise MultipartError("The form's boundary cannot be read.") from error

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that a piece of the body completes."""
        self._size += len(chunk)
        if self._preamble is not None:
            chunk = self._preamble.skip(chunk)
            if not chunk:
                return []
            self._preamble = None
        self._parts.start = self._size - len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MultipartError("The form is malformed.") from error
        events, self._parts.events = self._parts.events, []
        return events

    def finish(self) -> None:
        """Call at the end of the body, which must be the end of the form."""
        if not self._parts.has_ended:
            raise MultipartError("The form is cut off before its end.")


class _Preamble:
    """The preamble before the first boundary is ignored (RFC 2046 section 5.1.1); a boundary begins a line."""

    def __init__(self, boundary: bytes) -> None:
        self._opening = b"--" + boundary
        # Blanks may follow it, which the parser does not know.
        self._line = re.compile(rb"(?:\A|(?<=\n))" + re.escape(self._opening) + rb"(?:(--)|[ \t]*(\r\n))")
        self._held = b""
        """The beginning of a line that may become the boundary."""
        self._begins_line = True
        self._size = 0

    def skip(self, chunk: bytes) -> bytes:
        """Return the form from its first boundary on; empty: it has not come yet. Raises `MultipartError`."""
        body = self._held + chunk if self._begins_line else b"." + chunk
        self._size += len(chunk)
        found = self._line.search(body)
        before = self._size - len(body) + (found.start() if found else len(body))
        if before > _MAX_PREAMBLE:
            raise MultipartError("The form must begin with its boundary.")
        if found is not None:
            return self._opening + (found[1] or found[2]) + body[found.end() :]
        last = body[body.rfind(b"\n") + 1 :]
        self._begins_line = self._may_be_boundary(last) and (self._begins_line or b"\n" in body)
        self._held = last if self._begins_line else b""
        return b""

    def _may_be_boundary(self, line: bytes) -> bool:
        """Return whether the line can go on as the boundary, with a few blanks behind it."""
        is_longer = line.startswith(self._opening) and len(line) < len(self._opening) + _MAX_BLANKS
        return is_longer or self._opening.startswith(line)


def _part_begin(headers: list[tuple[bytes, bytes]], offset: int) -> PartBegin:
    dispositions = [value for name, value in headers if name == b"content-disposition"]
    if len(dispositions) != 1:
        raise MultipartError("Every part of the form needs exactly one Content-Disposition.")
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    if any(_LINE_BREAKING.search(value) for _, value in headers) or _CONTROL.search(content_type):
        raise MultipartError("The head of a part holds control characters.")
    encodings = [value.lower() for name, value in headers if name == b"content-transfer-encoding"]
    if any(encoding not in _PLAIN_ENCODINGS for encoding in encodings):
        raise MultipartError("Parts must be sent as they are, without a Content-Transfer-Encoding.")
    disposition, _, parameters = dispositions[0].partition(b";")
    options = {name.lower(): _unquoted(value) for name, value in _PARAMETER.findall(b";" + parameters)}
    if disposition.strip().lower() != b"form-data" or not options.get(b"name"):
        raise MultipartError("Every part of the form needs a name.")
    filename = _filename({name: _unescaped(value) for name, value in options.items()})
    return PartBegin(
        name=_text(_unescaped(options[b"name"])),
        filename=filename,
        content_type=content_type.partition(b";")[0].strip().lower().decode("latin-1"),
        charset=_charset(content_type) if b";" in content_type else "",
        quoted_name=_quoted_name(options, filename),
        offset=offset,
    )


def _charset(content_type: bytes) -> str:
    return parse_options_header(content_type)[1].get(b"charset", b"").decode("latin-1")


def _filename(options: Mapping[bytes, bytes]) -> str | None:
    """Return the file name, of two the extended one (RFC 6266 section 4.3); None: the part is no file."""
    plain, extended = options.get(b"filename"), options.get(b"filename*")
    name = None if plain is None else _decoded(plain)
    if extended is not None:
        text = _decoded(extended)
        decoded = decode_extended(text)
        name = decoded if decoded is not None else text if name is None else name
    if name is not None and ("\0" in name or len(unquote(name)) > MAX_FILE_NAME):
        raise MultipartError(f"File names have at most {MAX_FILE_NAME} characters and no NUL.")
    return name


def _quoted_name(options: Mapping[bytes, bytes], filename: str | None) -> str:
    """Return how the client wrote the file name, where that is not how `FormEncoder` writes it."""
    written = "" if b"filename*" in options else _decoded(options.get(b"filename", b""))
    return "" if written == _quoted(filename or "") else written


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if value.startswith(b'"') else value.strip()


def _unescaped(value: bytes) -> bytes:
    """Backslashes before quotes and backslashes are escapes, as httpx and curl write them; others are what they are."""
    return re.sub(rb'\\(["\\])', rb"\1", value)


def _text(raw: bytes) -> str:
    if len(raw) > MAX_NAME or b"\0" in raw:
        raise MultipartError(f"Names in a form have at most {MAX_NAME} bytes and no NUL.")
    return _decoded(raw)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MultipartError("Names in a form must be UTF-8.") from None


class FormEncoder:
    """Writes a form: `field` and `file_head` + bytes + `PART_END` for each part, then `end`.

    Args:
        boundary_size: bytes of the boundary, at least `LEAST_BOUNDARY`; None: any.
    """

    PART_END: Final = b"\r\n"
    LEAST_BOUNDARY: Final = 12
    """Bytes of a boundary that is not guessed, about 70 bits."""

    def __init__(self, boundary_size: int | None = None) -> None:
        if boundary_size is None:
            self._boundary = f"imagegate-{secrets.token_hex(16)}"
        else:
            self._boundary = "".join(secrets.choice(_ALPHANUMERICS) for _ in range(boundary_size))

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self._boundary}"

    def field(self, name: str, value: str) -> bytes:
        """Return a whole text field."""
        return self._head(f'name="{_quoted(name)}"') + value.encode() + self.PART_END

    def file_head(self, name: str, filename: str, content_type: str, *, quoted_name: str = "") -> bytes:
        """Return the head of a file part.

        Args:
            quoted_name: `PartBegin.quoted_name` of a part that was read; goes out as it is.
        """
        disposition = f'name="{_quoted(name)}"; filename="{quoted_name or _quoted(filename)}"'
        return self._head(disposition, f"Content-Type: {content_type}\r\n")

    def end(self) -> bytes:
        return f"--{self._boundary}--\r\n".encode()

    def _head(self, disposition: str, more: str = "") -> bytes:
        return f"--{self._boundary}\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n".encode()


def _quoted(text: str) -> str:
    """Quote as browsers do (WHATWG, multipart/form-data encoding), and escape backslashes."""
    return text.replace("\\", "\\\\").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
