"""Reads a client's form: text fields into memory, files into the spool."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from time import perf_counter
from typing import Final, NamedTuple

import msgspec
from starlette.types import Receive

from imagegate.asgi.helpers import ClientDisconnected, receive_with_timeout, too_large
from imagegate.errors import PayloadTooLarge, RequestError
from imagegate.protocol.messages import HeldMemory
from imagegate.protocol.parsers.charsets import UnknownCharset, decode
from imagegate.protocol.parsers.multipart import (
    Event,
    FormEncoder,
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    boundary_of,
)
from imagegate.spool.budget import Budget
from imagegate.spool.upload import Upload

_IMAGE_PART: Final = re.compile(r"image(?:\[([0-9]{0,3})\])?", re.ASCII)
_MASK_PARTS: Final = {"mask": "mask", "mask[]": "mask", "markup": "markup"}
_CHARSET_FIELD: Final = "_charset_"
_MAX_FIELDS: Final = 128
_MAX_TEXT: Final = 1024 * 1024
"""Bytes of all text fields together."""
_STEP: Final = 256 * 1024
"""Bytes of a form that are read before others have a turn."""
_LEAST_STEP: Final = 8 * 1024
"""The same where a form is all heads, or its boundary is repeated throughout."""
_SLOW: Final = 0.01
"""Seconds."""
_HELD: Final = 2 * 1024 * 1024
"""Bytes of a file that wait in memory, where there is room, in a form that is read whole: the way over the disk and its
threads costs as much as all the rest of such a form."""


class FormLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a form may hold, in bytes."""

    form: int = 512 * 1024**2
    file: int = 50_000_000
    files: int = 16
    """Images, beside mask and markup."""


class Form(NamedTuple):
    """A whole form. The uploads are the receiver's to close."""

    fields: Sequence[tuple[str, str]]
    images: Sequence[Upload]
    mask: Upload | None
    markup: Upload | None


async def read_form(
    content_type: bytes, receive: Receive, *, limits: FormLimits, budget: Budget, held: HeldMemory | None = None
) -> Form:
    """Read a ``multipart/form-data`` body to its end. Raises as `FormReading.run` does."""
    reading = FormReading(content_type, limits=limits, budget=budget, waiting=_HELD, held=held)
    return await reading.run(receive)


