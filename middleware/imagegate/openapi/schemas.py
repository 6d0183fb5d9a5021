"""Schemas of bodies, made from the tables and Structs that read and write them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from imagegate.access.principal import Limits
from imagegate.contracts.changes import Change
from imagegate.contracts.contract import Contract, Operation
from imagegate.contracts.parameter import Parameter
from imagegate.protocol.references import LIST_MEMBERS, MASK_MEMBERS
from imagegate.protocol.requests import PARAMETERS

_PREFIX: Final = "#/components/schemas/"
_TASK_STATES: Final = ("pending", "processing", "completed", "failed")
_PICTURE: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAUElEQVR42u3PQQkAAAgEsItiBPu/jGYE38JgBZbpei0CAgIC"
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICApcFOh4BALX/6lEAAAAASUVORK5CYII="
)
"""64x64 pixels of one colour."""
_LINK: Final = {"type": "string", "minLength": 1, "description": "An http or https link, or a data URL."}
_MEANINGS: Final[Mapping[str, str]] = {
    "n": "Number of images; more than the provider makes at a time are made by several requests.",
    "async": "`true`: answer 202 with a task.",
    "background": "`transparent`, `opaque` or `auto`.",
    "output_compression": "Percent.",
    "partial_images": "Previews of a stream.",
    "quality": "In the words of OpenAI or of the model; others are translated.",
    "response_format": "Default: as configured, `b64_json` unless changed.",
    "size": "`WIDTHxHEIGHT`, a ratio, a tier such as `2K`, or `auto`; fitted to what the model makes.",
    "aspect_ratio": "Such as `16:9`.",
    "resolution": "Such as `2k`.",
    "stream": "`true`: answer with server-sent events.",
    "user": "The client's own user, for the provider.",
}


def ref(name: str) -> dict[str, Any]:
    """Return a reference to a schema of the document."""
    return {"$ref": _PREFIX + name}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a member be null, which counts as left out."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def parameter_schema(name: str, parameter: Parameter) -> dict[str, Any]:
    """Return what holds for a parameter of every model, as JSON Schema."""
    schema: dict[str, Any] = {"enum": list(parameter.values)} if parameter.values else {"type": parameter.type}
    limits = {"minimum": parameter.min, "maximum": parameter.max}
    limits |= {"minLength": parameter.min_length, "maxLength": parameter.max_length}
    schema |= {word: value for word, value in limits.items() if value is not None}
    if name in _MEANINGS:
        schema["description"] = _MEANINGS[name]
    return schema


def request_schemas(max_prompt: int, max_files: int) -> dict[str, Any]:
    """Return the schemas of all request bodies: one for each operation, as JSON and as a form."""
    schemas: dict[str, Any] = {"ImageReference": _reference(), "ImageReferences": _references()}
    operations: tuple[Operation, ...] = ("generations", "edits", "variations")
    for operation in operations:
        schemas[_name(operation, "Request")] = _json_request(operation, max_prompt)
        schemas[_name(operation, "Form")] = _form(operation, max_prompt, max_files)
    return schemas


def request_content(operation: Operation) -> dict[str, Any]:
    """Return the media types of a request body, with examples."""
    json, form = _name(operation, "Request"), _name(operation, "Form")
    return {
        "application/json": {"schema": ref(json), "examples": _examples(operation)},
        "multipart/form-data": {"schema": ref(form)},
    }


def _examples(operation: Operation) -> dict[str, Any]:
    plain: dict[str, Any] = {"model": "gpt-image-2"}
    if operation != "variations":
        plain["prompt"] = "A red kite over the sea"
    if operation != "generations":
        plain["images"] = [{"image_url": _PICTURE}]
    return {
        "base64": {"summary": "An image as base64", "value": {**plain, "response_format": "b64_json"}},
        "link": {"summary": "A link to an image", "value": {**plain, "size": "1536x1024", "response_format": "url"}},
        "stream": {"summary": "A stream of events", "value": {**plain, "stream": True}},
        "task": {"summary": "A task", "value": {**plain, "async": True}},
    }


def _name(operation: Operation, kind: str) -> str:
    return f"{operation.removesuffix('s').capitalize()}{kind}"


def _texts(operation: Operation, max_prompt: int) -> tuple[dict[str, Any], list[str]]:
    prompt = {"type": "string", "minLength": 1, "maxLength": max_prompt}
    needed = ["model"] if operation == "variations" else ["model", "prompt"]
    model = {
        "type": "string",
        "minLength": 1,
        "pattern": r"\S",
        "description": "A name of `GET /models`.",
        "examples": ["gpt-image-2"],
    }
    return {"model": model, "prompt": _nullable(prompt) if operation == "variations" else prompt}, needed


def _json_request(operation: Operation, max_prompt: int) -> dict[str, Any]:
    texts, needed = _texts(operation, max_prompt)
    members = {name: _nullable(parameter_schema(name, each)) for name, each in PARAMETERS.items()}
    members["callback_url"] = {"type": ["string", "null"], "description": "Gets a POST when a task is over."}
    schema: dict[str, Any] = {
        "type": "object",
        "description": "Further members are those of the model's contract, or of the provider.",
        "properties": {**texts, **members},
        "required": needed,
    }
    if operation != "generations":
        schema["properties"] |= dict.fromkeys(LIST_MEMBERS, ref("ImageReferences"))
        schema["properties"] |= {name: {"anyOf": [ref("ImageReference"), {"type": "null"}]} for name in MASK_MEMBERS}
        schema["anyOf"] = [
            {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in LIST_MEMBERS
        ]
    return schema


def _reference() -> dict[str, Any]:
    url = {"anyOf": [_LINK, {"type": "object", "properties": {"url": _LINK}, "required": ["url"]}]}
    members: dict[str, Any] = {"image_url": url, "url": url, "file_id": {"type": "string", "minLength": 1}}
    closed: list[dict[str, Any]] = [
        {"type": "object", "properties": {name: each, "type": {}}, "required": [name], "additionalProperties": False}
        for name, each in members.items()
    ]
    return {"description": "A link, a data URL, or the id of a file of the provider.", "anyOf": [_LINK, *closed]}


def _references() -> dict[str, Any]:
    listed = {"type": "array", "minItems": 1, "maxItems": 256, "items": ref("ImageReference")}
    return {"anyOf": [listed, ref("ImageReference"), {"type": "null"}]}


def _form(operation: Operation, max_prompt: int, max_files: int) -> dict[str, Any]:
    texts, needed = _texts(operation, max_prompt)
    texts["prompt"] = {"type": "string", "minLength": 1, "maxLength": max_prompt}
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    members = {name: parameter_schema(name, each) for name, each in PARAMETERS.items()}
    schema: dict[str, Any] = {
        "type": "object",
        "description": "`a[]` is a list and `a[b]` a nested object; further parts are members as in JSON.",
        "properties": {**texts, **members},
        "required": needed,
    }
    if operation != "generations":
        files = {"type": "array", "minItems": 1, "maxItems": max_files, "items": file}
        schema["properties"] |= {"image": file, "image[]": files, "mask": file, "markup": file}
        schema["anyOf"] = [{"required": ["image"]}, {"required": ["image[]"]}]
    return schema


def _object(properties: Mapping[str, Any], required: tuple[str, ...], description: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "required": list(required)}
    return {**schema, "description": description} if description else schema


_WORD: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_IMAGE: Final = {
    **_object({"url": _WORD, "b64_json": _WORD, "revised_prompt": {"type": ["string", "null"]}}, ()),
    "anyOf": [{"required": ["url"]}, {"required": ["b64_json"]}],
}
_ERROR: Final = _object(
    {
        "message": _WORD,
        "type": _WORD,
        "param": {"type": ["string", "null"], "description": "The member or header at fault."},
        "code": {"type": ["string", "null"], "description": "The gateway's, or the provider's own."},
        "imagegate": {
            "type": "object",
            "properties": {"upstream": _WORD, "upstream_request_id": _WORD, "status": _COUNT, "outcome": _WORD},
        },
    },
    ("message", "type", "param", "code"),
)
_TASK: Final = {
    "created": {"type": "integer"},
    "task_id": _WORD,
    "status": {"enum": list(_TASK_STATES)},
    "poll_url": _WORD,
    "data": {"type": "array", "items": ref("Image")},
}
_NEW_TASK: Final = ("created", "task_id", "status", "poll_url", "data")
_FIGURES: Final = _object(
    {
        "period": _WORD,
        **{name: {"type": "number"} for name in ("spent", "reserved", "held")},
        **dict.fromkeys(("requests", "images"), _COUNT),
        "limit": {"type": ["number", "null"]},
        "left": {"type": "number"},
    },
    ("period", "spent", "reserved", "held", "requests", "images", "limit"),
)
_EVENTS: Final = tuple(
    f"{kind}.{state}" for kind in ("image_generation", "image_edit") for state in ("partial_image", "completed")
)
_EVENT_DATA: Final = _object(
    {
        "type": {"enum": [*_EVENTS, "error"]},
        "b64_json": _WORD,
        "url": _WORD,
        "created_at": {"type": "integer"},
        "partial_image_index": _COUNT,
        "usage": {"type": "object"},
        "error": _ERROR,
    },
    ("type",),
    "The last event may be an error.",
)
_EVENT: Final = _object(
    {
        "event": {"enum": [*_EVENTS, "error"]},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": ref("ImageEventData")},
    },
    ("event", "data"),
    "Each of the server-sent events; comments between them are signs of life.",
)


def response_schemas() -> dict[str, Any]:
    """Return the schemas of all response bodies."""
    _, structs = msgspec.json.schema_components([Contract, Limits, Change], ref_template=_PREFIX + "{name}")
    listed = {"type": "array", "items": ref("Image")}
    explained = {
        "upstream": _WORD,
        "method": _WORD,
        "url": _WORD,
        "headers": {"type": "object", "additionalProperties": _WORD},
        "body": {},
        "changes": {"type": "array", "items": ref("Change")},
    }
    return {
        **structs,
        "Error": _object({"error": _ERROR}, ("error",)),
        "Image": _IMAGE,
        "Images": _object(
            {"created": {"type": "integer"}, "data": listed, "usage": {"type": ["object", "null"]}},
            ("created", "data"),
            "Other members are the provider's own.",
        ),
        "Explanation": _object(explained, tuple(explained), "The request that would be sent."),
        "ImageEvent": _EVENT,
        "ImageEventData": _EVENT_DATA,
        "NewTask": _object(_TASK, _NEW_TASK),
        "Task": _object(
            {
                **_TASK,
                "model": _WORD,
                "progress": {"type": "number", "description": "Percent, where the provider tells."},
                "error": _ERROR,
                "cancelled": {"type": "boolean"},
            },
            (*_NEW_TASK, "model"),
        ),
        "Model": _model(structs["Contract"]),
        "Models": _object(
            {"object": {"enum": ["list"]}, "data": {"type": "array", "items": ref("Model")}}, ("object", "data")
        ),
        "Usage": _object(
            {
                "object": {"enum": ["usage"]},
                "name": _WORD,
                "currency": _WORD,
                "day": _FIGURES,
                "month": _FIGURES,
                "limits": ref("Limits"),
            },
            ("object", "name", "currency", "day", "month", "limits"),
        ),
        "Health": _object({"status": {"enum": ["ok"]}}, ("status",)),
        "Readiness": _object({"status": _WORD, "store": _WORD}, ("status", "store")),
    }


def _model(contract: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model: OpenAI's members, and its contract where there is one."""
    own = {
        "id": _WORD,
        "object": {"enum": ["model"]},
        "created": {"type": "integer"},
        "owned_by": {**_WORD, "description": "The upstream that is asked first."},
        "upstreams": {"type": "array", "items": _WORD},
    }
    return _object({**contract["properties"], **own}, tuple(own))
