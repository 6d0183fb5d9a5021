"""Streams a form's files upstream as they arrive, where the rest of the form cannot change the request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from imagegate.contracts.reference_rule import ReferenceRule
from imagegate.errors import RequestError
from imagegate.fitting.reference_rules import check_image, check_mask, type_change
from imagegate.ingest.form_reader import FormReading
from imagegate.protocol.parsers.multipart import FormEncoder
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import Progress


class NeedsBufferedForm(Exception):
    """The request needs the whole form.

    A field came after a file, image parts have to be renamed, or the form is not as long as was announced.

    The request sent upstream was incomplete, so nothing was made; the whole form is in the spool.
    """


class LiveFile(NamedTuple):
    """A file of the form, under the name that it is sent with."""

    name: str
    upload: Upload


class StreamingForm:
    """The files of a form that is being received.

    They are sent with heads and boundaries of the same length as the client's, so that its `Content-Length`
    determines the length of the form to the provider.

    Args:
        reading: has begun the first file.
        length: bytes of the client's form.
    """

    def __init__(self, reading: FormReading, length: int) -> None:
        self._reading = reading
        self._length = length
        self._encoder = FormEncoder(max(self.boundary_size, FormEncoder.LEAST_BOUNDARY))
        self._rule: ReferenceRule | None = None
        self._progress: Progress | None = None
        self.is_sent = False

    @property
    def is_whole(self) -> bool:
        return self._reading.is_whole

    @property
    def size(self) -> int:
        return self._length - self._reading.files_start

    @property
    def boundary_size(self) -> int:
        return len(self._reading.boundary)

    @property
    def end_size(self) -> int:
        return self._length - self._reading.parts_end

    async def has_known_length(self) -> bool:
        """Return whether the length is known, from the head of the first file: others look alike."""
        first = self._reading.files[0]
        await first.head_known()
        return self.boundary_size >= FormEncoder.LEAST_BOUNDARY and self._keeps_length(0, first.part)

    def _keeps_length(self, place: int, name: str) -> bool:
        """Return whether the head of a file is as long as the client wrote it."""
        file = self._reading.files[place]
        head = self._encoder.file_head(name, file.filename, file.media_type, quoted_name=file.quoted_name)
        return len(head) == self._reading.head_sizes[place]

    def _ends_as_announced(self) -> bool:
        """Return whether only the end of the form follows the last file, with a line break or without."""
        end = len(self._encoder.end())
        return self._reading.size == self._length and end - len(FormEncoder.PART_END) <= self.end_size <= end

    def expect(self, rule: ReferenceRule, progress: Progress) -> None:
        """Validate files against `rule` from now on, and record wrong media types in `progress`."""
        self._rule = rule
        self._progress = progress

    async def files(self) -> AsyncIterator[LiveFile]:
        """Yield the files in the order of the form, each as soon as its head is there.

        Raises:
            NeedsBufferedForm: the request must be made from the whole form.
            RequestError: the model does not accept the file.
        """
        images: list[Upload] = []
        place = 0
        while True:
            if self._reading.field_after_file or (self._reading.is_over and not self._reading.is_whole):
                raise NeedsBufferedForm
            if place < len(self._reading.files):
                upload = self._reading.files[place]
                place += 1
                await upload.head_known()
                name = self._checked(upload, images)
                if not self._keeps_length(place - 1, name):
                    raise NeedsBufferedForm
                yield LiveFile(name, upload)
            elif self._reading.is_over:
                if not self._ends_as_announced():
                    raise NeedsBufferedForm
                self.is_sent = True
                return
            else:
                await self._reading.progress()

    def _checked(self, upload: Upload, images: list[Upload]) -> str:
        """Return the name to send the file with; `images` are those that were sent before."""
        rule, name = self._rule, upload.part.partition("[")[0]
        if upload.facts is None and not upload.declared_type.startswith("image/"):
            raise RequestError(
                f"'{upload.part}' is no image that can be read.", param=upload.part, code="invalid_image_file"
            )
        if name == "image":
            if upload.part not in ("image", "image[]") or (upload.part == "image" and images):
                raise NeedsBufferedForm
            images.append(upload)
            if rule and len(images) > rule.max:
                raise RequestError(f"This model takes at most {rule.max} reference images.", param=upload.part)
            if rule:
                check_image(upload, rule)
            label = f"image[{len(images) - 1}]"
        else:
            if name != "mask" or (rule and not rule.takes_mask):
                raise RequestError(f"This model takes no {name} here.", param=name, code="unsupported_parameter")
            if rule:
                check_mask(upload, images[0] if images else None, rule)
            label = name
        if self._progress is not None and (change := type_change(label, upload)):
            self._progress.reference_changes = (*self._progress.reference_changes, change)
        return upload.part if name == "image" else name
