"""The OpenAI Images API: reading a request body with OpenAI's own checks and words.

Source: OpenAI Images reference and SDK 3.52; null rules and error words as measured on the live API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from math import isfinite
from typing import Any, Final, NoReturn

import msgspec

from imagegate.contracts.contract import Contract, Operation
from imagegate.contracts.parameter import Parameter
from imagegate.contracts.size_syntax import MAX_SIZE_LENGTH
from imagegate.errors import RequestError, type_error
from imagegate.protocol.messages import ImageRequest

MAX_NESTING: Final = 64
_FORM_NAME: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,4})")
_COLON: Final = re.compile(rb'"[ \t\n\r]*:')
_PLAIN: Final = 64 * 1024
"""Bytes of a body that may be read the short way."""
_MAX_CONTAINERS: Final = 100_000
_MAX_MEMBERS: Final = 100_000
_MAX_TOP: Final = 2000
"""Members of the body itself, each of which is looked at several times."""
_SAFE_INTEGER: Final = 2**63

# Only what holds for every model. What a model makes of a value is its contract's affair.
PARAMETERS: Final[Mapping[str, Parameter]] = {
    "n": Parameter(type="integer", min=1),
    "async": Parameter(type="boolean"),
    "background": Parameter(),
    "moderation": Parameter(),
    "output_compression": Parameter(type="integer", min=0, max=100),
    "output_format": Parameter(),
    "partial_images": Parameter(type="integer", min=0, max=3),
    "quality": Parameter(),
    "response_format": Parameter(values=("url", "b64_json")),
    "safety_identifier": Parameter(),
    "size": Parameter(max_length=MAX_SIZE_LENGTH),
    "aspect_ratio": Parameter(max_length=MAX_SIZE_LENGTH),
    "resolution": Parameter(max_length=MAX_SIZE_LENGTH),
    "stream": Parameter(type="boolean"),
    "style": Parameter(),
    "user": Parameter(),
}
_RULES: Final = Contract(parameters=PARAMETERS)


def read_json(body: bytes, operation: Operation, *, max_prompt: int, deployment: str = "") -> ImageRequest:
    """Parse and check a JSON body; references of edits and variations are left in its fields.

    Args:
        max_prompt: characters; a contract may allow fewer.
        deployment: the model that the path names; empty: none.

    Raises:
        RequestError: naming the member at fault.
    """
    document = parse_object(body)
    if deployment and _add_model(document, deployment):
        body = msgspec.json.encode(document)
    check_fields(document, operation, max_prompt=max_prompt)
    fields = {name: value for name, value in document.items() if value is not None}
    untouched = len(fields) == len(document)
    return ImageRequest(operation=operation, fields=fields, body=body if untouched else None)


def read_form_fields(
    pairs: Sequence[tuple[str, str]], operation: Operation, *, max_prompt: int, deployment: str = ""
) -> dict[str, Any]:
    """Return the text parts of a form as members: ``a[]`` is a list, ``a[b]`` a nested object, numbers are numbers.

    Raises:
        RequestError: naming the part at fault.
    """
    fields: dict[str, Any] = {}
    for name, value in pairs:
        root, keys = _form_name(name)
        _insert(fields, name, [root, *keys], value)
    for name, parameter in PARAMETERS.items():
        if isinstance(fields.get(name), str):
            fields[name] = from_text(name, fields[name], parameter)
    if deployment:
        _add_model(fields, deployment)
    check_fields(fields, operation, max_prompt=max_prompt)
    return fields


def _add_model(fields: dict[str, Any], deployment: str) -> bool:
    """Name the path's model where the body names none; return whether it did not. Raises `RequestError`."""
    model = fields.get("model")
    if model is None:
        fields["model"] = deployment
    elif model != deployment:
        raise RequestError(
            f"The path names the deployment '{deployment}' and the body another model. Send the same, or no 'model'.",
            param="model",
            code="invalid_value",
        )
    return model is None


def from_text(name: str, value: str, parameter: Parameter) -> Any:
    """Return a form's text as the type that a parameter has. Raises `RequestError`."""
    text = value.strip()
    if parameter.type == "integer":
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
            return int(text)
    elif parameter.type == "number":
        if re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", text, re.ASCII):
            return float(text)
    elif parameter.type == "boolean":
        if text.lower() in ("true", "1", "false", "0"):
            return text.lower() in ("true", "1")
    elif parameter.type == "object" and text.startswith("{"):  # as servers take them that read a form as JSON
        with suppress(RequestError):
            return parse_object(text.encode("utf-8", "replace"))
    else:
        return value
    article = "a" if parameter.type in ("number", "boolean") else "an"
    raise RequestError(
        f"Invalid type for '{name}': expected {article} {parameter.type}, but got a string value that could not be "
        f"converted into {article} {parameter.type}.",
        param=name,
        code="invalid_type",
    )


