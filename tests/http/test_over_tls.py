"""What happens on plain connections happens over TLS too, which all real providers speak: the same tests, once more."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest
from tests.certificates import tls_of
from tests.http.test_client import (
    Origin,
    test_a_body_that_breaks_off_while_the_reply_stops,
    test_a_cut_body,
    test_a_large_body_arrives_whole,
    test_a_long_body_that_is_cut,
    test_a_long_body_that_stops,
    test_a_long_body_with_more_after_it,
    test_a_reader_who_takes_his_time,
    test_a_refusal_ends_the_upload,
    test_a_reply_before_the_body_was_read,
    test_a_server_that_closes_idle_connections,
    test_a_server_that_reads_no_more,
    test_an_iterable_that_is_cancelled,
    test_chunked_requests_follow_each_other_on_a_connection,
    test_closing_the_client_waits_for_no_server,
    test_half_a_request_is_followed_by_no_other,
    test_keeps_connections,
    test_leaving_a_long_body_drops_its_connection,
    test_leaving_while_the_body_goes_out,
    test_long_bodies_keep_their_connection,
    test_no_reply_at_all,
    test_no_second_post_on_a_kept_connection,
    test_silence_after_an_interim_reply,
    test_slow_body,
    test_slow_head,
    test_what_comes_before_the_reply_is_none,
    test_what_comes_on_an_idle_connection_answers_nobody,
    test_what_does_nothing_twice_is_sent_again_once,
)

from imagegate.http import AiohttpTransport, HTTPClient

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server on 127.0.0.1, and of a client that trusts its authority."""
    return tls_of(tmp_path_factory.mktemp("authority"), "IP:127.0.0.1")


@pytest.fixture(autouse=True)
def encrypted(authority: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> None:
    """All origins speak TLS; that each test connects at all shows that its client does."""
    monkeypatch.setattr(Origin, "tls", authority[0])


@pytest.fixture
async def client(authority: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[HTTPClient]:
    client = HTTPClient.of(AiohttpTransport(tls=authority[1]))
    yield client
    await client.aclose()
