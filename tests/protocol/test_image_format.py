"""Image formats by their first bytes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagegate.protocol.image_format import (
    AVIF,
    BMP,
    BY_EXTENSION,
    GIF,
    HEIC,
    JPEG,
    JXL,
    PNG,
    SVG,
    TIFF,
    WEBP,
    inspect,
    sniff,
)

HEADS = [
    (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", PNG),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", JPEG),
    (b"\xff\xd8\xff\xdb", JPEG),
    (b"RIFF\x24\x00\x00\x00WEBPVP8 ", WEBP),
    (b"GIF87a\x01\x00", GIF),
    (b"GIF89a\x01\x00", GIF),
    (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00", AVIF),
    (b"\x00\x00\x00\x20ftypavis\x00\x00\x00\x00", AVIF),
    (b'<svg xmlns="http://www.w3.org/2000/svg">', SVG),
    (b"\xef\xbb\xbf\r\n\t <SVG>", SVG),
    (b'<?xml version="1.0"?>\n<svg>', SVG),
    (b"<!-- " + b"made by hand, " * 100 + b"--><svg/>", SVG),
    (b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/x.dtd" [ <!ENTITY a "b"> ]>\n<svg >', SVG),
    (b'<?xml version="1.0"?><?xml-stylesheet href="a.css"?><!--a--> <!--b--><svg:svg xmlns:svg="x">', SVG),
    ('<?xml version="1.0" encoding="utf-16"?><svg/>'.encode("utf-16"), SVG),
    (b"\x00\x00\x00\x20ftypmif1\x00\x00\x00\x00mif1avifmiaf", AVIF),
    (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", HEIC),
    (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", HEIC),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n\x00\x00\x00\x14ftypjxl ", JXL),
    (b"II*\x00\x08\x00\x00\x00", TIFF),
    (b"MM\x00*\x00\x00\x00\x08", TIFF),
    (b"BM\x36\x00\x0c\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00", BMP),
]


@pytest.mark.parametrize(("head", "expected"), HEADS)
def test_pictures_are_known_by_their_first_bytes(head, expected):
    """Each format has its signature."""
    assert expected == sniff(head)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x89PNG",
        b"\x89PNG\n\x1a\n",
        b"\xff\xd8",
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"RIFF",
        b"<!DOCTYPE html><html><svg></svg></html>",
        b"<html><!-- <svg> --></html>",
        b"<!-- <svg>",
        b"<svgx>",
        b"<?xml version='1.0'?><Error><Message>no <svg></Message></Error>",
        b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp42isom",
        b"WEBP",
        b"GIF90a",
        b"\x00\x00\x00\x1cftypqt  ",
        b"ftypavif",
        b"<!doctype html><html><svg></svg>",
        b"<html>",
        b'<?xml version="1.0"?><error/>',
        b'{"error":{}}',
        b"BM\x00\x00",
        b"%PDF-1.7",
        b" \x89PNG\r\n\x1a\n",
        b"<?xml" + b" " * 300 + b"<svg>",
    ],
)
def test_everything_else_is_no_picture(head):
    """Cut signatures, other containers, pages and documents are not taken for pictures."""
    assert sniff(head) is None


@given(st.binary(max_size=300) | st.sampled_from([head for head, _ in HEADS]))
def test_any_bytes_are_a_known_format_or_none(head):
    """Sniffing never fails."""
    assert sniff(head) in (None, *BY_EXTENSION.values())


@given(st.binary(min_size=256, max_size=256), st.binary(max_size=64))
def test_256_bytes_are_enough(head, rest):
    """What follows the head of a file changes nothing."""
    assert sniff(head) == sniff(head + rest + b"<svg")


@pytest.mark.parametrize(
    ("extension", "media_type"),
    [
        ("png", "image/png"),
        ("jpg", "image/jpeg"),
        ("webp", "image/webp"),
        ("gif", "image/gif"),
        ("avif", "image/avif"),
        ("svg", "image/svg+xml"),
    ],
)
def test_formats_have_an_extension_and_a_media_type(extension, media_type):
    """Stored pictures are served as what they are."""
    assert media_type == BY_EXTENSION[extension].media_type


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("form", ["BMP", "DIB", "TIFF"])
def test_sizes_of_what_cameras_and_scanners_write(form: str, mode: str) -> None:
    """As Pillow writes them; a BMP from the top has a negative height."""
    buffer = io.BytesIO()
    Image.new(mode, (37, 21)).save(buffer, "BMP" if form == "DIB" else form)
    content = buffer.getvalue()
    if form == "DIB":  # the same, from the top
        content = content[:22] + (-21).to_bytes(4, "little", signed=True) + content[26:]
    facts = inspect(content)
    assert facts is not None
    assert (facts.width, facts.height, facts.alpha) == (37, 21, (form, mode) == ("TIFF", "RGBA"))


def test_a_bmp_with_a_mask_for_transparency() -> None:
    head = b"BM" + bytes(8) + b"\x46\x00\x00\x00" + b"\x38\x00\x00\x00" + (9).to_bytes(4, "little") * 2
    masks = b"\x00\x00\xff\x00" + b"\x00\xff\x00\x00" + b"\xff\x00\x00\x00" + b"\x00\x00\x00\xff"
    facts = inspect(head + b"\x01\x00\x20\x00\x03" + bytes(23) + masks)
    assert facts is not None
    assert facts[:4] == (BMP, 9, 9, True)


def test_a_size_is_known_whole_or_not_at_all() -> None:
    """A directory that ends after the width."""
    facts = inspect(b"II*\x00\x08\x00\x00\x00\x02\x00" + b"\x00\x01\x03\x00\x01\x00\x00\x00\x4d\x00\x00\x00")
    assert facts is not None
    assert (facts.width, facts.height) == (0, 0)


def test_the_oldest_bmp() -> None:
    head = b"BM" + bytes(8) + b"\x1a\x00\x00\x00" + b"\x0c\x00\x00\x00" + b"\x05\x00\x07\x00\x01\x00\x18\x00"
    facts = inspect(head)
    assert facts is not None
    assert facts[:4] == (BMP, 5, 7, False)


@given(st.sampled_from([b"II*\x00", b"MM\x00*", b"BM" + bytes(4) + bytes(4)]), st.binary(max_size=80))
def test_damaged_heads_are_no_error(beginning: bytes, rest: bytes) -> None:
    facts = inspect(beginning + rest)
    assert facts is None or facts.width >= 0
