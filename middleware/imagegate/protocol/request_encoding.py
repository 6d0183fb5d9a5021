"""Requests as bodies: JSON, in which files may stand as base64, or a form; both are made while they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from imagegate.protocol.messages import FileID, FileRef, ImageRequest, Link, LiveFiles, Reference
from imagegate.protocol.parsers.multipart import FormEncoder
from imagegate.protocol.reply_encoding import Part, Tokens, split


class TextPart(msgspec.Struct, frozen=True):
    """A field of a form."""

    name: str
    value: str


class FilePart(msgspec.Struct, frozen=True):
    """A file of a form."""

    name: str
    upload: FileRef
    own_filename: str = ""
    """In place of the client's, for servers that keep files under the names that they came with."""

    @property
    def filename(self) -> str:
        return self.own_filename or self.upload.filename


class InlineFile:
    """A file whose base64 is a string of a JSON document; it is encoded while the document is sent."""

    __slots__ = ("is_data_url", "upload")

    def __init__(self, upload: FileRef, *, is_data_url: bool = False) -> None:
        self.upload = upload
        self.is_data_url = is_data_url

    @property
    def head(self) -> str:
        """What precedes the base64: nothing, or the beginning of a data URL."""
        return f"data:{self.upload.media_type};base64," if self.is_data_url else ""


def inline(reference: Reference, *, is_data_url: bool = False) -> InlineFile:
    """Return the JSON value for a reference of a contract whose form is ``inline``."""
    if isinstance(reference, FileRef):
        return InlineFile(reference, is_data_url=is_data_url)
    raise TypeError("a link or a file id has no content")


def linked(reference: Reference) -> InlineFile | str:
    """Return the JSON value where a provider takes a link or a data URL.

    Links arrive where the contract has the form ``objects`` beside ``inline``.
    """
    return reference.url if isinstance(reference, Link) else inline(reference, is_data_url=True)


def document_parts(document: Any) -> Sequence[Part]:
    """Return a JSON document as bytes and the files between them, which are to be sent as base64."""
    tokens = Tokens()

    def token(value: Any) -> str:
        if isinstance(value, InlineFile):
            return value.head + tokens.token(value.upload)
        raise TypeError(f"{type(value).__name__} has no place in JSON")

    return list(split(msgspec.json.encode(document, enc_hook=token), tokens.pictures))


def needs_form(request: ImageRequest) -> bool:
    """Return whether there are files, which JSON cannot carry."""
    return request.live is not None or any(isinstance(reference, FileRef) for reference in request.references)


def json_body(request: ImageRequest) -> bytes:
    """Return a request as OpenAI's JSON: links and file ids as ``images: [{...}]`` and ``mask: {...}``."""
    if not request.references:
        return request.encode()
    fields = {**request.fields, "images": [_object(image) for image in request.images]}
    if request.mask is not None:
        fields["mask"] = _object(request.mask)
    return request.with_fields(fields).encode()


def _object(reference: Reference) -> dict[str, str]:
    if isinstance(reference, Link):
        return {"image_url": reference.url}
    if isinstance(reference, FileID):
        return {"file_id": reference.id}
    raise TypeError("a file cannot go into JSON")


def pixels(size: Any) -> dict[str, int]:
    """Return ``WIDTHxHEIGHT`` as the members ``width`` and ``height``; nothing for what is no size in pixels."""
    width, x, height = size.partition("x") if isinstance(size, str) else ("", "", "")
    return {"width": int(width), "height": int(height)} if x and width.isdecimal() and height.isdecimal() else {}


def form_texts(fields: Mapping[str, Any]) -> tuple[TextPart, ...]:
    """Return members of a request as fields of a form."""
    return tuple(part for name, value in fields.items() for part in _text_parts(name, value))


def form_parts(request: ImageRequest) -> tuple[TextPart | FilePart, ...]:
    """Write a request as OpenAI's form: fields first, then ``image`` or several ``image[]`` in order, then the mask."""
    texts = form_texts(request.fields)
    name = "image" if len(request.images) == 1 else "image[]"
    files = [FilePart(name, image) for image in request.images if isinstance(image, FileRef)]
    for name, extra in (("mask", request.mask), ("markup", request.markup)):
        if isinstance(extra, FileRef):
            files.append(FilePart(name, extra))
    return (*texts, *files)


def _text_parts(name: str, value: Any) -> list[TextPart]:
    """Write ``a[]`` for each item of a list, ``a[b]`` for each member of an object, as the official SDKs do."""
    if isinstance(value, Mapping):
        return [part for key, item in value.items() for part in _text_parts(f"{name}[{key}]", item)]
    if isinstance(value, list):
        return [part for item in value for part in _text_parts(f"{name}[]", item)]
    if isinstance(value, bool):
        return [TextPart(name, "true" if value else "false")]
    return [TextPart(name, str(value))]


class FormBody:
    """A form to send.

    Args:
        parts: fields and files.
        live: files after them that are still coming in.
    """

    def __init__(self, parts: Sequence[TextPart | FilePart], live: LiveFiles | None = None) -> None:
        self.parts = parts
        self.live = live
        self._encoder = FormEncoder(None if live is None else live.boundary_size)

    @property
    def content_type(self) -> str:
        return self._encoder.content_type

    @property
    def length(self) -> int:
        """Bytes of the form."""
        files = [part.upload.size + len(FormEncoder.PART_END) for part in self.parts if isinstance(part, FilePart)]
        heads = sum(len(self.head(part)) for part in self.parts)
        return heads + sum(files) + (len(self._encoder.end()) if self.live is None else self.live.size)

    def end(self) -> bytes:
        """Return the bytes after the last part."""
        return self._encoder.end()[: None if self.live is None else self.live.end_size]

    def head(self, part: TextPart | FilePart) -> bytes:
        """Return a whole text field, or the head of a file."""
        if isinstance(part, TextPart):
            return self._encoder.field(part.name, part.value)
        quoted_name = "" if part.own_filename else part.upload.quoted_name
        return self._encoder.file_head(part.name, part.filename, part.upload.media_type, quoted_name=quoted_name)
