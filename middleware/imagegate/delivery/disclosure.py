"""Discloses images that differ from the request, in number, size or format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from imagegate.contracts.changes import Change
from imagegate.contracts.size_syntax import Pixels, SizeSyntaxError, parse_size
from imagegate.errors import UpstreamError
from imagegate.protocol.image_format import ImageFormat
from imagegate.protocol.messages import ImageReply, ReplyImage
from imagegate.protocol.provider_errors import uncertain


def check_count(asked: int, reply: ImageReply) -> tuple[Change, ...]:
    """More images than asked for are disclosed.

    Raises:
        UpstreamUncertain: fewer came; it names ``n``, and knows those that were made.
    """
    made = len(reply.images)
    if made < asked:
        raise fewer(asked, made, reply.images)
    return () if made == asked else (Change("n", "mapped", asked, made),)


def fewer(asked: int, made: int, images: tuple[ReplyImage, ...] = ()) -> UpstreamError:
    """Return the error where not all images were made that were asked for."""
    error = uncertain(f"The provider made {made} of {asked} images.")
    error.code, error.param, error.made = "fewer_images", "n", images
    return error


def stated_size(fields: Mapping[str, Any]) -> str:
    """Return the size that a reply says an image has, as ``WIDTHxHEIGHT``; empty: it says none."""
    width, height = fields.get("width"), fields.get("height")
    if type(width) is int and type(height) is int and width > 0 < height:
        return f"{width}x{height}"
    size = _pixels(fields.get("size"))
    return "" if size is None else str(size)


def size_changes(asked: Any, sizes: Collection[str], disclosed: Collection[Change]) -> tuple[Change, ...]:
    """Pictures of another size than the client has been led to expect are disclosed.

    Args:
        asked: the client's ``size``.
        sizes: ``WIDTHxHEIGHT`` of the pictures.
        disclosed: changes disclosed already; only a size in pixels can be compared, a ratio promises none.
    """
    disclosed_sizes = [str(change.to) for change in disclosed if change.field == "size"]
    expected = [asked, *disclosed_sizes][-1]
    if all(size == expected for size in sizes):
        return ()
    pixels = _pixels(expected)
    if pixels is None:
        return ()
    wanted = expected if asked is None else asked  # the gateway's own, where the client named none
    return tuple(Change("size", "made", wanted, size) for size in dict.fromkeys(sizes) if size != str(pixels))


def format_changes(asked: Any, formats: Collection[ImageFormat], disclosed: Collection[Change]) -> tuple[Change, ...]:
    """Disclose images of another format than the client has been led to expect.

    Args:
        asked: the client's ``output_format``.
        formats: of the images, by their bytes.
        disclosed: changes disclosed already; where the member was dropped, no format was promised.
    """
    changes = [change for change in disclosed if change.field == "output_format"]
    if not isinstance(asked, str) or any(change.kind == "dropped" for change in changes):
        return ()
    expected = _format_name([asked, *(str(change.to) for change in changes)][-1])
    made = dict.fromkeys(each.name for each in formats)
    return tuple(Change("output_format", "made", asked, name) for name in made if name != expected)


def _format_name(text: str) -> str:
    """Return a format as media types spell it."""
    name = text.lower().removeprefix("image/").removeprefix(".")
    return {"jpg": "jpeg", "svg+xml": "svg"}.get(name, name)


def _pixels(size: Any) -> Pixels | None:
    try:
        parsed = parse_size(size) if isinstance(size, str) else None
    except SizeSyntaxError:
        return None
    return parsed if isinstance(parsed, Pixels) else None