def check_fields(fields: Mapping[str, Any], operation: Operation, *, max_prompt: int) -> None:
    """Check what holds for every model. Raises `RequestError`."""
    if not isinstance(fields.get("model"), str):
        raise _no_text(fields, "model")
    if not fields["model"].strip():
        raise RequestError("The model must not be empty.", param="model", code="invalid_value")
    if operation != "variations" or fields.get("prompt") is not None:
        if not isinstance(fields.get("prompt"), str):
            raise _no_text(fields, "prompt")
        if not fields["prompt"]:
            raise RequestError(
                "Invalid 'prompt': empty string. Expected a string with minimum length 1, "
                "but got an empty string instead.",
                param="prompt",
                code="empty_string",
            )
        if len(fields["prompt"]) > max_prompt:
            Parameter(max_length=max_prompt).check("prompt", fields["prompt"])
    free_texts, choices = _RULES.free_texts, _RULES.choices
    for name, value in fields.items():
        if value is None or name not in PARAMETERS:
            continue
        if not isinstance(value, str) or (len(value) > free_texts.get(name, -1) and value not in choices.get(name, ())):
            PARAMETERS[name].check(name, value)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return one JSON object, read strictly: no duplicate members, no NaN, no lone surrogates, bounded nesting.

    Raises:
        RequestError: the body is something else.
    """
    if (plain := _plain_object(body)) is not None:
        return plain
    if body.count(b"{") + body.count(b"[") > _MAX_CONTAINERS or body.count(b",") > _MAX_MEMBERS:
        raise RequestError("The body has more members than any request needs.", code="invalid_json")
    try:
        document = _DECODER.decode(body.decode("utf-8"))
        if b"\\u" in body:
            msgspec.json.encode(document)  # refuses lone surrogates, which no provider could be sent
    except (UnicodeError, ValueError, RecursionError) as error:
        reason = f" {error}" if isinstance(error, _Refused) else ""
        raise RequestError(f"The body is no valid JSON.{reason}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    if len(document) > _MAX_TOP:
        raise RequestError("The body has more members than any request needs.", code="invalid_json")
    _check_nesting(document)
    return document


def _plain_object(body: bytes) -> dict[str, Any] | None:
    """Read what most bodies are, text and small integers side by side, at a tenth of the cost; None: it is not."""
    if len(body) > _PLAIN or b"\\u" in body:
        return None
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if type(document) is not dict or len(document) > _MAX_TOP:
        return None
    for value in document.values():
        kind = type(value)
        is_small = kind is int and abs(value) < _SAFE_INTEGER
        if kind is not str and kind is not bool and value is not None and not is_small:
            return None
    # A colon follows the name of every member: where there are no more of them than members, none came twice.
    return document if len(_COLON.findall(body)) == len(document) else None


def _no_text(fields: Mapping[str, Any], name: str) -> RequestError:
    """Return the error for a member that is missing, or no text."""
    if name not in fields:
        return RequestError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    return type_error(name, "a string", fields[name])


def _form_name(name: str) -> tuple[str, list[str]]:
    """Return ``a[b][c]`` as its parts; a name in any other shape is one part."""
    found = _FORM_NAME.fullmatch(name)
    return (found[1], re.findall(r"\[([^\[\]]*)\]", found[2])) if found else (name, [])


def _insert(fields: dict[str, Any], name: str, path: list[str], value: str) -> None:
    node = fields
    if "" in path[1:-1]:
        raise RequestError(f"The name of the part '{name[:64]}' cannot be read.", param=name[:64], code="invalid_form")
    for key, following in pairwise(path):
        if following == "":
            listed = node.setdefault(key, [])
            if not isinstance(listed, list):
                raise _twice(name)
            listed.append(value)
            return
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise _twice(name)
    if path[-1] in node:
        raise _twice(name)
    node[path[-1]] = value


def _twice(name: str) -> RequestError:
    return RequestError(f"The part '{name[:64]}' appears twice.", param=name[:64], code="invalid_value")


class _Refused(ValueError):
    """Legal for Python's reader, not for us; the message is for the client."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        name = ""
        for name, _ in pairs:
            if name in seen:
                break
            seen.add(name)
        raise _Refused(f"The member {name[:64]!r} appears twice.")
    return members


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON number.")


def _integer(text: str) -> int:
    value = int(text) if len(text) < 24 else _SAFE_INTEGER
    if not -_SAFE_INTEGER <= value < _SAFE_INTEGER:
        raise _Refused("An integer is out of range.")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise _Refused("A number is out of range.")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_number
)


def _check_nesting(document: dict[str, Any]) -> None:
    level: list[Any] = [value for value in document.values() if isinstance(value, (dict, list))]
    for _ in range(MAX_NESTING):
        if not level:
            return
        level = [
            value
            for container in level
            for value in (container.values() if isinstance(container, dict) else container)
            if isinstance(value, (dict, list))
        ]
    raise RequestError(f"The body is nested deeper than {MAX_NESTING} levels.", code="invalid_json")
