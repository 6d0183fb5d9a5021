"""A running gateway answers as its OpenAPI document says: requests made from the document, good and bad ones."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from imagegate.demo.servers import gateway, local_providers, write_config

pytestmark = pytest.mark.server

MODELS = ("gpt-image-2", "tokmodel/openai/dall-e-3", "gemini-3-pro-image-preview", "no-such-model")
ACCESS = '\n[access]\nkeys = ["client-key"]\n[access.limits]\nrequests_per_minute = 100000\n'
"""With limits there is ``/v1/usage``."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway with keys in front of local providers, as it stands alone."""
    folder: Path = tmp_path_factory.mktemp("openapi")
    with local_providers(task_seconds=0.01) as (_, ports):
        write_config(folder / "imagegate.toml", ports, store=folder / "images")
        with (folder / "imagegate.toml").open("a") as file:
            file.write(ACCESS)
        with gateway(folder / "imagegate.toml", port=0) as port:
            yield f"http://127.0.0.1:{port}"


def with_models(document: dict[str, Any]) -> dict[str, Any]:
    """Name models that the gateway has, so that requests get to a provider."""
    for schema in document["components"]["schemas"].values():
        if "model" in schema.get("required", ()) and "prompt" in schema["properties"]:
            schema["properties"]["model"] = {"enum": MODELS}
    return document


def test_every_answer_is_documented(url: str, tmp_path: Path) -> None:
    """Of two thousand requests none fails the gateway; status, headers and body of each answer are documented.

    What the document does not allow is refused, and so is what comes without a key.
    """
    document = with_models(httpx.get(f"{url}/openapi.json").json())
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    ran = subprocess.run(
        (
            *(Path(sysconfig.get_path("scripts")) / "schemathesis", "run", "openapi.json", "--url", url),
            *("--header", "Authorization: Bearer client-key", "--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "5", "--seed", "1"),
            *("--no-color", "--generation-database", "none"),
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2000:]
    tested = ran.stdout.partition("Tested: ")[2].split()[0]
    assert int(tested) == sum(len(item) for item in document["paths"].values()), ran.stdout
    used = httpx.get(f"{url}/v1/usage", headers={"Authorization": "Bearer client-key"}).json()
    assert used["day"]["images"] >= 12  # the examples of three endpoints were made


def test_the_page_shows_every_endpoint(url: str) -> None:
    """``/docs`` is a page of its own: it loads nothing, and has each path and header."""
    page, document = httpx.get(f"{url}/docs"), httpx.get(f"{url}/openapi.json").json()
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert [path for path in document["paths"] if path not in page.text] == []
    assert not any(word in page.text for word in ("<script", "<link", "src=", "http://", "https://"))
    assert "/metrics" in document["paths"]


def test_what_is_an_operators_own_is_not_in_it(url: str) -> None:
    """Models, upstreams and keys are for those who have a key."""
    text = httpx.get(f"{url}/openapi.json").text
    assert not any(word in text for word in ("tokmodel", "tokenlab", "127.0.0.1", "client-key", "sk-demo"))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/models", "GET"),
        ("/v1/models/a/b", "GET"),
        ("/v1/tasks/task_x", "GET, DELETE"),
        ("/v1/images/edits/", "POST"),
        ("/openapi.json", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
    ],
)
def test_another_method_is_told_what_is_allowed(url: str, path: str, allowed: str) -> None:
    """405 with ``Allow``, on every endpoint."""
    refused = httpx.patch(f"{url}{path}")
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    assert refused.json()["error"]["code"] == "method_not_allowed"
