"""Generates bodies while they are sent: forms and replies with spooled files."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

import pybase64

from imagegate.protocol.messages import FileRef
from imagegate.protocol.parsers.multipart import FormEncoder
from imagegate.protocol.reply_encoding import Part
from imagegate.protocol.request_encoding import FilePart, FormBody


async def form_chunks(form: FormBody) -> AsyncIterator[bytes]:
    """Yield the chunks of a form, its files read from the spool, streamed ones last."""
    for part in form.parts:
        yield form.head(part)
        if isinstance(part, FilePart):
            async for chunk in part.upload.chunks():
                yield chunk
            yield FormEncoder.PART_END
    if form.live is not None:
        async for name, upload in form.live.files():
            yield form.head(FilePart(name, upload))
            async for chunk in upload.chunks():
                yield chunk
            yield FormEncoder.PART_END
    yield form.end()


async def reply_chunks(parts: Sequence[Part]) -> AsyncIterator[bytes]:
    """Yield the chunks of a reply with its images as base64."""
    around = b""
    for part in parts:
        if isinstance(part, bytes):
            around += part
        else:
            async for chunk in _base64(part):
                yield around + chunk
                around = b""
    if around:
        yield around


async def _base64(upload: FileRef) -> AsyncIterator[bytes]:
    carry = b""
    async for chunk in upload.chunks():
        data = carry + chunk
        whole = len(data) - len(data) % 3
        carry = data[whole:]
        yield pybase64.b64encode(memoryview(data)[:whole])
    if carry:
        yield pybase64.b64encode(carry)


async def sha256_of(file: FileRef) -> str:
    """Return the hash of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    async for chunk in file.chunks():
        digest.update(chunk)
    return digest.hexdigest()
