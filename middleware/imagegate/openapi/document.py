"""The OpenAPI 3.1 document of the gateway's endpoints. Pure.

It depends on the configuration's prefix, limits and ways of access alone: no models, upstreams or keys are in it, so
that it may be public.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import imagegate
from imagegate.config.schema import Config
from imagegate.contracts.contract import Operation
from imagegate.openapi import errors
from imagegate.openapi.errors import error_response, error_responses
from imagegate.openapi.headers import RESPONSE_HEADERS, header_components, headers, parameters
from imagegate.openapi.schemas import ref, request_content, request_schemas, response_schemas

_SUMMARIES: Final[Mapping[Operation, str]] = {
    "generations": "Make images from a prompt",
    "edits": "Make images from images and a prompt",
    "variations": "Make variations of an image",
}
_EVERYWHERE: Final = ("x-request-id",)
_ANSWERED: Final = (
    *_EVERYWHERE,
    *("Imagegate-Upstream", "Imagegate-Contract", "Imagegate-Changes", "Imagegate-Provenance", "Idempotency-Replayed"),
    *(name for name in RESPONSE_HEADERS if name.startswith("x-ratelimit-")),
)
_QUERIED: Final = (*_EVERYWHERE, "Imagegate-Contract")
_ABOUT: Final = (
    "The OpenAI Images API through the configured providers. Errors are in OpenAI's envelope. Every endpoint below"
    " also takes a trailing slash."
)
_REFUSED: Final = "Error of the provider, with the status and the code that it meant."
_KEY: Final = "[A-Za-z0-9_-]{32}\\.[a-z0-9]{2,5}"


def document(
    config: Config,
    *,
    mount: str = "",
    keyed: bool = False,
    usage: bool = False,
    health: bool = False,
    metrics: bool = False,
) -> dict[str, Any]:
    """Return the document.

    Args:
        config: of the gateway.
        mount: path below which the host application has the gateway.
        keyed: requests need ``Authorization: Bearer``.
        usage: there is ``GET /usage`` below the prefix.
        health: there are ``/healthz`` and ``/readyz``.
        metrics: there is ``/metrics``.
    """
    paths: dict[str, Any] = _api_paths(config)
    if not usage:
        del paths[f"{config.prefix}/usage"]
    if keyed:
        for item in paths.values():
            for operation in item.values():
                operation["security"] = [{"bearer": []}]
    paths["/images/{key}"] = _both(_image())
    if health:
        paths |= _health_paths()
    if metrics:
        paths["/metrics"] = _both(_metrics(config))
    limits = config.limits
    return {
        "openapi": "3.1.0",
        "info": {"title": "imagegate", "version": imagegate.__version__, "description": _ABOUT},
        "paths": {mount.rstrip("/") + path: item for path, item in paths.items()},
        "components": {
            "schemas": {**request_schemas(limits.prompt, limits.files), **response_schemas()},
            "headers": header_components(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _api_paths(config: Config) -> dict[str, Any]:
    prefix = config.prefix
    operations: tuple[Operation, ...] = ("generations", "edits", "variations")
    paths: dict[str, Any] = {
        f"{prefix}/images/{operation}": {"post": _images(operation, config)} for operation in operations
    }
    task = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    model = {**task, "description": "It may have slashes: `openai/gpt-image-2`."}
    return {
        **paths,
        f"{prefix}/models": {"get": _query("listModels", "List the models", "Models", errors.MODELS)},
        f"{prefix}/models/{{id}}": {
            "get": _query("getModel", "Get a model, with its contract", "Model", errors.MODELS, model)
        },
        f"{prefix}/tasks/{{id}}": {
            "get": _query("getTask", "Get a task", "Task", errors.TASKS, task),
            "delete": _query("cancelTask", "Cancel a task of which nothing is paid", "Task", errors.CANCELLING, task),
        },
        f"{prefix}/usage": {"get": _query("getUsage", "Get what the key has used", "Usage", errors.USAGE)},
    }


def _images(operation: Operation, config: Config) -> dict[str, Any]:
    """Return the operation of one endpoint of the Images API."""
    kinds = [ref("Images"), ref("Explanation")]
    if config.delivery.heartbeat is not None:
        kinds.append(ref("Error"))  # the status is sent with the first sign of life
    made = {
        "description": "The images; or what would be sent, with `Imagegate-Explain: ?1`.",
        "headers": headers(_ANSWERED),
        "content": {
            "application/json": {"schema": {"anyOf": kinds}},
            "text/event-stream": {"schema": ref("ImageEvent")},
        },
    }
    created = {
        "description": "A task, for `async: true`.",
        "headers": headers((*_ANSWERED, "Location", "Retry-After")),
        "content": {"application/json": {"schema": ref("NewTask")}},
        "links": {
            name: {"operationId": name, "parameters": {"id": "$response.body#/task_id"}}
            for name in ("getTask", "cancelTask")
        },
    }
    refused = error_response(_REFUSED, {}, _ANSWERED)
    return {
        "operationId": f"image{operation.capitalize()}",
        "summary": _SUMMARIES[operation],
        "tags": ["Images"],
        "parameters": parameters(("Idempotency-Key", "Imagegate-Explain", "x-request-id", "traceparent", "tracestate")),
        "requestBody": {"required": True, "content": request_content(operation)},
        "responses": {
            "200": made,
            "202": created,
            **error_responses(errors.IMAGES, _ANSWERED),
            "4XX": refused,
            "5XX": refused,
        },
    }


def _query(
    name: str, summary: str, schema: str, kinds: tuple[errors.Kind, ...], *path: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an operation that answers with one document."""
    names = (*_QUERIED, "Retry-After") if schema == "Task" else _QUERIED
    found = {
        "description": summary,
        "headers": headers(names),
        "content": {"application/json": {"schema": ref(schema)}},
    }
    if schema == "Models":
        found["links"] = {"getModel": {"operationId": "getModel", "parameters": {"id": "$response.body#/data/0/id"}}}
    responses = {"200": found, **error_responses(kinds, _QUERIED)}
    if schema == "Task":  # the provider is asked
        responses["4XX"] = responses["5XX"] = error_response(_REFUSED, {}, _QUERIED)
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Tasks" if schema == "Task" else "Gateway"],
        "parameters": [*map(dict, path), *parameters(("x-request-id", "traceparent", "tracestate"))],
        "responses": responses,
    }


