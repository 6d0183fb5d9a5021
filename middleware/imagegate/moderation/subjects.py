"""What hooks get to see. Images are handles: their bytes are read piece by piece, where a hook asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import msgspec

from imagegate.access.principal import Principal
from imagegate.contracts.contract import Operation
from imagegate.http.guarded_fetch import Fetcher
from imagegate.protocol.image_format import Facts, inspect
from imagegate.protocol.inline_images import decode_base64
from imagegate.protocol.messages import FileRef, Link, Reference, ReplyImage, StoredPicture

Chunks = Callable[[], AsyncIterator[bytes]]


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
        principal: who asked for them; None: nobody that the gateway knows.
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


def image_of_request(reference: Reference, fetcher: Fetcher) -> ModeratedImage | None:
    """Return a reference as hooks see it; None: only the provider has it."""
    if isinstance(reference, FileRef):
        return ModeratedImage(size=reference.size, facts=reference.facts, open=reference.chunks)
    return (
        ModeratedImage(url=reference.url, open=_linked(fetcher, reference.url)) if isinstance(reference, Link) else None
    )


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
        content = decode_base64(image.b64_json)
        return ModeratedImage(
            size=len(content), facts=inspect(content[:65536]), is_partial=is_partial, open=_held(content)
        )
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
