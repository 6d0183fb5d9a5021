"""What the stand-ins share: refusals, and the rules and words that several providers take over from OpenAI.

The wording of messages follows OpenAI's live API (measured 2026-08), because all five providers relay to it
or imitate it. Which envelope a refusal travels in is the provider's own business, see `frame.Dialect`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Fields = Mapping[str, object]
"""The named values of a request: members of a JSON object, or the text parts of a form."""

FORBIDDEN_WORD: Final = "forbidden"
"""A prompt with this word is refused as unsafe by every stand-in, in that provider's dialect."""

INVALID_REQUEST: Final = "invalid_request_error"
USER_ERROR: Final = "image_generation_user_error"
"""The two `type`s of OpenAI's 400s: the request is malformed, or the image model cannot do what it asks."""

_PIXELS: Final = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", re.ASCII)
_RATIO: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?):([0-9]{1,3}(?:\.[0-9]{1,2})?)", re.ASCII)

GRID: Final = 16
"""Both sides of a flexible size are multiples of this many pixels."""

LONGEST_EDGE: Final = 3840
FEWEST_PIXELS: Final = 655_360
MOST_PIXELS: Final = 8_294_400


class RefusedError(Exception):
    """A provider's no: HTTP status, words, and the parts that its error envelope may carry."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.extra = dict(extra or {})
        """Members that only this refusal has, such as TokenLab's `allowed_aspect_ratios`."""


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part of a multipart form as it arrived: `text` for plain fields, `size` is in bytes."""

    name: str
    text: str | None
    filename: str | None
    content_type: str | None
    size: int


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """What reached a stand-in: header names in lower case, `json` the decoded body or None.

    `parts` lists the parts of a form in their order and is empty for other bodies; `size` is the length of
    the body in bytes.
    """

    method: str
    path: str
    headers: dict[str, str]
    json: object
    parts: tuple[FormPart, ...] = ()
    size: int = 0


def names(text: str) -> frozenset[str]:
    """Return the words of a text as a set, for lists of field names."""
    return frozenset(text.split())


def quoted_list(values: Sequence[str]) -> str:
    """Return OpenAI's way to list values: `'low', 'medium', and 'high'`."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def unknown_parameter(name: str) -> RefusedError:
    """Return OpenAI's answer to a member it does not know."""
    return RefusedError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def missing_parameter(name: str) -> RefusedError:
    """Return OpenAI's answer when a required member is absent."""
    return RefusedError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def invalid_value(name: str, value: str, allowed: Sequence[str]) -> RefusedError:
    """Return OpenAI's answer to a word that is not in the list."""
    message = f"Invalid value: '{value}'. Supported values are: {quoted_list(allowed)}."
    return RefusedError(message, param=name, code="invalid_value")


def wrong_type(name: str, expected: str, value: object) -> RefusedError:
    """Return OpenAI's answer to a value of another JSON type."""
    message = f"Invalid type for '{name}': expected {expected}, but got {_type_words(value)} instead."
    return RefusedError(message, param=name, code="invalid_type")


