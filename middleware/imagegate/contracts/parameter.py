"""One member of a request as a model takes it: its type, its values, and what becomes of others."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from imagegate.errors import RequestError, choice_error, type_error

JSONType = Literal["string", "integer", "number", "boolean", "array", "object", "any"]

_NAMES: Final[Mapping[str, str]] = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
}
_CLASSES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "any": (object,),
}


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One JSON member that a model takes."""

    type: JSONType = "string"
    values: tuple[str | int | bool, ...] = ()
    """The only values; empty: any of the type."""
    min: float | None = None
    max: float | None = None
    min_length: int | None = None
    """Characters."""
    max_length: int | None = None
    """Characters."""
    translate: Mapping[str, str] = {}
    """Another vocabulary's word for the same thing: ``hd`` is ``high``."""
    nearest: Mapping[str, str] = {}
    """The next best value. Refused where the policy is ``strict``."""
    omit: tuple[str, ...] = ()
    """Values that ask for what the provider does when the member is left out."""
    only_with: Mapping[str, tuple[str | bool, ...]] = {}
    """Another member and the values of it that this one needs; without them it is dropped."""
    not_with: Mapping[str, tuple[str | bool, ...]] = {}
    """Another member and the values of it with which this one is dropped."""
    neutral: int | None = None
    """The one value that needs no company."""
    forbidden: tuple[str, ...] = ()
    """Texts that a string must not contain, because the server would obey them."""
    replace: Mapping[str, str] = {}
    """Texts that the server would take for something else -> what is sent instead. Refused where the policy is
    ``strict``."""
    default: str | int | float | bool | None = None
    """What is sent where the client sends none, because what the provider does then is not what clients expect."""
    random: bool = False
    """Whether a random integer from `min` to `max` is sent where the client sends none."""

    @property
    def free_length(self) -> int | None:
        """Characters of a string up to which it is legal, whatever it says; None: there are other rules for it."""
        rules = (self.values, self.translate, self.nearest, self.omit, self.forbidden, self.replace)
        if self.type != "string" or any(rules) or self.only_with or self.not_with or self.min_length is not None:
            return None
        return sys.maxsize if self.max_length is None else self.max_length

    @property
    def is_choice(self) -> bool:
        """Whether each of `values` is legal, whatever else there is: there are no other rules for it."""
        others = (self.forbidden, self.replace, self.only_with, self.not_with)
        has_length = self.min_length is not None or self.max_length is not None
        return self.type == "string" and bool(self.values) and not has_length and not any(others)

    def check_type(self, field: str, value: Any) -> None:
        """Raise `RequestError` where `value` has not this parameter's JSON type."""
        wrong_bool = isinstance(value, bool) and self.type in ("integer", "number")
        if wrong_bool or not isinstance(value, _CLASSES[self.type]):
            raise type_error(field, _NAMES[self.type], value)

    def check(self, field: str, value: Any) -> None:
        """Raise `RequestError` naming `field` and what is allowed."""
        if self.type != "string" or not isinstance(value, str):
            self.check_type(field, value)
        if self.values and value not in self.values:
            raise choice_error(field, str(value), self.values)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._check_range(field, value)
        if found := next((text for text in self.forbidden if isinstance(value, str) and text in value), None):
            raise RequestError(f"Invalid '{field}': it must not contain '{found}'.", param=field)
        if isinstance(value, str):
            self._check_length(field, value)

    def _check_length(self, field: str, value: str) -> None:
        if self.min_length is not None and len(value) < self.min_length:
            raise RequestError(
                f"Invalid '{field}': string too short. Expected a string with minimum length {self.min_length}, "
                f"but got a string with length {len(value)} instead.",
                param=field,
                code="string_below_min_length",
            )
        if self.max_length is not None and len(value) > self.max_length:
            raise RequestError(
                f"Invalid '{field}': string too long. Expected a string with maximum length {self.max_length}, "
                f"but got a string with length {len(value)} instead.",
                param=field,
                code="string_above_max_length",
            )

    def _check_range(self, field: str, value: float) -> None:
        kind = "integer" if self.type == "integer" else "decimal"
        if self.min is not None and value < self.min:
            raise RequestError(
                f"Invalid '{field}': {kind} below minimum value. Expected a value >= {_number(self.min)}, "
                f"but got {value} instead.",
                param=field,
                code=f"{kind}_below_min_value",
            )
        if self.max is not None and value > self.max:
            raise RequestError(
                f"Invalid '{field}': {kind} above maximum value. Expected a value <= {_number(self.max)}, "
                f"but got {value} instead.",
                param=field,
                code=f"{kind}_above_max_value",
            )


def _number(value: float) -> str:
    """Return a bound as it is written in a contract: never rounded."""
    return str(int(value)) if float(value).is_integer() else repr(value)
