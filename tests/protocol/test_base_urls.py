"""Base URLs: where a version, a deployment or a query stands, and what cannot be one."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.base_urls import fault_of, read_base_url

EDITS = "/v1/images/edits"
SEGMENT = st.from_regex(r"[A-Za-z0-9._~-]{1,12}", fullmatch=True)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://a.example", "https://a.example/v1/images/edits"),
        ("https://a.example//", "https://a.example/v1/images/edits"),
        ("https://a.example/openai", "https://a.example/openai/v1/images/edits"),
        ("https://a.example/v1/", "https://a.example/v1/images/edits"),
        ("https://a.example/V2", "https://a.example/V2/images/edits"),
        ("https://a.example/v12", "https://a.example/v12/images/edits"),
        ("https://a.example/v1.1", "https://a.example/v1.1/images/edits"),
        ("https://a.example/api/v1beta2/x", "https://a.example/api/v1beta2/x/images/edits"),
        ("https://a.example/vision", "https://a.example/vision/v1/images/edits"),
        ("https://a.example/v", "https://a.example/v/v1/images/edits"),
        ("https://a.example/1", "https://a.example/1/v1/images/edits"),
        ("https://a.example/openai/deployments/d", "https://a.example/openai/deployments/d/images/edits"),
        ("https://a.example/deployments", "https://a.example/deployments/v1/images/edits"),
        ("https://a.example?k=a%20b&x", "https://a.example/images/edits?k=a%20b&x"),
    ],
)
def test_urls(base: str, url: str) -> None:
    assert read_base_url(base).url(EDITS) == url


def test_adapters_with_versions_of_their_own() -> None:
    """A version at the end of the base URL stands for theirs; one amid it does not."""
    assert read_base_url("https://a.example/api/v1").url("/v2/jobs") == "https://a.example/api/v2/jobs"
    assert read_base_url("https://a.example/v1/team").url("/v2/jobs") == "https://a.example/v1/team/v2/jobs"
    assert read_base_url("https://a.example").url("/v2/jobs") == "https://a.example/v2/jobs"
    assert read_base_url("https://a.example/v1").url("/jobs?x=1") == "https://a.example/v1/jobs?x=1"


def test_queries() -> None:
    base = read_base_url("https://a.example/v1?api-version=7&key=s%2Fecret")
    assert base.url("/v1/tasks?after=3") == "https://a.example/v1/tasks?after=3&api-version=7&key=s%2Fecret"
    assert base.with_query("https://a.example/t?key=own") == "https://a.example/t?key=own&api-version=7"
    assert base.secrets == ("s/ecret",)
    shown = base.redacted("https://a.example/t?x=1&key=s%2Fecret&other=o&api-version=7", ("o", "7"))
    assert shown == "https://a.example/t?x=1&key=[redacted]&other=[redacted]&api-version=7"


@pytest.mark.parametrize(
    ("base", "path", "follows"),
    [
        ("https://a.example", "/v1/tasks/1", True),
        ("https://a.example/api/v3", "/api/v3/tasks/1", True),
        ("https://a.example/api/v3", "/api/tasks/1", True),
        ("https://a.example/api/v3", "/v1/tasks/1", False),
        ("https://a.example/proxy", "/v1/tasks/1", False),
        ("https://a.example/v1/account/openai", "/v1/tasks/1", False),
    ],
)
def test_where_a_path_begins(base: str, path: str, follows: bool) -> None:
    assert read_base_url(base).follows(path) is follows


@given(st.lists(SEGMENT, max_size=4), SEGMENT, st.booleans())
def test_the_version_stands_once(before: list[str], after: str, slash: bool) -> None:
    """Whatever the base URL is, its path comes first and the endpoint last, with one version between or before them."""
    base = "https://a.example" + "".join(f"/{segment}" for segment in before) + "/" * slash
    path = urlsplit(read_base_url(base).url(f"/v1/{after}")).path
    rest = path.removeprefix("".join(f"/{segment}" for segment in before))
    is_complete = any(re.fullmatch(r"(?i)v\d+(\.\d+)*([a-z]+\d*)?", segment) for segment in before)
    is_deployment = re.search(r"/deployments/[^/]", base) is not None
    assert rest == (f"/{after}" if is_complete or is_deployment else f"/v1/{after}")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://a.example/v1/images/variations", "'/images/variations'"),
        ("https://a.example/v1/chat/completions?x=1", "'/chat/completions'"),
        ("https://a.example/openai/deployments/d/images/generations?api-version=1", "'/images/generations'"),
        ("https://a.example/v1/images/", "'/images'"),
        ("https://a.example/x/jobs", "'/x/jobs'"),
    ],
)
def test_pasted_endpoints(url: str, told: str) -> None:
    assert told in fault_of(url, ("/x/jobs",))


@pytest.mark.parametrize("url", ["https://a.example/images", "https://a.example/models/v1", "https://a.example/v1?"])
def test_what_is_no_endpoint(url: str) -> None:
    assert fault_of(url) == ""


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Every text is judged, and what passes can be used."""
    for url in (text, f"https://{text}", f"https://a.example/{text}"):
        if not fault_of(url):
            assert read_base_url(url).url(EDITS).isprintable()
