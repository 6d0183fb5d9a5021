"""The document is made of what the code has: paths, parameters, headers and errors."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from pydantic import BaseModel

import imagegate
from imagegate import Config, ConfigError, ImageGateway
from imagegate.errors import ImagegateError
from imagegate.openapi import merge
from imagegate.openapi.document import document
from imagegate.openapi.headers import REQUEST_HEADERS, RESPONSE_HEADERS
from imagegate.openapi.page import page
from imagegate.protocol.requests import PARAMETERS

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("imagegate.__main__", "imagegate.access.migrations", "imagegate.demo", "imagegate.testing")
WHOLE = document(Config(), keyed=True, usage=True, health=True, metrics=True)


def subclasses(kind: type[ImagegateError]) -> Iterator[type[ImagegateError]]:
    for found in kind.__subclasses__():
        yield found
        yield from subclasses(found)


def references(node: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == "$ref" and isinstance(value, str))
        yield from (found for value in node.values() for found in references(value))
    elif isinstance(node, list):
        yield from (found for value in node for found in references(value))


def follow(found: dict[str, Any], reference: str) -> Any:
    node: Any = found
    for name in reference.removeprefix("#/").split("/"):
        node = node[name]
    return node


def test_it_is_a_document_of_openapi() -> None:
    """Its form is that of OpenAPI 3.1, every reference leads somewhere, and no two operations share a name."""
    OpenAPI.model_validate(WHOLE)
    assert all(follow(WHOLE, reference) for reference in set(references(WHOLE)))
    names = [operation["operationId"] for item in WHOLE["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)


def test_every_parameter_of_the_code_is_in_it() -> None:
    """The table that checks requests is the one that the document shows."""
    schemas = WHOLE["components"]["schemas"]
    for name in ("GenerationRequest", "GenerationForm", "EditRequest", "EditForm", "VariationRequest"):
        assert PARAMETERS.keys() <= schemas[name]["properties"].keys()
    assert schemas["EditRequest"]["properties"]["n"] == {
        "type": ["integer", "null"],
        "minimum": 1,
        "description": schemas["EditForm"]["properties"]["n"]["description"],
    }


def test_every_error_of_the_code_is_in_it() -> None:
    """Each class of error, wherever it is defined, has its code at its status in some response."""
    for module in pkgutil.walk_packages(imagegate.__path__, "imagegate."):
        if not module.name.startswith(PROGRAMS):
            importlib.import_module(module.name)
    shown = {
        (status, code)
        for item in WHOLE["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        for code in re.findall(r"- `(\w+)`", response["description"])
    }
    inner = {
        "TaskTaken",  # never leaves the gateway
        "_NoPicture",  # the console's
    }
    known = [kind for kind in set(subclasses(ImagegateError)) if kind.__module__.startswith("imagegate.")]
    assert len(known) > 30
    missing = {
        kind.__name__ for kind in known if kind.__name__ not in inner and (str(kind.status), kind.code) not in shown
    }
    assert missing == set()


def test_every_header_of_the_code_is_in_it() -> None:
    """What layers add to answers, and read in requests, is described."""
    source = "\n".join(
        file.read_text("utf-8")
        for folder in ("layers", "idempotency", "ingest", "spending", "tasks")
        for file in (ROOT / "middleware" / "imagegate" / folder).glob("*.py")
    )
    named = set(re.findall(r'b"((?:imagegate|idempotency|x-(?!accel))[a-z-]+)"', source))
    described = {name.lower() for name in (*REQUEST_HEADERS, *RESPONSE_HEADERS)}
    assert len(named) >= 7
    assert named <= described


def test_every_endpoint_and_header_is_on_the_page() -> None:
    """The page of the HTTP API has a row for each endpoint, request header and response header of the document."""
    text = (ROOT / "docs" / "reference" / "http-api.md").read_text("utf-8")
    for path, item in WHOLE["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", r"\\{\\w+\\}", re.escape(path))
        for method in item.keys() - {"head"}:
            assert re.search(rf"^\| `{method.upper()} {pattern}[?`]", text, re.MULTILINE), f"{method} {path}"
    assert [name for name in (*REQUEST_HEADERS, *RESPONSE_HEADERS) if not re.search(f"`{name}[:`]", text)] == []


def test_paths_have_the_prefix_and_the_mount() -> None:
    """As the host serves them."""
    paths = document(Config(prefix="/api"), mount="/pictures/")["paths"]
    assert "/pictures/api/images/generations" in paths
    assert "/pictures/images/{key}" in paths
    assert not any(path.endswith(("/usage", "/healthz", "/metrics")) for path in paths)


def test_keys_are_asked_for_where_there_are_any() -> None:
    """Each endpoint that needs a key says so; links are signed, and health is nobody's secret."""
    secured = {path for path, item in WHOLE["paths"].items() if any("security" in each for each in item.values())}
    assert {path for path in WHOLE["paths"] if path.startswith("/v1/")} == secured
    assert "security" not in str(document(Config())["paths"])


def test_a_gateway_documents_itself() -> None:
    """In front of an application there are no health endpoints; a configuration that fails is reported."""
    upstreams = [{"name": "openai", "api_key": "key"}]
    alone = ImageGateway(config={"upstreams": upstreams, "access": {"keys": ["client-key"]}})
    assert "security" in alone.openapi()["paths"]["/v1/models"]["get"]
    assert "/readyz" in alone.openapi()["paths"]
    mounted = ImageGateway(FastAPI(), config={"upstreams": upstreams})
    assert "/readyz" not in mounted.openapi()["paths"]
    with pytest.raises(ConfigError):
        ImageGateway(FastAPI(), config={"upstreams": [{"name": "no-such-adapter"}]}).openapi()


class Error(BaseModel):
    """A schema of the host's with a name that the gateway has too."""

    reason: str


def test_a_host_has_both_documents_in_one() -> None:
    """Paths, schemas and security schemes of both, each as it was; the host's cached document is left alone."""
    app = FastAPI()

    @app.get("/v1/models")
    def shadowed() -> Error:
        raise NotImplementedError

    @app.post("/v1/models")
    def hosts() -> Error:
        raise NotImplementedError

    own = msgspec.json.encode(app.openapi())
    gateway = ImageGateway(
        app, config={"upstreams": [{"name": "openai", "api_key": "key"}], "access": {"keys": ["client-key"]}}
    )
    merge(app, gateway)
    found = app.openapi()
    OpenAPI.model_validate(found)
    assert app.openapi() == found
    assert found["paths"]["/v1/models"]["get"]["operationId"] == "listModels"
    assert "hosts" in found["paths"]["/v1/models"]["post"]["operationId"]
    schemas = found["components"]["schemas"]
    assert "reason" in schemas["Error"]["properties"]
    assert "error" in schemas["ImagegateError"]["properties"]
    assert found["paths"]["/v1/models"]["get"]["security"] == [{"Imagegatebearer": []}]
    assert all(follow(found, reference) for reference in set(references(found)))
    assert msgspec.json.encode(app.openapi_schema) == own


def test_the_page_escapes() -> None:
    """Text of a document is text."""
    hostile = {**WHOLE, "info": {"title": "<script>", "version": "1", "description": "`<b>`"}}
    shown = page(hostile, source="openapi.json")
    assert "<script>" not in shown
    assert "<code>&lt;b&gt;</code>" in shown
