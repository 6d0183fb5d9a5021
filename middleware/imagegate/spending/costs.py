"""What a request can cost at most, and what it has cost. Pure: the rules by which reservations are made and settled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from imagegate.errors import RequestError
from imagegate.protocol.messages import ImageRequest, Target
from imagegate.protocol.price_units import NO_FIELDS, bounds_of
from imagegate.protocol.prices import ModelPrice
from imagegate.protocol.references import references_of
from imagegate.protocol.usage import tokens_by_kind
from imagegate.spending.money import nanos
from imagegate.telemetry.exchange import UpstreamCall

PriceOf = Callable[[str, str], ModelPrice | None]
"""Returns the price of a model at an upstream."""
Pays = Callable[[str], bool]
"""Returns whether the gateway pays an upstream, and not the client with a key of its own."""

_FRAME: Final = 64
"""Tokens that providers add to a prompt."""
_MASKS: Final = 2
"""A mask and a markup."""
_MOST_FILES: Final = 16


class Outcome(NamedTuple):
    """What becomes of a reservation, in nanos; what is neither is released."""

    settled: int
    """What the provider has charged."""
    held: int
    """What it may have charged: it stays reserved until an operator, or the provider, says."""


NOTHING: Final = Outcome(0, 0)
"""Of what was not sent, or was refused."""


def most_cost(request: ImageRequest, targets: Sequence[Target], price_of: PriceOf, pays: Pays, fallback: float) -> int:
    """Return the most that a request can cost at any of its candidates, in nanos.

    A request is paid for once: another candidate is asked only where the one before has charged nothing.

    Args:
        fallback: the most that one image costs of a model whose price does not say; 0: such a model is refused.

    Raises:
        RequestError: no such bound is known of a candidate.
    """
    prompt = request.fields.get("prompt")
    # A token of text is at least a byte.
    text = _FRAME + (len(prompt.encode("utf-8", "surrogatepass")) if isinstance(prompt, str) else 0)
    most = 0
    for target in targets:
        if not pays(target.upstream):
            continue
        price = price_of(target.upstream, target.model)
        own = target.contract.by_operation[request.operation] if target.contract else None
        image = price.most_per_image(bounds_of(own, request.fields)) if price else None
        if image is None:
            image = fallback or None
        if image is None:
            raise RequestError(
                f"The most that an image of '{request.model}' costs is not known, so a request with a budget cannot be "
                "sent. The operator can state it: 'reserve' in [prices.models], or in [spending] for all models.",
                param="model",
                code="price_unknown",
            )
        # OpenAI charges the whole input for each image (as for requests of their own); a split request sends it again.
        of_input = 0.0
        if price is not None and (price.tokens or price.reference_image or price.reference_megapixel):
            of_input = price.most_of_input(text, _references(request, target))
        most = max(most, nanos(target.most_images(request) * (image + of_input)))
    return most


def _references(request: ImageRequest, target: Target) -> int:
    """Return how many references and masks a request has at most."""
    if request.live is not None:  # files that are still coming in
        own = target.contract.by_operation[request.operation] if target.contract is not None else None
        return _MASKS + (own.references.max if own is not None and own.references is not None else _MOST_FILES)
    try:
        _, images, mask = references_of(request.fields)
    except RequestError:  # which a model that takes it reads in its own way
        return _MASKS + _MOST_FILES
    return len(request.references) + len(images) + (mask is not None)


def outcome_of(
    reserved: int,
    images: int,
    *,
    calls: Iterable[UpstreamCall],
    made: int,
    usage: Mapping[str, Any] | None,
    price: ModelPrice | None,
    fields: Mapping[str, Any] = NO_FIELDS,
    sizes: Sequence[str] = (),
    references: Sequence[int] = (),
    pays: Pays = lambda upstream: True,
) -> Outcome:
    """Return what a request has cost, by how its POSTs have ended.

    Args:
        reserved: nanos, for `images` images.
        calls: every POST; what was not sent or was refused is free, what is uncertain is held.
        made: images in the replies.
        usage: tokens in the replies.
        price: of the model that made them.
        fields: of the request as it was sent.
        sizes: of the images that were seen.
        references: pixels of each reference and mask; 0: not known.
    """
    answered = uncertain = 0
    for call in calls:
        if not pays(call.upstream):
            continue
        if call.outcome == "ok":
            answered += call.images
        elif call.outcome in ("uncertain", "cancelled"):
            uncertain += call.images
    settled = 0
    if answered:
        most = reserved * answered // max(images, answered)
        settled = charge(most, made or answered, usage, price, fields, sizes=sizes, references=references)
    share = -(-reserved * uncertain // max(images, 1))
    return Outcome(settled, max(0, min(share, reserved - settled)))


def charge(
    most: int,
    made: int,
    usage: Mapping[str, Any] | None,
    price: ModelPrice | None,
    fields: Mapping[str, Any] = NO_FIELDS,
    *,
    sizes: Sequence[str] = (),
    references: Sequence[int] = (),
) -> int:
    """Return the nanos that a provider charges for what it has answered with.

    Args:
        most: what counts where the price, or the reply, does not say.
    """
    if price is None or (price.tokens and not price.image and not tokens_by_kind(usage)):
        return most
    cost = price.cost(made, usage, fields, sizes, references)
    return most if cost is None else nanos(cost)
