"""What clients may send and leave unread before a request is admitted: on real sockets, with a real server."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.guard_support import Answered, Client, Server, guarded
from tests.waiting import until

from imagegate.config.schema import Duration

pytestmark = pytest.mark.server

TIMEOUT = 30.0
"""Seconds until a condition that should come about is given up."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, path: str = "/", *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, path: str = "/", size: int = 7) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n"


def code_of(answered: Answered) -> str:
    """The code of an error in OpenAI's envelope."""
    assert answered.headers["content-type"] == "application/json"
    assert answered.headers["connection"] == "close"
    error = json.loads(answered.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


def has_all(client: Client, pieces: Iterable[bytes], *, seconds: float = 0.0) -> bool:
    """Send pieces so many seconds apart; return whether the server has taken all of them."""
    try:
        for piece in pieces:
            client.send(piece)
            time.sleep(seconds)
    except ConnectionError:
        return False
    return True


# Heads


@pytest.mark.parametrize("step", [1_000_000, 1000, 7])
@pytest.mark.parametrize("kind", ["field", "target", "name", "many"])
def test_a_head_beyond_its_limits_is_refused(kind: str, step: int) -> None:
    """Its bytes and its fields are counted before they are parsed, however they arrive; at the limit it is served."""
    start, end = {
        "field": (GET[:-2] + b"x: ", b"\r\n\r\n"),
        "target": (b"GET /", GET.removeprefix(b"GET /")),
        "name": (GET[:-2], b": x\r\n\r\n"),
        "many": (GET[:-2], b"\r\n"),
    }[kind]
    most = 500 - len(start) - len(end)
    with guarded(head=500, head_fields=20) as server:
        fillings = (b"a: b\r\n" * 19, b"a: b\r\n" * 20) if kind == "many" else (b"a" * most, b"a" * (most + 1))
        statuses = []
        for filling in fillings:
            client = server.client()
            raw = start + filling + end
            for at in range(0, len(raw), step):
                client.send(raw[at : at + step])
            statuses.append(client.answer())
        assert statuses[0].status == 200
        assert (statuses[1].status, code_of(statuses[1])) == (431, "headers_too_large")
        assert client.is_closed()


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nx: ", b"GET /", b"G"])
def test_an_endless_head_is_answered_and_cut_off(start: bytes) -> None:
    """The client hears why, although it never stops sending."""
    with guarded(client_stall=Duration(2)) as server:
        client = server.client()
        client.send(start + b"a" * 1_000_000)
        assert client.answer().status == 431
        assert not has_all(client, (b"a" * 65536 for _ in range(100)), seconds=0.1)
        assert server.app.begun == []
        assert server.ask(GET).status == 200


def test_the_heads_of_answered_requests_count() -> None:
    """They stay with their connection until its next request."""
    with guarded(heads=10_000) as server:
        clients = [server.client() for _ in range(12)]
        for client in clients:
            client.send(b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.answer().status == 200
        assert all(client.is_closed() for client in clients[:2])
        clients[-1].send(GET)
        assert clients[-1].answer().status == 200


def test_half_a_head_is_not_waited_for() -> None:
    """Its client hears 408; who has sent nothing at all is hung up on without a word."""
    with guarded(head_timeout=Duration(1)) as server:
        silent, half = server.client(), server.client()
        half.send(b"GET / HTTP/1.1\r\nHo")
        answered = half.answer()
        assert (answered.status, code_of(answered)) == (408, "request_timeout")
        assert half.is_closed()
        with pytest.raises(EOFError):
            silent.answer()


def test_a_head_does_not_last_longer_by_arriving_slowly() -> None:
    """The time is for the whole of it."""
    with guarded(head_timeout=Duration(1), client_stall=Duration(1)) as server:
        head = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 90
        assert not has_all(server.client(), (bytes([byte]) for byte in head), seconds=0.05)


def test_an_idle_connection_is_closed_in_time() -> None:
    """After an answer it may stay for a while, and then goes."""
    with guarded(idle_timeout=Duration(1), head_timeout=Duration(20)) as server:
        client = server.client()
        client.send(GET)
        assert client.answer().status == 200
        assert client.is_closed()


def test_heads_share_a_budget() -> None:
    """Where they are more, the connection that has waited for longest gives way."""
    with guarded(heads=10_000) as server:
        clients = [server.client() for _ in range(12)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 1000)
            time.sleep(0.05)
        assert clients[0].is_closed()
        assert server.ask(GET).status == 200
        clients[-1].send(b"\r\n\r\n")
        assert clients[-1].answer().status == 200


# Requests on one connection


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, Server]]:
    """Servers by how much they take ahead."""
    with contextlib.ExitStack() as stack:
        yield {pipelined: stack.enter_context(guarded(pipelined=pipelined)) for pipelined in (1, 9, 64, 8192)}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(["length", "chunks", "none"]), st.binary(max_size=40)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 9, 64, 8192]),
)
def test_requests_are_the_same_however_they_arrive(
    servers: dict[int, Server], requests: list[tuple[str, bytes]], rnd: random.Random, pipelined: int
) -> None:
    """Any pieces, any number ahead of their answers, bodies that hold what ends a head: each is answered, in order."""
    raw = b""
    bodies = []
    for kind, part in requests:
        body = b"" if kind == "none" else part + b"\r\n\r\n0\r\n\r\n" + part
        bodies.append(body)
        raw += {"length": post(body), "chunks": chunked(body, size=rnd.randint(1, 60)), "none": GET}[kind]
    client = servers[pipelined].client()
    start = 0
    while start < len(raw):
        end = start + rnd.choice([1, 2, 3, 50, 1000])
        client.send(raw[start:end])
        start = end
    assert [client.answer().body for _ in requests] == bodies
    client.close()


