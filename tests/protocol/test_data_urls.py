"""``data:`` URLs as the Fetch standard reads them."""

from __future__ import annotations

import base64
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.protocol.data_urls import DataURLError, InvalidBase64, read_data_url

CONTENT = bytes(range(256))
ENCODED = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{ENCODED}",
        f"DATA:Image/PNG;BASE64,{ENCODED}",
        f"data:image/png;charset=x; base64,{ENCODED}",
        f"data:image/png;base64,{quote(ENCODED, safe='')}",
        f" data:image/png;base64,{ENCODED.rstrip('=')}\n",
        "data:image/png;base64,\n" + "\r\n".join(ENCODED[place : place + 76] for place in range(0, len(ENCODED), 76)),
        "data:image/png;base64," + "%0A".join(ENCODED[place : place + 76] for place in range(0, len(ENCODED), 76)),
        f"data:image/png,{quote(CONTENT, safe='')}",
        f"data:image/png;base64,{ENCODED}#part",
        f"data:image/png;base64,{ENCODED.translate(str.maketrans('+/', '-_')).rstrip('=')}",
    ],
)
def test_spellings(url: str) -> None:
    assert read_data_url(url) == ("image/png", CONTENT)


def test_text() -> None:
    svg = read_data_url("data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg' width=\"1\">%3C/svg>")
    assert svg.data == b"<svg xmlns='http://www.w3.org/2000/svg' width=\"1\"></svg>"
    assert read_data_url("data:,x").media_type == ""


@pytest.mark.parametrize("body", ["A", "AAAAA", "AA=A", "AAAA=", "A!AA", "A+-_", "====", "AAA=="])
def test_base64_that_is_none(body: str) -> None:
    with pytest.raises(InvalidBase64):
        read_data_url(f"data:image/png;base64,{body}")


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:", "https://a.example/,"])
def test_what_is_no_data_url(url: str) -> None:
    with pytest.raises(DataURLError):
        read_data_url(url)


@given(st.binary(max_size=60), st.booleans(), st.booleans(), st.text(alphabet=" \n\t\r\f", max_size=3), st.data())
def test_any_content(content: bytes, padded: bool, percent: bool, blanks: str, data: st.DataObject) -> None:
    """White space anywhere, padding or none, percent-encoded or not: the bytes are the same."""
    encoded = base64.b64encode(content).decode()
    encoded = encoded if padded else encoded.rstrip("=")
    place = data.draw(st.integers(0, len(encoded)))
    encoded = encoded[:place] + blanks + encoded[place:]
    body = quote(encoded, safe="") if percent else encoded
    assert read_data_url(f"data:image/png;base64,{body}").data == content


@given(st.text(max_size=30))
def test_any_text(text: str) -> None:
    for url in (text, f"data:{text}", f"data:;base64,{text}"):
        with suppress(DataURLError):
            read_data_url(url)
