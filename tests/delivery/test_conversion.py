"""What a request asks exactly of its images, and that no image breaks the conversion."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from imagegate.contracts.size_syntax import Pixels
from imagegate.delivery.conversion import NotConverted, Wanted, converted, restated, wanted_of
from imagegate.protocol.image_format import JPEG, PNG, WEBP, Facts, inspect


@pytest.mark.parametrize(
    ("fields", "size", "formats", "expected"),
    [
        ({"size": "1024x768"}, "resize", False, Wanted(size=Pixels(1024, 768))),
        ({"size": "1024x768"}, "crop", False, Wanted(size=Pixels(1024, 768), crop=True)),
        ({"size": "1024x768"}, "off", True, None),
        ({"size": "16:9"}, "resize", False, None),
        ({"size": "auto"}, "resize", False, None),
        ({"size": 7}, "resize", True, None),
        ({"size": "no size"}, "resize", True, None),
        ({"output_format": "JPEG", "output_compression": 40}, "off", True, Wanted(kind=JPEG, quality=40)),
        ({"output_format": "webp", "output_compression": 0}, "off", True, Wanted(kind=WEBP)),
        ({"output_format": "gif"}, "resize", True, None),
        ({"output_format": "png"}, "resize", False, None),
        ({}, "crop", True, None),
    ],
)
def test_what_is_wanted(fields: dict[str, Any], size: Any, formats: bool, expected: Wanted | None) -> None:
    assert wanted_of(fields, size, formats=formats) == expected


def test_replies_say_what_was_converted() -> None:
    """Each in its own words; what says nothing of the image, or is not of its kind, stays."""
    said = {
        "width": 1254,
        "Height": 1254,
        "content_type": "image/png",
        "mimeType": "image/png",
        "file_size": 70_000,
        "size": "1254*1254",
        "output_format": "png",
        "seed": 7,
        "revised_prompt": "A hat",
    }
    facts = Facts(kind=WEBP, width=1024, height=768, alpha=False)
    assert restated(said, facts) == {
        "width": 1024,
        "Height": 768,
        "content_type": "image/webp",
        "mimeType": "image/webp",
        "size": "1024*768",
        "output_format": "webp",
        "seed": 7,
        "revised_prompt": "A hat",
    }
    assert restated(said, None) == {"seed": 7, "revised_prompt": "A hat"}
    odd = {"width": "wide", "size": "auto", "format": 3, "media_type": None}
    assert restated(odd, facts) == odd


@given(
    st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"]),
    st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]),
    st.sampled_from([PNG, JPEG, WEBP, None]),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_every_mode_in_every_format(mode: str, form: str, kind: Any, crop: bool, width: int, height: int) -> None:
    """What Pillow writes is converted, and has the size and the format that was asked for; a BMP becomes a PNG."""
    source = io.BytesIO()
    try:
        Image.new(mode, (24, 16)).save(source, form)
        Image.open(io.BytesIO(source.getvalue())).load()
    except (OSError, ValueError, KeyError):
        return  # the format has no such mode, or the oldest Pillow cannot read its own BMP with a palette
    wanted = Wanted(size=Pixels(width, height), crop=crop, kind=kind)
    made = converted(source.getvalue(), wanted)
    facts = inspect(made)
    before = inspect(source.getvalue())
    assert facts is not None and before is not None
    assert wanted.is_possible(before)
    expected = PNG if form == "BMP" else before.kind
    assert (facts.width, facts.height, facts.kind) == (width, height, kind or expected)
    disclosed = {change.field: change.to for change in wanted.changes(before)}
    assert disclosed.get("output_format", before.kind.extension) == facts.kind.extension


def test_a_tiff_is_left_as_it_is() -> None:
    """A small one may ask for gigabytes, or for hours."""
    source = io.BytesIO()
    Image.new("RGB", (24, 16)).save(source, "TIFF")
    facts = inspect(source.getvalue())
    assert facts is not None
    assert not Wanted(size=Pixels(8, 8)).is_possible(facts)
    with pytest.raises(NotConverted):
        converted(source.getvalue(), Wanted(size=Pixels(8, 8)))


@given(st.binary(max_size=300))
def test_what_is_no_image_is_left_alone(content: bytes) -> None:
    with pytest.raises(NotConverted):
        converted(b"\x89PNG\r\n\x1a\n" + content, Wanted(size=Pixels(8, 8)))


def _with_exif(exif: bytes) -> bytes:
    source = io.BytesIO()
    Image.new("RGB", (24, 16)).save(source, "WEBP", exif=exif)
    return source.getvalue()


@given(st.binary(max_size=60))
@example(b"")  # a directory that ends before it begins
@example(b"\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x01\x1a\0\x02\0\0\0\x04abcd\0\0\0\0")  # a text for a number
def test_damaged_metadata_leave_an_image_as_it_is(directory: bytes) -> None:
    """It is paid for, so whatever Pillow raises, it is delivered."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of such metadata
        for exif in (b"MM\0*\0\0\0\x08" + directory, b"II*\0" + directory):
            with suppress(NotConverted):
                assert converted(_with_exif(exif), Wanted(size=Pixels(8, 8)))


def test_colours_of_16_bits_are_not_made_white() -> None:
    source = io.BytesIO()
    Image.new("I;16", (24, 16), 30_000).save(source, "PNG")
    with pytest.raises(NotConverted):
        converted(source.getvalue(), Wanted(size=Pixels(8, 8)))
