"""What a picture's head tells, measured against Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from imagegate.protocol.image_format import AVIF, GIF, JPEG, PNG, SVG, WEBP, Facts, inspect

KINDS = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP, "GIF": GIF}
HEAD = 64 * 1024


def picture(form: str, mode: str = "RGB", size: tuple[int, int] = (37, 21), **options: object) -> bytes:
    """A real picture."""
    image = Image.new(mode, size)
    if mode == "P":
        image.putpalette([value % 256 for value in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pillows_facts(data: bytes) -> Facts:
    """The same facts, as Pillow reads them."""
    with Image.open(io.BytesIO(data)) as image:
        alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
        return Facts(KINDS[image.format or ""], image.width, image.height, alpha)


def head_of(data: bytes) -> bytes:
    """As much as is looked at."""
    return data[:HEAD]


SAVED = [
    ("PNG", "1", {}),
    ("PNG", "L", {}),
    ("PNG", "LA", {}),
    ("PNG", "P", {}),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "P", {"transparency": bytes(range(256))}),
    ("PNG", "RGB", {}),
    ("PNG", "RGB", {"transparency": (1, 2, 3)}),
    ("PNG", "L", {"transparency": 7}),
    ("PNG", "1", {"transparency": 0}),
    ("PNG", "RGBA", {}),
    ("PNG", "I;16", {}),
    ("PNG", "RGB", {"icc_profile": bytes(3000), "dpi": (300, 300)}),
    ("PNG", "P", {"icc_profile": bytes(range(256)) * 20, "transparency": 0}),
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "RGB", {"optimize": True, "quality": 1}),
    ("JPEG", "RGB", {"restart_marker_rows": 1}),
    ("JPEG", "RGB", {"icc_profile": bytes(40_000), "comment": b"\xff\xc0 is no marker here"}),
    ("JPEG", "RGB", {"exif": b"Exif\0\0" + b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03" * 100}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {}),
    ("WEBP", "RGB", {"lossless": True}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "L", {}),
    ("WEBP", "RGB", {"icc_profile": bytes(500), "exif": b"Exif\0\0"}),
    ("GIF", "L", {}),
    ("GIF", "P", {}),
    ("GIF", "P", {"transparency": 5}),
    ("GIF", "RGB", {"comment": b"hello"}),
]


@pytest.mark.parametrize(("form", "mode", "options"), SAVED)
@pytest.mark.parametrize("size", [(1, 1), (37, 21), (1024, 256), (1, 4000)])
def test_facts_are_those_that_pillow_finds(form, mode, options, size):
    """Format, pixels and transparency of every kind of file that Pillow writes."""
    data = picture(form, mode, size, **options)
    expected = pillows_facts(data)
    found = inspect(head_of(data))
    if form == "GIF":  # whether a GIF has a transparent colour stands in each of its frames
        assert found is not None and found.alpha >= expected.alpha
        found = found._replace(alpha=expected.alpha)
    if form == "WEBP" and mode == "RGBA":  # Pillow writes no alpha where every pixel is opaque
        assert found is not None and expected.alpha == found.alpha
    assert expected == found


@pytest.mark.parametrize("lossless", [True, False])
def test_transparent_webp(lossless):
    """Alpha is found in both kinds of WebP."""
    image = Image.new("RGBA", (33, 17), (10, 20, 30, 0))
    image.putpixel((3, 3), (1, 2, 3, 255))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=lossless)
    assert Facts(WEBP, 33, 17, True) == inspect(buffer.getvalue()) == pillows_facts(buffer.getvalue())


def test_animations():
    """The facts of an animation are those of its first frame's canvas."""
    frames = [Image.new("RGBA", (40, 30), (0, 0, 0, value)) for value in (0, 100, 255)]
    for form in ("PNG", "WEBP", "GIF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
        found = inspect(head_of(buffer.getvalue()))
        assert Facts(KINDS[form], 40, 30, True) == found


def test_interlaced_png_with_text():
    """Chunks before the palette's transparency are passed over."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "tRNS IDAT " * 500)
    info.add_itxt("Title", "größe", "de", "Titel", zip=True)
    data = picture("PNG", "P", transparency=9, pnginfo=info)
    assert Facts(PNG, 37, 21, True) == inspect(head_of(data))


@given(
    st.sampled_from([(form, mode, options) for form, mode, options in SAVED]),
    st.integers(1, 3000),
    st.integers(1, 3000),
)
def test_any_size(saved, width, height):
    """Width and height are never swapped, cut or mixed up."""
    form, mode, options = saved
    buffer = io.BytesIO()
    if width * height > 200_000:
        width, height = (width, max(1, 200_000 // width))
    image = Image.new(mode, (width, height))
    if mode == "P":
        image.putpalette([value % 256 for value in range(768)])
    image.save(buffer, form, **options)
    found = inspect(head_of(buffer.getvalue()))
    assert found is not None
    assert (KINDS[form], width, height) == (found.kind, found.width, found.height)


@pytest.mark.parametrize(("form", "mode", "options"), SAVED)
def test_truncated_heads_tell_what_they_can_and_never_raise(form, mode, options):
    """A head that is cut anywhere gives the right size or none, and no transparency that is not there."""
    data = picture(form, mode, **options)
    whole = inspect(data)
    assert whole is not None
    for length in range(min(len(data), 3000)):
        found = inspect(data[:length])
        if found is None:
            assert length < 16
            continue
        assert whole.kind == found.kind
        assert (found.width, found.height) in ((0, 0), (37, 21))
        assert found.alpha <= whole.alpha


@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x24\x00\x00\x00WEBP", b"GIF89a", b"GIF87a"])
    | st.sampled_from(
        [b"RIFF\x24\x00\x00\x00WEBPVP8X", b"RIFF\x24\x00\x00\x00WEBPVP8L", b"RIFF\x24\x00\x00\x00WEBPVP8 "]
    )
    | st.sampled_from([b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"\x00\x00\x00\x1cftypavif", b"<svg "]),
    st.binary(max_size=200),
)
def test_hostile_heads_never_raise(start, rest):
    """Whatever follows a signature, there is an answer, and it makes no nonsense of sizes."""
    found = inspect(start + rest)
    assert found is not None
    assert 0 <= found.width <= 2**32
    assert 0 <= found.height <= 2**32


@given(st.sampled_from(SAVED), st.data())
def test_mutated_pictures_never_raise(saved, data):
    """A real picture with some bytes changed is inspected without an error."""
    form, mode, options = saved
    head = bytearray(head_of(picture(form, mode, **options)))
    for _ in range(data.draw(st.integers(1, 6))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    inspect(bytes(head))


@pytest.mark.parametrize(
    "head",
    [
        b"\xff\xd8" + b"\xff" * HEAD,
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * (HEAD // 4),
        b"\xff\xd8" + b"\xff\xd0" * (HEAD // 2),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 8, 8) + b"\x08\x03\0\0\0" + bytes(HEAD),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 8, 8) + b"\x08\x03\0\0\0" + b"\xff" * HEAD,
    ],
)
def test_heads_without_an_end(head):
    """Fill bytes, empty segments, empty chunks and absurd lengths end the search, not the gateway."""
    found = inspect(head)
    assert found is not None
    assert (found.width, found.height) in ((0, 0), (8, 8))
    assert not found.alpha


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_words_inside_chunks_are_not_chunks():
    """``tRNS`` in a comment gives no transparency, and after the pixels it says nothing."""
    signature = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(4 * (1 + 15))))
    opaque = signature + chunk(b"tEXt", b"c\0 tRNS \0\0\0\x06tRNS") + pixels + chunk(b"tRNS", bytes(6))
    assert Facts(PNG, 5, 4, False) == inspect(opaque)
    transparent = signature + chunk(b"tEXt", b"IDAT") + chunk(b"tRNS", bytes(6)) + pixels
    assert Facts(PNG, 5, 4, True) == inspect(transparent)


def test_kinds_without_a_size_in_their_head():
    """AVIF and SVG are known, their pixels are not told."""
    assert Facts(AVIF, 0, 0, True) == inspect(b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00")
    assert Facts(SVG, 0, 0, True) == inspect(b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10">')


@pytest.mark.parametrize("head", [b"", b"GIF", b"BM\x00\x00", b"%PDF-1.7", b"\x00\x00\x00\x1cftypqt  ", b"<html>"])
def test_what_is_no_picture(head):
    """Other files have no facts."""
    assert inspect(head) is None
