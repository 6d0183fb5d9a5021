"""An image in the size and format that were asked for: what is to be done, and Pillow, which does it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from imagegate.contracts.changes import Change
from imagegate.contracts.size_syntax import Pixels, SizeSyntaxError, parse_size
from imagegate.protocol.image_format import BMP, JPEG, PNG, WEBP, Facts, ImageFormat
from imagegate.protocol.names import plain

if TYPE_CHECKING:
    from PIL.Image import Image

ExactSize = Literal["off", "resize", "crop"]
MOST_PIXELS: Final = 36_000_000
"""Of an image before and after: four bytes each, twice, while it is converted."""
_FORMATS: Final = {"png": PNG, "jpeg": JPEG, "jpg": JPEG, "webp": WEBP}
_NAMES: Final = {PNG: "PNG", JPEG: "JPEG", WEBP: "WEBP"}
_READ: Final = {**_NAMES, BMP: "BMP"}
"""Formats that are converted from; a BMP becomes a PNG, unless something else is wanted. A TIFF is left as it is: its
tiles may be larger than itself, and Pillow counts its frames in quadratic time."""
_DEFAULT_QUALITY: Final = 95
_PIXELS: Final = re.compile(r"[0-9]+([x*X])[0-9]+")
_FORMAT_NAMES: Final = frozenset(("outputformat", "format"))
_STATEMENTS: Final = _FORMAT_NAMES | {"width", "height", "size", "filesize", "contenttype", "mediatype", "mimetype"}
"""Members of replies that say what an image is, by their plain names."""


class NotConverted(Exception):
    """The image stays as it is: it cannot be read, moves, or has more colours than would be kept."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks of its images."""

    size: Pixels | None = None
    crop: bool = False
    """Whether what is too long is cut off evenly at both ends; else the image is scaled in each direction."""
    kind: ImageFormat | None = None
    quality: int = _DEFAULT_QUALITY
    """Of JPEG and WebP, 1 to 100."""

    def is_met_by(self, facts: Facts) -> bool:
        """Return whether an image is as it should be."""
        has_size = self.size is None or (facts.width, facts.height) == (self.size.width, self.size.height)
        return has_size and (self.kind is None or facts.kind == self.kind)

    def is_possible(self, facts: Facts) -> bool:
        """Return whether an image of this format and size is converted at all."""
        after = self.size.width * self.size.height if self.size else 0
        return facts.kind in _READ and 0 < facts.width * facts.height <= MOST_PIXELS and after <= MOST_PIXELS

    def becomes(self, kind: ImageFormat) -> ImageFormat:
        """Return the format of an image that was converted from `kind`."""
        return self.kind or (kind if kind in _NAMES else PNG)

    def changes(self, facts: Facts) -> list[Change]:
        """Return what is disclosed of an image that was converted."""
        changes: list[Change] = []
        if self.size is not None and (facts.width, facts.height) != (self.size.width, self.size.height):
            changes.append(Change("size", "converted", f"{facts.width}x{facts.height}", str(self.size)))
        if (kind := self.becomes(facts.kind)) != facts.kind:
            changes.append(Change("output_format", "converted", facts.kind.extension, kind.extension))
        if facts.c2pa:
            changes.append(Change("provenance", "dropped"))
        return changes


def wanted_of(fields: Mapping[str, Any], size: ExactSize, *, formats: bool) -> Wanted | None:
    """Return what the members of a request ask for and the policy makes true; None: nothing."""
    pixels = None
    if size != "off" and isinstance(asked := fields.get("size"), str):
        try:
            parsed = parse_size(asked)
        except SizeSyntaxError:
            parsed = None
        pixels = parsed if isinstance(parsed, Pixels) else None
    asked_format = fields.get("output_format")
    kind = _FORMATS.get(asked_format.lower()) if formats and isinstance(asked_format, str) else None
    if pixels is None and kind is None:
        return None
    asked_quality = fields.get("output_compression")
    quality = asked_quality if isinstance(asked_quality, int) and 1 <= asked_quality <= 100 else _DEFAULT_QUALITY
    return Wanted(size=pixels, crop=size == "crop", kind=kind, quality=quality)


def restated(fields: Mapping[str, Any], facts: Facts | None) -> Mapping[str, Any]:
    """Return the members of a reply with what they say of an image made true after its conversion.

    Args:
        facts: of the converted image; None: there are several, so that nothing can be said of all.
    """
    found: dict[str, Any] = {}
    for name, value in fields.items():
        kind = plain(name)
        if kind not in _STATEMENTS:
            found[name] = value
        elif facts is not None and kind != "filesize":
            found[name] = _said(kind, value, facts)
    return found


def _said(kind: str, value: Any, facts: Facts) -> Any:
    """Return what a member says of an image; what is no text or number of its kind stays."""
    if kind in ("width", "height"):
        return (facts.width if kind == "width" else facts.height) if isinstance(value, int) else value
    if kind == "size":
        is_pixels = isinstance(value, str) and _PIXELS.fullmatch(value)
        return f"{facts.width}{is_pixels[1]}{facts.height}" if is_pixels else value
    return (facts.kind.name if kind in _FORMAT_NAMES else facts.kind.media_type) if isinstance(value, str) else value


def converted(content: bytes, wanted: Wanted) -> bytes:
    """Return an image as `wanted`, with its colour profile and without other metadata. Takes long: run it in a thread.

    Raises:
        NotConverted: it cannot be read, is larger than `MOST_PIXELS`, or has several frames or over 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(content), formats=tuple(_READ.values())) as image:
            if getattr(image, "n_frames", 1) > 1 or image.width * image.height > MOST_PIXELS:
                raise NotConverted
            if image.mode.startswith(("I", "F")):  # more bits than Pillow's conversion keeps: it would become white
                raise NotConverted
            kind = wanted.becomes(next(kind for kind, name in _READ.items() if name == image.format))
            profile = image.info.get("icc_profile")
            upright = ImageOps.exif_transpose(image)
            made = _in_mode(upright, kind)
            if wanted.size is not None:
                size = (wanted.size.width, wanted.size.height)
                resampling = Image.Resampling.LANCZOS
                made = ImageOps.fit(made, size, resampling) if wanted.crop else made.resize(size, resampling)
            output = BytesIO()
            options = {} if kind is PNG else {"quality": wanted.quality}
            made.save(output, _NAMES[kind], icc_profile=profile, **options)
    except NotConverted:
        raise
    except Exception as error:  # of damaged metadata too, for which Pillow raises whatever comes
        raise NotConverted from error
    return output.getvalue()


def _in_mode(image: Image, kind: ImageFormat) -> Image:
    """Return the image in colours that can be scaled and that the format has: transparency becomes white in JPEG."""
    from PIL.Image import alpha_composite, new

    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if not has_alpha:
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    image = image.convert("RGBA")
    if kind is not JPEG:
        return image
    ground = new("RGBA", image.size, "white")
    return alpha_composite(ground, image).convert("RGB")