class FormReading:
    """A form that is being received: its parts and files can be read before it is complete.

    Args:
        waiting: `held` of each `Upload`.
        held: counts the text fields.

    Raises:
        RequestError: the header names no boundary.
    """

    def __init__(
        self,
        content_type: bytes,
        *,
        limits: FormLimits,
        budget: Budget,
        waiting: int = 0,
        held: HeldMemory | None = None,
    ) -> None:
        self._limits = limits
        self._waiting = waiting
        self._held = held
        self._budget = budget
        try:
            self.boundary = boundary_of(content_type)
            self._reader = MultipartReader(self.boundary)
        except MultipartError as error:
            raise _malformed(error) from error
        self.fields: list[tuple[str, str]] = []
        self.files: list[Upload] = []
        """All files in the order of the form, the last one perhaps still growing."""
        self.head_sizes: list[int] = []
        """Bytes of the head of each of `files` as the client wrote it, its boundary line included."""
        self.files_start = 0
        """Bytes of the form before the first file."""
        self.parts_end = 0
        """Bytes of the form before the line that begins the next part or ends the form."""
        self.size = 0
        """Bytes of the form so far."""
        self.field_after_file = False
        self.is_over = False
        """Whether reading has ended, successfully or not."""
        self.is_whole = False
        """Whether the end of the form was reached."""
        self._progressed = asyncio.Event()
        self._images: list[tuple[int, Upload]] = []
        self._extras: dict[str, Upload] = {}
        self._upload: Upload | None = None
        self._part: PartBegin | None = None
        """A part of which no byte has come yet: what kind it is shows only then, because browsers send a file input
        that was left empty as a file without name and content."""
        self._name = self._charset = ""
        self._default_charset = "utf-8"
        self._text = bytearray()
        self._text_size = 0
        self._content_start = self._content_size = 0
        self._step = _STEP

    async def run(self, receive: Receive) -> Form:
        """Read the whole form.

        Raises:
            RequestError: malformed, cut off, too large, or a part that does not belong there.
            Overloaded: the spool is full, or memory is.
            ClientDisconnected: before the form was complete.
        """
        try:
            async with receive_with_timeout(receive) as receive_in_time:
                await self._read(receive_in_time)
            self._reader.finish()
            self.is_whole = True
            return self._form()
        except MultipartError as error:
            self.close()
            raise _malformed(error) from error
        except BaseException:
            self.close()
            raise
        finally:
            self.is_over = True
            self._progress()

    async def _read(self, receive: Receive) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            self.size += len(chunk)
            if self.size > self._limits.form:
                raise too_large(self._limits.form)
            start = 0
            while start < len(chunk) or start == 0:
                if start:
                    await asyncio.sleep(0)
                piece = chunk[start : start + self._step]
                start += self._step
                for event in self._feed(piece):
                    await self.take(event)

    def _feed(self, piece: bytes) -> Sequence[Event]:
        """Read a piece, and take smaller ones after one that took long."""
        begun = perf_counter()
        events = self._reader.feed(piece)
        is_slow = perf_counter() - begun > _SLOW
        self._step = max(self._step // 4, _LEAST_STEP) if is_slow else min(self._step * 2, _STEP)
        return events

    async def progress(self) -> None:
        """Wait for another file, a field after a file, or the end of the form."""
        await self._progressed.wait()

    def _progress(self) -> None:
        self._progressed.set()
        self._progressed = asyncio.Event()

    async def take(self, event: Event) -> None:
        if isinstance(event, PartBegin):
            if self._may_be_left_empty(event):
                self._part = event
            else:
                self._begin(event)
        elif isinstance(event, PartData):
            if self._part is not None:
                part, self._part = self._part, None
                self._begin(part)
            await self._add(event.data)
        elif self._part is not None:
            self._part = None
        else:
            await self._end()

    def _may_be_left_empty(self, part: PartBegin) -> bool:
        """Return whether the part is none if it has no content: a file without a name, or no file where one belongs."""
        is_image = bool(_IMAGE_PART.fullmatch(part.name)) or part.name in _MASK_PARTS
        return part.filename == "" or (part.filename is None and is_image)

    def _begin(self, part: PartBegin) -> None:
        image = _IMAGE_PART.fullmatch(part.name)
        extra = _MASK_PARTS.get(part.name)
        if part.filename is None:
            if image or extra:
                raise RequestError(
                    f"The part '{part.name}' must be a file with a filename, but got a text field.",
                    param=part.name,
                    code="invalid_type",
                )
            if self.files:
                self.field_after_file = True
                self._progress()
            if len(self.fields) >= _MAX_FIELDS:
                raise RequestError(f"The form has more than {_MAX_FIELDS} fields.", code="invalid_form")
            self._name, self._charset, self._text = part.name, part.charset, bytearray()
            self._content_start, self._content_size = part.offset, 0
            return
        if not image and not extra:
            hint = " Images go into parts called 'image' or 'image[]'." if part.name.startswith("images") else ""
            raise RequestError(f"Unknown file part: '{part.name}'.{hint}", param=part.name, code="unknown_parameter")
        name, media_type = part.filename or "upload", part.content_type
        upload = Upload(part.name, name, media_type, budget=self._budget, held=self._waiting)
        upload.quoted_name = part.quoted_name
        if image:
            self._add_image(upload, image[1])
        elif extra in self._extras:
            raise RequestError(f"There can be only one {extra}.", param=part.name)
        else:
            self._extras[str(extra)] = upload
        self._upload = upload
        self._content_start, self._content_size = part.offset, 0
        if not self.files:
            self.files_start = self.parts_end
        self.head_sizes.append(part.offset - self.parts_end)
        self.files.append(upload)
        self._progress()

    def _add_image(self, upload: Upload, index: str | None) -> None:
        if len(self._images) >= self._limits.files:
            raise RequestError(f"There can be at most {self._limits.files} images.", param=upload.part)
        # image[2] carries its index; the others keep the order of the form.
        self._images.append((int(index) if index else len(self._images), upload))

    async def _add(self, data: bytes) -> None:
        self._content_size += len(data)
        if self._upload is None:
            self._text += data
            self._text_size += len(data)
            if self._text_size > _MAX_TEXT:
                raise PayloadTooLarge(
                    f"The fields of the form are larger than {_MAX_TEXT:,} bytes.",
                    param=self._name,
                )
            if self._held is not None:
                self._held.take(len(data))
            return
        if self._upload.size + len(data) > self._limits.file:
            raise PayloadTooLarge(
                f"The file is larger than {self._limits.file:,} bytes.",
                param=self._upload.part,
            )
        await self._upload.write(data)

    async def _end(self) -> None:
        if self._content_start:
            self.parts_end = self._content_start + self._content_size + len(FormEncoder.PART_END)
        if self._upload is not None:
            upload, self._upload = self._upload, None
            if upload.size == 0:
                raise RequestError("The file is empty.", param=upload.part, code="invalid_image_file")
            await upload.complete()
            return
        text = self._decoded()
        if self._name == _CHARSET_FIELD:  # RFC 7578 section 4.6
            self._default_charset = text or self._default_charset
        else:
            self.fields.append((self._name, text))

    def _decoded(self) -> str:
        """Return the text of a field in the character set that its part declares, and no other."""
        charset = self._charset or self._default_charset
        try:
            return decode(bytes(self._text), charset)
        except UnknownCharset:
            reason = f"The character set {charset[:64]!r} of the part '{self._name}' is unknown."
        except UnicodeDecodeError:
            reason = f"The text of the part '{self._name}' is not valid {charset.upper()}."
            if not self._charset:
                reason += " Its Content-Type can declare another character set."
        raise RequestError(reason, param=self._name, code="invalid_form")

    def _form(self) -> Form:
        images = [upload for _, upload in sorted(self._images, key=lambda item: item[0])]
        return Form(self.fields, images, self._extras.get("mask"), self._extras.get("markup"))

    def close(self) -> None:
        """Release all files."""
        for upload in self.files:
            upload.close()


def _malformed(error: MultipartError) -> RequestError:
    return RequestError(str(error), code="invalid_form")
