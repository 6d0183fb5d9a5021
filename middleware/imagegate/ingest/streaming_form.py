"""Streams a form's files upstream as they arrive, where the rest of the form cannot change the request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from imagegate.contracts.contract import ReferenceRule
from imagegate.errors import RequestError
from imagegate.fitting.reference_rules import check_image, check_mask, type_change
from imagegate.ingest.form_reader import FormReading
from imagegate.spool.upload import Upload
from imagegate.telemetry.progress import Progress


class NeedsBufferedForm(Exception):
    """The request needs the whole form.

    A field came after a file, image parts have to be renamed, or the provider wants to know the length.

    The request sent upstream was incomplete, so nothing was made; the whole form is in the spool.
    """


class LiveFile(NamedTuple):
    """A file of the form, under the name that it is sent with."""

    name: str
    upload: Upload


class StreamingForm:
    """The files of a form that is being received."""

    def __init__(self, reading: FormReading) -> None:
        self._reading = reading
        self._rule: ReferenceRule | None = None
        self._progress: Progress | None = None

    @property
    def is_whole(self) -> bool:
        return self._reading.is_whole

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
                yield LiveFile(self._checked(upload, images), upload)
            elif self._reading.is_over:
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
