"""Masks in the other polarity: what was transparent is white, what was opaque black, and nothing in between is lost."""

from __future__ import annotations

import contextlib
import io
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagegate.errors import ImagegateError, RequestError
from imagegate.fitting.masks import black_and_white


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def alpha_mask(width: int, height: int, alpha: bytes, mode: str = "RGBA") -> bytes:
    """A mask with these alpha values, and colours that say nothing."""
    channel = Image.frombytes("L", (width, height), alpha)
    colour = (200, 30, 90, 0) if mode == "RGBA" else (200, 0)
    image = Image.new(mode, (width, height), colour)
    image.putalpha(channel)
    return png(image)


def grey(converted: bytes) -> tuple[tuple[int, int], bytes]:
    """Size and pixels of a converted mask, which must be a grey PNG."""
    with Image.open(io.BytesIO(converted)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return image.size, image.tobytes()


@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from(["RGBA", "LA"]), st.data())
def test_every_pixel_is_the_inverse_of_its_alpha(width, height, mode, data):
    """Exact for every pixel and every degree of transparency, whatever the colours beneath."""
    alpha = data.draw(st.binary(min_size=width * height, max_size=width * height))
    expected = (width, height), bytes(255 - value for value in alpha)
    assert expected == grey(black_and_white(alpha_mask(width, height, alpha, mode)))


@given(st.binary(min_size=1, max_size=64))
def test_black_is_the_alpha_itself_and_two_values_are_two(alpha):
    """Where black is to be changed the mask is its alpha; without grey, what is more than half transparent counts."""
    mask = alpha_mask(len(alpha), 1, alpha)
    size = (len(alpha), 1)
    assert grey(black_and_white(mask, changed="black")) == (size, alpha)
    halves = bytes(255 if value > 127 else 0 for value in alpha)
    assert grey(black_and_white(mask, changed="black", two_valued=True)) == (size, halves)
    assert grey(black_and_white(mask, two_valued=True)) == (size, bytes(255 - value for value in halves))


def test_all_degrees_of_transparency():
    """0 becomes 255, 255 becomes 0, and each of the 254 values between becomes its own inverse."""
    expected = (256, 1), bytes(reversed(range(256)))
    assert expected == grey(black_and_white(alpha_mask(256, 1, bytes(range(256)))))


def test_transparent_colours_of_palettes_and_keys():
    """Transparency that stands in a palette or in a key colour counts like an alpha channel."""
    palette = Image.new("P", (4, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.putdata([0, 1, 2, 3])
    assert ((4, 1), bytes([255, 155, 0, 0])) == grey(black_and_white(png(palette, transparency=bytes([0, 100, 255]))))
    keyed = Image.new("RGB", (2, 1), (1, 2, 3))
    keyed.putpixel((1, 0), (9, 9, 9))
    assert ((2, 1), bytes([255, 0])) == grey(black_and_white(png(keyed, transparency=(1, 2, 3))))


def test_a_mask_without_transparency_is_black():
    """Nothing to change is nothing to change."""
    assert ((3, 2), bytes(6)) == grey(black_and_white(png(Image.new("RGB", (3, 2), "white"))))


def test_a_wide_mask_of_sixteen_bits():
    """Masks of unusual depth are read."""
    assert ((2, 2), bytes(4)) == grey(black_and_white(png(Image.new("I;16", (2, 2), 65535))))


@pytest.mark.parametrize("form", ["JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_only_png_is_opened(form):
    """No other decoder is let loose on what a client sent."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    with pytest.raises(RequestError) as caught:
        black_and_white(buffer.getvalue())
    assert (caught.value.param, caught.value.code) == ("mask", "invalid_image_file")


@pytest.mark.parametrize("mask", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_mask(mask):
    """Nothing, text, and a signature alone are refused by name."""
    with pytest.raises(RequestError) as caught:
        black_and_white(mask)
    assert caught.value.param == "mask"


def test_too_many_pixels():
    """A small file that would become a huge picture is refused before it is decoded."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    for edge in (6000, 9000, 20_000):
        head = chunk(b"IHDR", edge.to_bytes(4, "big") * 2 + bytes([8, 6, 0, 0, 0]))
        bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        with pytest.raises(RequestError) as caught:
            black_and_white(bomb)
        assert caught.value.param == "mask"


@given(st.data())
def test_damaged_masks_are_converted_or_refused(data):
    """A mask that is cut or changed anywhere never raises anything but `RequestError`."""
    mask = bytearray(alpha_mask(16, 16, bytes(range(256))))
    if data.draw(st.booleans()):
        del mask[data.draw(st.integers(0, len(mask))) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if mask:
            mask[data.draw(st.integers(0, len(mask) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RequestError):
        grey(black_and_white(bytes(mask)))


def test_chunks_with_impossible_names_are_refused():
    """A PNG whose pixels are followed by rubbish instead of a chunk cannot be read."""
    mask = alpha_mask(64, 64, bytes(4096))
    place = mask.index(b"IDAT") - 4
    length = int.from_bytes(mask[place : place + 4], "big")
    cut = length // 2
    half = cut.to_bytes(4, "big") + mask[place + 4 : place + 8 + cut]
    broken = mask[:place] + half + zlib.crc32(half[4:]).to_bytes(4, "big") + b"\xff\xff\xff\xff!!!!rubbish"
    with pytest.raises(RequestError) as caught:
        black_and_white(broken)
    assert caught.value.param == "mask"


def test_without_pillow(monkeypatch):
    """Where the extra is not installed, the error is the gateway's, and says nothing of modules."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImagegateError) as caught:
        black_and_white(b"")
    assert caught.value.status == 501
    assert "PIL" not in caught.value.message
