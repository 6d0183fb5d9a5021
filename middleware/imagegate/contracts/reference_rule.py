"""How a model takes reference images and masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

ReferenceForm = Literal["files", "objects", "links", "inline", "uploads"]


class ReferenceRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model takes the images that a request starts from. Sizes are in bytes."""

    forms: tuple[ReferenceForm, ...] = ("links",)
    """``files``: parts of a form, ``image`` or several ``image[]``; ``objects``: ``images: [{image_url}]`` in JSON;
    ``links``: URLs in the members of `fields`; ``inline``: base64 in JSON, where the adapter puts it (together with
    ``objects``, links stay links); ``uploads``: ids that the provider's upload API gave, likewise."""
    fields: tuple[str, ...] = ()
    """For ``links``: the members that hold URLs; the first is the one that others are renamed to."""
    max: int = 16
    """Images in all."""
    mask: bool = False
    """Whether all forms but ``links`` may come with a mask, called ``mask``."""
    mask_not_with: Mapping[str, tuple[str, ...]] = {}
    """Another member and the values of it with which a mask is refused."""
    markup: bool = False
    """Whether ``files`` may come with a ``markup``, a transparent overlay, in place of a mask."""
    mask_polarity: Literal["alpha", "white", "black"] = "alpha"
    """What marks the pixels to change: transparency, as at OpenAI, white on black, or black on white."""
    mask_two_valued: bool = False
    """Whether such a mask may have no grey: what is more than half transparent is to be changed."""
    mask_without: tuple[str, ...] = ()
    """Members that go where there is a mask: the provider's endpoint for masks has none of them."""
    mask_field: str | None = None
    """For ``links``: the member that holds the mask's URL."""
    operation: str | None = None
    """Value of the ``operation`` member that must accompany references."""
    file_ids: bool = False
    """Whether ``objects`` may name files that the provider already has."""
    live: bool = True
    """Whether files may go on while they come in; False: the adapter's path or its names depend on them."""
    upload: bool = False
    """Whether the provider has an upload API that turns files into links."""
    kinds: tuple[str, ...] = ("image/png", "image/jpeg", "image/webp")
    """Media types."""
    max_bytes: int = 50_000_000
    max_mask_bytes: int = 4_000_000
    square: bool = False
    alpha: bool = False
    """Whether images need an alpha channel; masks always do."""
    same_size: bool = False
    """Whether ``size`` must be the image's own."""
    image_size: bool = False
    """Whether ``size`` is that of the first image where the client names none, because the provider's own is not."""

    @property
    def takes_mask(self) -> bool:
        return self.mask or self.mask_field is not None
