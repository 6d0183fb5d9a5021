"""Splits a request for `n` images into several, and merges the replies. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from imagegate.contracts.changes import Change
from imagegate.errors import ImagegateError, RequestError, UpstreamError, UpstreamUncertain
from imagegate.protocol.messages import Exchange, ImageReply, ReplyImage, Target
from imagegate.protocol.usage import sum_usage

_INTEGER = re.compile(r"[0-9]{1,19}", re.ASCII)
_LARGEST_SEED: Final = 2**63 - 1
"""Where the contract names no largest."""
_BILLED: Final = ("credits", "cost")
"""Members of a reply that say what the whole of it costs: Recraft's, for one."""


def shares(n: int, most: int) -> tuple[int, ...]:
    """Divide `n` into as few parts as possible, none above `most`: 5 by 2 is 2, 2, 1."""
    whole, rest = divmod(n, most)
    return (most,) * whole + ((rest,) if rest else ())


def image_shares(exchange: Exchange, max_images: int) -> tuple[int, ...]:
    """Return how many images each request to the candidate asks for.

    Args:
        max_images: maximum `n` of a client's request, unless the contract allows more.

    Raises:
        RequestError: `n` is above the maximum.
    """
    n, whole = exchange.request.n, exchange.target.contract if exchange.target else None
    contract = whole.by_operation[exchange.request.operation] if whole else None
    most = max(max_images, contract.max_images) if contract else max_images
    if n > most:
        raise RequestError(
            f"Invalid 'n': integer above maximum value. Expected a value <= {most}, but got {n} instead.",
            param="n",
            code="integer_above_max_value",
        )
    if contract is None:
        return (n,)
    largest = contract.most_images(exchange.request.fields)
    return (n,) if n <= largest else shares(n, largest)


def check_n(exchange: Exchange, targets: Sequence[Target], max_images: int) -> None:
    """Check that a candidate takes as many images as a request asks for.

    Args:
        max_images: as for `image_shares`.

    Raises:
        RequestError: `n` is above the maximum of each.
    """
    if exchange.request.n == 1:
        return
    failure: RequestError | None = None
    for target in targets:
        try:
            image_shares(exchange.replace(target=target), max_images)
        except RequestError as error:
            failure = error
        else:
            return
    if failure is not None:
        raise failure


def part_of(exchange: Exchange, sizes: Sequence[int], place: int) -> Exchange:
    """Return the exchange for one part; ``n=1`` is sent by omitting `n`, which every model accepts.

    A client's seed grows by the number of images before the part: with the same seed each part would be the same.
    """
    n = sizes[place]
    fields = {name: value for name, value in exchange.request.fields.items() if name != "n"}
    if n > 1:
        fields["n"] = n
    if (seeds := seeds_of(exchange, sizes)) and place:
        fields["seed"] = seeds[place]
    return exchange.replace(request=exchange.request.with_fields(fields))


def seeds_of(exchange: Exchange, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the seed of each part; nothing where the client sent none, or the model takes none."""
    operation = exchange.request.operation
    contract = (
        exchange.target.contract.by_operation[operation] if exchange.target and exchange.target.contract else None
    )
    parameter = contract.parameters.get("seed") if contract else None
    seed = exchange.request.fields.get("seed")
    if isinstance(seed, str) and exchange.request.from_form and _INTEGER.fullmatch(seed):
        seed = int(seed)
    if parameter is None or isinstance(seed, bool) or not isinstance(seed, int):
        return ()
    low, high = int(parameter.min or 0), int(parameter.max if parameter.max is not None else _LARGEST_SEED)
    if not low <= seed <= high:
        return ()  # refused by the contract
    return tuple(low + (seed - low + before) % (high - low + 1) for before in accumulate(sizes[:-1], initial=0))


def without_stream(exchange: Exchange) -> tuple[Exchange, tuple[Change, ...]]:
    """Return the exchange without streaming, and the changes: parts are merged before the client's reply is made."""
    if exchange.request.fields.get("stream") is not True:
        return exchange, ()
    dropped = [name for name in ("stream", "partial_images") if name in exchange.request.fields]
    changes = tuple(Change(name, "dropped") for name in dropped)
    return exchange.replace(request=exchange.request.without(*dropped)), changes


def merge(replies: Sequence[ImageReply]) -> ImageReply:
    """Return one reply with all images in order.

    What was billed is summed. A member that differs between replies, such as a seed, goes to the images of its own.
    """
    if len(replies) == 1:
        return replies[0]
    fields: dict[str, Any] = {}
    apart: set[str] = set()
    for name in dict.fromkeys(name for reply in replies for name in reply.fields):
        said: list[Any] = [reply.fields.get(name) for reply in replies]
        if name == "usage" and (usages := [usage for usage in said if isinstance(usage, Mapping)]):
            fields[name] = sum_usage(usages)
        elif name in _BILLED and all(isinstance(each, int | float) and not isinstance(each, bool) for each in said):
            fields[name] = sum(said)
        elif all(each == said[0] for each in said):
            fields[name] = said[0]
        else:
            apart.add(name)
    images: list[ReplyImage] = []
    for reply in replies:
        own = {name: value for name, value in reply.fields.items() if name in apart}
        images += [_of_part(image, own) for image in reply.images]
    return ImageReply(images=tuple(images), created=replies[0].created, fields=fields)


def _of_part(image: ReplyImage, fields: Mapping[str, Any]) -> ReplyImage:
    """Return an image with what its reply says of it, and without its place there."""
    own = {name: value for name, value in image.fields.items() if name != "index"}
    return msgspec.structs.replace(image, fields={**fields, **own}) if fields or len(own) < len(image.fields) else image


def gravest(failures: Sequence[Exception]) -> Exception:
    """Return the most restrictive error of several parts.

    Unexpected ones come first, then uncertain ones, pictures that were made and lost, refusals after which no other
    candidate may be asked, and what was not sent.
    """

    def gravity(error: Exception) -> int:
        if not isinstance(error, ImagegateError):
            return 0
        if isinstance(error, UpstreamError):
            return 1 if error.outcome == "uncertain" else 5 if error.allows_fallback else 3
        return 4 if error.nothing_sent else 2

    return min(failures, key=gravity)


def incomplete(error: ImagegateError, made: Sequence[ImageReply], n: int) -> ImagegateError:
    """Return a part's error, the provider's or our own, as the whole's.

    The images of other parts were billed, so it is not retried.
    """
    images = tuple(image for reply in made for image in reply.images)
    if isinstance(error, UpstreamError):
        images += tuple(error.made)
    if not images:
        return error
    whole = UpstreamUncertain(
        f"{len(images)} of {n} images were made, then: {error.message}",
        status=error.status,
        type=error.type,
        code=error.code,
        param=error.param,
    )
    whole.details = error.details
    whole.made = images
    return whole
