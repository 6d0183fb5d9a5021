"""The picture behind the words: a colour field and one motif per provider, the same for the same prompt.

Everything is drawn on a small canvas and enlarged afterwards: soft shapes lose nothing by it, and a picture
of 8 million pixels costs about as much as one of a million.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from random import Random
from typing import Final

from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]
Motif = Callable[[ImageDraw.ImageDraw, int, int, Random, list[Rgb]], None]

CANVAS_EDGE: Final = 1024
"""Longest edge of the canvas that shapes are drawn on, in pixels."""


def color_at(hue: float, saturation: float, value: float) -> Rgb:
    """Return a colour from hue (turns, any number), saturation and value (0..1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _veil(color: Rgb, alpha: int) -> tuple[int, int, int, int]:
    return (*color, alpha)


def _bubbles(draw: ImageDraw.ImageDraw, width: int, height: int, random: Random, colors: list[Rgb]) -> None:
    for _ in range(22):
        radius = min(width, height) * random.uniform(0.04, 0.3)
        x, y = random.uniform(0, width), random.uniform(0, height)
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=_veil(random.choice(colors), random.randint(30, 80)))
        if random.random() < 0.5:
            draw.ellipse(box, outline=_veil((255, 255, 255), 70), width=max(1, round(radius / 28)))


def _waves(draw: ImageDraw.ImageDraw, width: int, height: int, random: Random, colors: list[Rgb]) -> None:
    for layer in range(7):
        level = height * (0.24 + 0.115 * layer)
        swell = height * random.uniform(0.03, 0.085)
        length, phase = width / random.uniform(0.9, 2.4), random.uniform(0, math.tau)
        step = max(4, width // 160)
        crest = [
            (
                x,
                level + swell * (math.sin(math.tau * x / length + phase) + 0.4 * math.sin(5 * x / length + layer)),
            )
            for x in range(0, width + step, step)
        ]
        color = colors[(5 * layer + 2) % len(colors)]
        draw.polygon([*crest, (width, height), (0, height)], fill=_veil(color, 68))


def _hexagons(draw: ImageDraw.ImageDraw, width: int, height: int, random: Random, colors: list[Rgb]) -> None:
    radius = max(10.0, min(width, height) / 7.5)
    row_step, column_step = radius * 1.5, radius * math.sqrt(3)
    for row in range(int(height / row_step) + 2):
        for column in range(int(width / column_step) + 2):
            if random.random() < 0.34:
                continue
            x, y = column * column_step + (row % 2) * column_step / 2, row * row_step
            turns = [side * math.pi / 3 for side in range(6)]
            corners = [(x + 0.93 * radius * math.sin(turn), y + 0.93 * radius * math.cos(turn)) for turn in turns]
            draw.polygon(corners, fill=_veil(random.choice(colors), random.randint(22, 92)))


def _shards(draw: ImageDraw.ImageDraw, width: int, height: int, random: Random, colors: list[Rgb]) -> None:
    reach = math.hypot(width, height)
    x, y = width * random.uniform(0.2, 0.8), height * random.uniform(0.1, 0.5)
    angle = random.uniform(0, math.tau)
    for _ in range(26):
        spread = random.uniform(0.06, 0.32)
        draw.polygon(
            [
                (x, y),
                (x + reach * math.cos(angle), y + reach * math.sin(angle)),
                (x + reach * math.cos(angle + spread), y + reach * math.sin(angle + spread)),
            ],
            fill=_veil(random.choice(colors), random.randint(26, 76)),
        )
        angle += spread * random.uniform(0.7, 1.5)


def _rings(draw: ImageDraw.ImageDraw, width: int, height: int, random: Random, colors: list[Rgb]) -> None:
    for _ in range(3):
        x, y = random.uniform(0, width), random.uniform(0, height)
        band = max(3.0, min(width, height) * random.uniform(0.025, 0.05))
        for number in range(random.randint(7, 12), 0, -1):
            radius = band * number * 2
            box = (x - radius, y - radius, x + radius, y + radius)
            color = _veil(random.choice(colors), random.randint(50, 120))
            draw.ellipse(box, outline=color, width=round(band))


_STYLES: Final[dict[str, tuple[float, Motif]]] = {
    "tokmodel": (0.03, _bubbles),
    "tokenbay": (0.53, _waves),
    "tokenlab": (0.71, _hexagons),
    "toapis": (0.91, _shards),
    "onetoken": (0.38, _rings),
}
_MOTIFS: Final[tuple[Motif, ...]] = (_bubbles, _waves, _hexagons, _shards, _rings)


def accent(provider: str, seed: int) -> Rgb:
    """Return the light colour that belongs to a provider's pictures, for marks beside the text."""
    hue, _ = _style(provider, seed)
    return color_at(hue + 0.06, 0.42, 1.0)


def _style(provider: str, seed: int) -> tuple[float, Motif]:
    key = "".join(provider.lower().split())
    if key in _STYLES:
        return _STYLES[key]
    return (seed % 1009) / 1009, _MOTIFS[seed % len(_MOTIFS)]


def paint(width: int, height: int, *, provider: str, seed: int, transparent: bool) -> Image.Image:
    """Return a picture of width x height pixels: RGB, or RGBA with nothing but the motif where `transparent`."""
    random = Random(seed)  # noqa: S311 - a picture, not a secret
    base_hue, motif = _style(provider, seed)
    hue = base_hue + random.uniform(-0.04, 0.04)
    scale = min(2.0, CANVAS_EDGE / max(width, height))
    canvas_size = max(8, round(width * scale)), max(8, round(height * scale))
    canvas = _field(canvas_size, hue, random, transparent=transparent)
    colors = [color_at(hue + shift, saturation, value) for shift in _SHIFTS for saturation, value in _TONES]
    motif(ImageDraw.Draw(canvas, "RGBA"), *canvas_size, random, colors)
    return canvas.resize((width, height), Image.Resampling.BILINEAR)


_TONES: Final = ((0.12, 1.0), (0.6, 1.0), (0.85, 0.55))
"""Saturation and value of the motif: a near white, a bright and a deep tone of every hue."""

_SHIFTS: Final = (-0.13, -0.06, 0.0, 0.06, 0.13)
"""Hues of the motif beside the base hue, in turns: neighbours only, an opposite hue turns veils to grey."""


def _field(size: tuple[int, int], hue: float, random: Random, *, transparent: bool) -> Image.Image:
    if transparent:
        return Image.new("RGBA", size, (0, 0, 0, 0))
    corners = Image.new("RGB", (3, 3))
    turn = random.choice((-1, 1))
    for x in range(3):
        for y in range(3):
            shift = turn * (0.085 * (x - 1) + 0.05 * (y - 1)) + random.uniform(-0.03, 0.03)
            value = 0.88 - 0.2 * y + random.uniform(-0.06, 0.03)
            corners.putpixel((x, y), color_at(hue + shift, random.uniform(0.5, 0.74), value))
    return corners.resize(size, Image.Resampling.BICUBIC)
