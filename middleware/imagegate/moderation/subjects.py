"""What hooks get to see. Images are handles: their bytes are read piece by piece, where a hook asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

import msgspec

from imagegate.access.principal import Principal
from imagegate.contracts.contract import Operation
from imagegate.errors import RequestError
from imagegate.http.guarded_fetch import Fetcher
from imagegate.protocol.image_format import Facts, inspect
from imagegate.protocol.inline_images import decode_base64
from imagegate.protocol.messages import FileRef, ImageRequest, Link, Reference, ReplyImage, StoredPicture
from imagegate.protocol.references import Source, data_url, references_of

Chunks = Callable[[], AsyncIterator[bytes]]
_HEAD: Final = 64 * 1024
"""Bytes of an image that tell its format and pixels."""


class ModeratedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a request or of an answer."""

    url: str = ""
    """Where it is; empty: it came with the request or the answer."""
    size: int | None = None
    """Bytes; None: not known."""
    facts: Facts | None = None
    """Format and pixels, where its head was seen."""
    is_partial: bool = False
    """Whether it is a preview of a stream."""
    open: Chunks
    """Returns its bytes, in pieces of at most 256 KiB. Links are read through the guard of the gateway."""

    async def read(self, most: int) -> bytes:
        """Return all bytes. Raises `ValueError` where there are more than `most`."""
        content = bytearray()
        async for piece in self.open():
            content += piece
            if len(content) > most:
                raise ValueError(f"the image has more than {most} bytes")
        return bytes(content)


class ModeratedImages(Sequence[ModeratedImage]):
    """The images of an answer, or of one event of a stream.

    Args:
        images: in their order.
        principal: who asked for them; None: not known to the gateway.
        model: as the client named it.
        prompt: as it was sent; empty: not known any more, as with a task of the provider's.
    """

    def __init__(
        self, images: Sequence[ModeratedImage], *, principal: Principal | None, model: str, prompt: str
    ) -> None:
        self._images = tuple(images)
        self.principal = principal
        self.model = model
        self.prompt = prompt

    @overload
    def __getitem__(self, index: int) -> ModeratedImage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ModeratedImage]: ...
    def __getitem__(self, index: int | slice) -> ModeratedImage | Sequence[ModeratedImage]:
        return self._images[index]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[ModeratedImage]:
        return iter(self._images)


class ModerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is about to be sent."""

    operation: Operation
    model: str
    """As the client named it."""
    prompt: str
    """Empty: there is none, as with variations."""
    fields: Mapping[str, Any]
    """All members of the request, as the client wrote them."""
    images: tuple[ModeratedImage, ...] = ()
    """References and mask; not those that a provider already has."""


def images_of_request(request: ImageRequest, fetcher: Fetcher) -> tuple[ModeratedImage, ...]:
    """Return what a request starts from, as hooks see it: files, links and data URLs, of whichever member."""
    found = [_of_reference(reference, fetcher) for reference in request.references]
    try:
        _, sources, mask = references_of(request.fields)
        found += [_of_source(source, fetcher) for source in (*sources, mask) if source is not None]
    except RequestError:
        pass  # a model that takes it is none that we know
    return tuple(image for image in found if image is not None)


def _of_reference(reference: Reference, fetcher: Fetcher) -> ModeratedImage | None:
    """Return the picture; None: only the provider has it."""
    if isinstance(reference, FileRef):
        return ModeratedImage(size=reference.size, facts=reference.facts, open=reference.chunks)
    return _of_link(reference.url, fetcher) if isinstance(reference, Link) else None


def _of_source(source: Source, fetcher: Fetcher) -> ModeratedImage | None:
    if source.url is None:
        return None
    inline = data_url(source.member, source.url)
    return _of_link(source.url, fetcher) if inline is None else _of_bytes(inline.data)


def _of_link(url: str, fetcher: Fetcher) -> ModeratedImage:
    return ModeratedImage(url=url, open=_linked(fetcher, url))


def _of_bytes(content: bytes, *, is_partial: bool = False) -> ModeratedImage:
    return ModeratedImage(size=len(content), facts=inspect(content[:_HEAD]), is_partial=is_partial, open=_held(content))


def image_of_reply(image: ReplyImage, fetcher: Fetcher, *, origin: str, is_partial: bool) -> ModeratedImage:
    """Return an image of an answer as hooks see it.

    Args:
        fetcher: reads links.
        origin: of the provider, where links may lead to it; empty: to nothing private.
        is_partial: whether it is a preview.
    """
    picture = image.picture
    if isinstance(picture, StoredPicture):
        raise AssertionError("what is to be inspected is not stored before")
    if picture is not None:
        return ModeratedImage(size=picture.size, facts=picture.facts, is_partial=is_partial, open=picture.chunks)
    if image.b64_json is not None:
        return _of_bytes(decode_base64(image.b64_json), is_partial=is_partial)
    url = image.url or ""
    trusted = (origin,) if origin else ()
    return ModeratedImage(url=url, facts=image.facts, is_partial=is_partial, open=_linked(fetcher, url, *trusted))


def _held(content: bytes) -> Chunks:
    async def chunks() -> AsyncIterator[bytes]:
        yield content

    return chunks


def _linked(fetcher: Fetcher, url: str, *trusted_origins: str) -> Chunks:
    async def chunks() -> AsyncIterator[bytes]:
        async with fetcher.open(url, trusted_origins=trusted_origins) as stream:
            async for piece in stream:
                yield piece

    return chunks