def _both(operation: dict[str, Any]) -> dict[str, Any]:
    """Return a path item for GET, and for HEAD, which answers without a body."""
    bare = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in operation["responses"].items()
    }
    head = {**operation, "operationId": f"{operation['operationId']}Head", "responses": bare}
    return {"get": operation, "head": head}


def _image() -> dict[str, Any]:
    text = {"type": "string"}
    binary = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "operationId": "getImage",
        "summary": "Get a stored image by a signed link",
        "description": "Ranges and conditional requests are those of RFC 9110.",
        "tags": ["Gateway"],
        "parameters": [
            {"name": "key", "in": "path", "required": True, "schema": {**text, "pattern": f"^{_KEY}$"}},
            {"name": "expires", "in": "query", "schema": text, "description": "Unix time in seconds."},
            {"name": "signature", "in": "query", "required": True, "schema": text},
        ],
        "responses": {
            "200": {"description": "The image", "content": binary},
            "206": {"description": "A part of it", "content": binary},
            "304": {"description": "It is as the client has it"},
            "400": {"description": "The header Range is malformed"},
            "416": {"description": "The image has no such range"},
            **error_responses(errors.LINKS),
        },
    }


def _health_paths() -> dict[str, Any]:
    def answer(description: str, schema: str) -> dict[str, Any]:
        return {"description": description, "content": {"application/json": {"schema": ref(schema)}}}

    alive = {
        "operationId": "getHealth",
        "summary": "Whether the process answers",
        "tags": ["Gateway"],
        "responses": {"200": answer("It does", "Health")},
    }
    ready = {
        "operationId": "getReadiness",
        "summary": "Whether the gateway can do its work",
        "tags": ["Gateway"],
        "responses": {
            "200": answer("It can", "Readiness"),
            "503": answer("It is shutting down, or the store takes no images", "Readiness"),
        },
    }
    return {"/healthz": _both(alive), "/readyz": _both(ready)}


def _metrics(config: Config) -> dict[str, Any]:
    found = {
        "operationId": "getMetrics",
        "summary": "Metrics for Prometheus",
        "tags": ["Gateway"],
        "responses": {
            "200": {
                "description": "In the text format, or in OpenMetrics where `Accept` asks for it",
                "content": {
                    kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")
                },
            },
            **error_responses(errors.METRICS),
        },
    }
    return {**found, "security": [{"bearer": []}]} if config.metrics.key else found
