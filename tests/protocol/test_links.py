"""Links in providers' replies: what is taken for plain is what reading it carefully leaves as it is."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.errors import UpstreamError
from imagegate.protocol.links import absolute_link, is_plain_link

WORDS = st.text(
    st.sampled_from(string.ascii_letters + string.digits + "-._~%:/?#[]@!$&'()*+,;=\\ \t\n<>\"^é"), max_size=12
)
LINKS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTP://", " https://", "https:/", "//", "ftp://", ""]),
    st.sampled_from(["a.example", "127.0.0.1:80", "[::1]:8000", "u:p@a.example", ".", "a..b", "", "a.example:x"]),
    st.sampled_from(["", "/", "//", "/a/../b", "/./", "/a;b", "/a%2Fb"]),
    WORDS,
    st.sampled_from(["", "?", "?a=b", "#", "?#", "?sig=a%2Bb/c=="]),
)


@given(LINKS, st.sampled_from(["https://provider.example", "http://127.0.0.1:9", ""]))
def test_a_plain_link_is_its_own_full_link(link: str, origin: str) -> None:
    if is_plain_link(link):
        assert absolute_link(link, origin) == link


@pytest.mark.parametrize(
    "link",
    [
        "https://images.invalid/1.png",
        "http://127.0.0.1:8188/view?filename=a_1.png&type=output",
        "https://bucket.s3.amazonaws.com/a/b.png?X-Amz-Signature=0af&X-Amz-Credential=AK%2F20260101%2Fus-east-1",
    ],
)
def test_what_providers_send_is_plain(link: str) -> None:
    assert is_plain_link(link)


@pytest.mark.parametrize(
    "link", ["/1.png", "https:// a/1.png", "https://a/ b", "https://a/1.png\n", "ftp://a/1", "data:x"]
)
def test_what_has_to_be_read_carefully_is_not(link: str) -> None:
    assert not is_plain_link(link)


def test_a_link_that_cannot_be_one() -> None:
    with pytest.raises(UpstreamError):
        absolute_link("ftp://a/1", "https://provider.example")
