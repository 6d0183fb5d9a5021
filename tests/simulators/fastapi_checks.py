"""How FastAPI with pydantic 2 checks a body: all problems in one 422; numbers in strings and unknown members pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.simulators.base import refuse

from imagegate.demo.providers.common import RefusedError

MISSING = object()


class Checks:
    """Reads members one by one and collects what is wrong with them; `finish` raises the 422."""

    def __init__(self, fields: Mapping[str, Any] | None) -> None:
        self._problems: list[dict[str, Any]] = []
        self.fields: Mapping[str, Any] = fields if fields is not None else {}
        if fields is None:
            self._problem(None, "missing", "Field required", None)

    def _problem(self, name: str | None, kind: str, message: str, value: Any) -> None:
        where = ["body"] if name is None else ["body", name]
        self._problems.append({"type": kind, "loc": where, "msg": message, "input": value})

    def text(self, name: str, default: Any = None) -> Any:
        """A string; `MISSING` as the default means that it is required."""
        value = self.fields.get(name, default)
        if value is MISSING:
            self._problem(name, "missing", "Field required", dict(self.fields))
        elif value is not None and not isinstance(value, str):
            self._problem(name, "string_type", "Input should be a valid string", value)
        return value

    def integer(self, name: str, default: int | None = None, *, low: int | None = None, high: int | None = None) -> Any:
        """An integer, also one that is written in a string."""
        return self._number(name, default, low, high, int)

    def number(self, name: str, low: float | None = None, high: float | None = None) -> Any:
        """A number."""
        return self._number(name, None, low, high, float)

    def _number(self, name: str, default: Any, low: float | None, high: float | None, kind: type[Any]) -> Any:
        value = self.fields.get(name, default)
        if value is None:
            if name in self.fields and default is not None:
                self._problem(name, "int_type", "Input should be a valid integer", value)
            return default
        try:
            number = kind(value)
        except (TypeError, ValueError):
            words = "integer" if kind is int else "number"
            message = f"Input should be a valid {words}, unable to parse string as an {words}"
            self._problem(name, f"{kind.__name__}_parsing", message, value)
            return default
        if low is not None and number < low:
            self._problem(name, "greater_than_equal", f"Input should be greater than or equal to {low}", value)
        elif high is not None and number > high:
            self._problem(name, "less_than_equal", f"Input should be less than or equal to {high}", value)
        return number

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean, also one that is written in a string."""
        value = self.fields.get(name, default)
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "1", "on", "yes"):
            return True
        if str(value).lower() not in ("false", "0", "off", "no"):
            message = "Input should be a valid boolean, unable to interpret input"
            self._problem(name, "bool_parsing", message, value)
        return False

    def mapping(self, name: str) -> Any:
        """An object."""
        value = self.fields.get(name)
        if value is not None and not isinstance(value, dict):
            self._problem(name, "dict_type", "Input should be a valid dictionary", value)
        return value

    def value_error(self, name: str, message: str) -> None:
        """What a validator of the server's own says."""
        self._problem(name, "value_error", f"Value error, {message}", self.fields.get(name))

    def finish(self) -> None:
        """Raise what was found."""
        if self._problems:
            raise refuse(422, detail=self._problems)


def http_exception(status: int, detail: str) -> RefusedError:
    """FastAPI's `HTTPException`."""
    return refuse(status, detail=detail)