def _type_words(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def refuse_unknown(fields: Collection[str], known: Collection[str]) -> None:
    """Refuse the first member that is not known, null or not (OpenAI refuses `response_format: null` too)."""
    for name in fields:
        if name not in known:
            raise unknown_parameter(name)


def read_text(fields: Fields, name: str, *, longest: int | None = None) -> str:
    """Return a required, non-empty string of at most `longest` characters (OpenAI: `prompt`, `model`)."""
    if name not in fields:
        raise missing_parameter(name)
    value = fields[name]
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    if not value:
        message = f"Invalid '{name}': empty string. Expected a string with minimum length 1."
        raise RefusedError(message, param=name, code="empty_string")
    if longest is not None and len(value) > longest:
        message = f"Invalid '{name}': string too long. Expected a string with maximum length {longest}, "
        message += f"but got a string with length {len(value)} instead."
        raise RefusedError(message, param=name, code="string_above_max_length")
    return value


def read_optional_text(fields: Fields, name: str) -> str | None:
    """Return a string, or None where the member is absent or null."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    return value


def read_integer(fields: Fields, name: str, low: int, high: int, *, default: int) -> int:
    """Return an integer from low to high; absent and null mean the default (OpenAI: `n`, `output_compression`)."""
    value = fields.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "an integer", value)
    if low <= value <= high:
        return value
    side, sign, bound = ("below minimum", ">=", low) if value < low else ("above maximum", "<=", high)
    message = f"Invalid '{name}': integer {side} value. Expected a value {sign} {bound}, but got {value} instead."
    code = "integer_below_min_value" if value < low else "integer_above_max_value"
    raise RefusedError(message, param=name, code=code)


def read_flag(fields: Fields, name: str) -> bool:
    """Return a boolean; absent and null mean false."""
    value = fields.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)
    return value


def read_choice(fields: Fields, name: str, allowed: Sequence[str], *, default: str) -> str:
    """One of the allowed words; absent and null mean the default, the empty string is refused."""
    value = read_optional_text(fields, name)
    if value is None:
        return default
    if value not in allowed:
        raise invalid_value(name, value, allowed)
    return value


def read_response_format(fields: Fields, *, default: str) -> str:
    """Read `url` or `b64_json`. Unlike elsewhere null is refused here (OpenAI, measured)."""
    if "response_format" in fields and fields["response_format"] is None:
        raise wrong_type("response_format", "a string", None)
    return read_choice(fields, "response_format", ("url", "b64_json"), default=default)


def parse_pixels(text: str) -> tuple[int, int] | None:
    """Width and height of `1024x1024`, nothing looser; None for everything else."""
    match = _PIXELS.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def parse_ratio(text: str) -> float | None:
    """Width divided by height of `16:9` or `19.5:9`; None for everything else."""
    match = _RATIO.fullmatch(text)
    if match is None or not float(match[1]) or not float(match[2]):
        return None
    return float(match[1]) / float(match[2])


def nearest_ratio(width: int, height: int, ratios: Sequence[str]) -> str:
    """Return the ratio of the list that is nearest to width : height, with 2:1 and 1:2 equally far from 1:1."""

    def distance(ratio: str) -> float:
        return abs(math.log(width / height) - math.log(parse_ratio(ratio) or 1.0))

    return min(ratios, key=distance)


def flexible_size(fields: Fields) -> tuple[int, int] | None:
    """Check the size rule of gpt-image-2: None for `auto`, absent and null, else WIDTHxHEIGHT within four limits.

    Sources: OpenAI image reference (limits), measured answers of 2026-08 (order and wording of the checks).
    """
    text = read_optional_text(fields, "size")
    if text is None or text == "auto":
        return None
    pixels = parse_pixels(text)
    if pixels is None:
        raise _size_refusal(text, "Expected WIDTHxHEIGHT, for example '1824x1024'.")
    short, long = sorted(pixels)
    if short % GRID or long % GRID:
        raise _size_refusal(text, "Width and height must both be divisible by 16.")
    if long > LONGEST_EDGE:
        raise _size_refusal(text, f"The longest edge must be less than or equal to {LONGEST_EDGE}.")
    if long > 3 * short:
        raise _size_refusal(text, "The ratio of the long edge to the short edge must not exceed 3:1.")
    if short * long < FEWEST_PIXELS:
        raise _size_refusal(text, "Requested resolution is below the current minimum pixel budget.")
    if short * long > MOST_PIXELS:
        raise _size_refusal(text, "Requested resolution is above the current maximum pixel budget.")
    return pixels


def _size_refusal(text: str, reason: str) -> RefusedError:
    return RefusedError(f"Invalid size '{text}'. {reason}", kind=USER_ERROR, param="size", code="invalid_value")


def listed_size(fields: Fields, sizes: Sequence[str], *, default: str) -> tuple[int, int]:
    """Check the size rule of models with a fixed list; `auto` is legal only where the list has it."""
    text = read_choice(fields, "size", sizes, default=default)
    return parse_pixels(text) or parse_pixels(default) or (1024, 1024)