def test_what_is_sent_ahead_waits() -> None:
    """No later request begins before the last one is answered, and all are answered in the end."""
    with guarded() as server:
        client = server.client()
        client.send(post(b"1", "/wait") + post(b"2") * 3000)
        until(lambda: server.app.begun)
        other = server.client()
        other.send(GET)
        assert other.answer().status == 200
        assert server.app.begun == ["/wait", "/"]
        server.app.go_on.set()
        assert [client.answer().body for _ in range(3001)] == [b"1"] + [b"2"] * 3000


def test_many_requests_at_once_are_all_answered() -> None:
    """More than begin in one turn of the event loop, on many connections and ahead of their answers."""
    with guarded() as server:
        clients = [server.client() for _ in range(200)]
        for client in clients:
            client.send(post(b"1") + post(b"2") + chunked(b"3"))
        for client in clients:
            assert [client.answer().body for _ in range(3)] == [b"1", b"2", b"3"]


def test_newcomers_do_not_wait_for_what_others_have_sent_ahead() -> None:
    """One connection is accepted in a turn of uvloop: 120 of them come before most of 3,000 requests."""
    with guarded() as server:
        early = [server.client() for _ in range(20)]
        for client in early:
            client.send(GET)
            assert client.answer().status == 200
        server.app.begun.clear()
        server.client().send(b"GET /stop HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.app.begun)
        for client in early:
            client.send(b"GET /ahead HTTP/1.1\r\nHost: x\r\n\r\n" * 150)
        newcomers = [server.client() for _ in range(120)]
        for client in newcomers:
            client.send(b"GET /new HTTP/1.1\r\nHost: x\r\n\r\n")
        server.app.go_on.set()
        for client in newcomers:
            assert client.answer().status == 200
        begun = server.app.begun
        last = max(place for place, path in enumerate(begun) if path == "/new")
        assert begun[:last].count("/ahead") < 240


def test_a_client_that_leaves_is_noticed_while_its_request_is_at_work() -> None:
    """Reading goes on for it where nothing was sent ahead."""
    with guarded() as server:
        client = server.client()
        client.send(post(b"1", "/wait"))
        until(lambda: server.app.seen)
        client.close()
        until(lambda: True)
        server.app.go_on.set()
        until(lambda: server.app.ended)


# No switch of protocols


UPGRADES = [
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    (
        "Connection: upgrade",
        "upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
    ),
    ("UPGRADE:TLS/1.0", "CONNECTION: keep-alive, Upgrade"),
    ("Upgrade: a", "Upgrade: b", "Connection: Upgrade"),
]


@pytest.mark.parametrize("fields", UPGRADES)
def test_an_upgrade_is_ignored_and_the_body_stays_a_body(fields: tuple[str, ...]) -> None:
    """The request is answered as HTTP/1.1; what its body says is no request."""
    body = b"GET /denied HTTP/1.1\r\nHost: x\r\n\r\n"
    with guarded() as server:
        client = server.client()
        client.send(post(body, "/", *fields))
        assert client.answer()[::2] == (200, body)
        client.send(chunked(body, "/again").replace(b"Host: x", "\r\n".join(["Host: x", *fields]).encode()) + GET)
        assert client.answer()[::2] == (200, body)
        assert client.answer().status == 200
        assert [path for _, path, _ in server.app.seen] == ["/", "/again", "/"]


def test_no_tunnel() -> None:
    """CONNECT is refused, and nothing after it is a request."""
    with guarded() as server:
        client = server.client()
        client.send(b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        answered = client.answer()
        assert (answered.status, code_of(answered)) == (501, "method_not_supported")
        assert client.is_closed()
        assert server.app.begun == []


# Bodies and readers


@pytest.mark.parametrize("body", ["length", "chunks"])
def test_who_trickles_a_body_that_nothing_reads_is_cut_off(body: str) -> None:
    """After a refusal a client may go on sending, but at the least pace."""
    start = b"POST /early HTTP/1.1\r\nHost: x\r\n"
    start += b"Content-Length: 100000\r\n\r\n" if body == "length" else b"Transfer-Encoding: chunked\r\n\r\n"
    piece = {"length": b"a", "chunks": b"1\r\na\r\n"}[body]
    with guarded(client_stall=Duration(1)) as server:
        client = server.client()
        client.send(start)
        assert client.answer().status == 401
        assert not has_all(client, [piece] * 200, seconds=0.05)


def test_who_keeps_pace_may_send_a_body_that_nothing_reads() -> None:
    """And goes on with the next request."""
    with guarded(client_stall=Duration(3), client_pace=1000) as server:
        client = server.client()
        client.send(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n")
        assert client.answer().status == 401
        assert has_all(client, [b"a" * 500] * 40, seconds=0.1)
        client.send(GET)
        assert client.answer().status == 200


@pytest.mark.parametrize(
    "junk", [b"0\r\nx: " + b"a" * 200_000, b"0\r\n" + b"a: b\r\n" * 40_000, b"5;" + b"a" * 200_000]
)
def test_trailers_and_extensions_without_end(junk: bytes) -> None:
    """What the parser would keep, and the application never sees, is bounded as heads are."""
    with guarded() as server:
        client = server.client()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        has_all(client, [junk])
        assert client.is_closed()
        assert server.app.seen == []


def test_trailers_of_usual_size_are_read() -> None:
    """They end the request, and are nobody's."""
    with guarded() as server:
        client = server.client()
        client.send(chunked(b"hello")[:-2] + b"x: y\r\n\r\n" + GET)
        assert [client.answer().body, client.answer().body] == [b"hello", b""]


@pytest.mark.parametrize("ahead", [b"", GET * 100])
def test_who_does_not_read_is_cut_off(ahead: bytes) -> None:
    """The answer that nobody takes is not kept, and neither is the request that waits for it."""
    with guarded(client_stall=Duration(1)) as server:
        client = server.client(receive_buffer=4096)
        client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" + ahead)
        until(lambda: server.app.ended == ["/big"])
        assert server.ask(GET).status == 200


def test_who_reads_slowly_is_waited_for() -> None:
    """The pace is a floor, and no matter of how long the whole takes."""
    with guarded(client_stall=Duration(3), client_pace=100_000) as server:
        client = server.client(receive_buffer=65536)
        client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(40):
            assert client.socket.recv(65536)
            time.sleep(0.1)
        assert server.app.ended == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_early_refusal_reaches_a_client_that_goes_on_sending(version: str) -> None:
    """The connection is closed for the answer's end, and not under a body that is on its way."""
    with guarded() as server:
        for _ in range(20):
            client = server.client()
            head = f"POST /early HTTP/{version}\r\nHost: x\r\nConnection: close\r\nContent-Length: 8000000\r\n\r\n"
            client.send(head.encode())
            client.send(bytes(8_000_000))
            assert client.answer()[::2] == (401, b"no")


# Connections


def test_a_newcomer_takes_the_place_of_who_has_waited_longest() -> None:
    """Silent ones go first, then those that were served; those at work stay."""
    with guarded(connections=4) as server:
        served = server.client()
        served.send(GET)
        assert served.answer().status == 200
        working = server.client()
        working.send(post(b"1", "/wait"))
        until(lambda: server.app.seen)
        silent = [server.client() for _ in range(6)]
        assert all(client.is_closed() for client in silent[:4])
        assert server.ask(GET).status == 200
        served.send(GET)
        assert served.answer().status == 200
        server.app.go_on.set()
        assert working.answer().body == b"1"


def test_where_all_are_at_work_a_newcomer_is_refused() -> None:
    """With a status that tells to come again; and there is room as soon as one has ended."""
    with guarded(connections=3) as server:
        working = [server.client() for _ in range(3)]
        for client in working:
            client.send(post(b"1", "/wait"))
        until(lambda: len(server.app.seen) == 3)
        for _ in range(5):
            answered = server.client().answer()
            assert (answered.status, code_of(answered), answered.headers["retry-after"]) == (503, "overloaded", "1")
        server.app.go_on.set()
        assert [client.answer().body for client in working] == [b"1"] * 3
        assert server.ask(GET).status == 200


# Framing that is not one


MALFORMED = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6",
    "two lengths in one": b"Content-Length: 5, 6",
    "a signed length": b"Content-Length: +5",
    "a negative length": b"Content-Length: -5",
    "a length in hexadecimal": b"Content-Length: 0x5",
    "a length of letters": b"Content-Length: five",
    "a length beyond numbers": b"Content-Length: 99999999999999999999999",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    "chunks that are not last": b"Transfer-Encoding: chunked, gzip",
    "space before the colon": b"Content-Length : 5",
    "a field without a name": b": 5",
    "a field without a colon": b"Content-Length",
    "a name with a space": b"Content Length: 5",
    "a bare line feed": b"A: b\nContent-Length: 5",
    "a bare carriage return": b"A: b\rContent-Length: 5",
    "a NUL": b"A: \0\r\nContent-Length: 5",
    "a size that is none": b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    "a size with a sign": b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a size beyond numbers": b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    "a chunk that is longer": b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("step", [1_000_000, 1])
@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_malformed_framing_is_refused_and_hides_no_request(fields: bytes, step: int) -> None:
    """One answer of 400 or none, then the end of the connection: what follows is never read as a request."""
    raw = b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\nhello" + b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    with guarded(client_stall=Duration(1)) as server:
        client = server.client()
        has_all(client, [raw[start : start + step] for start in range(0, len(raw), step)])
        answered = client.answer()
        assert (answered.status, code_of(answered)) == (400, "invalid_http")
        assert client.is_closed()
        assert "/hidden" not in server.app.begun
