"""Small writes wait for each other, and nothing is lost, doubled or turned round by it."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagegate.demo.servers import serving
from imagegate.http.outbox import SMALL, Outbox, outbox_of
from imagegate.server.protocol import OutboxTransport, ServerProtocol


class Wire:
    """A transport that keeps each write."""

    def __init__(self, *, fails: bool = False) -> None:
        self.writes: list[bytes] = []
        self.is_open = True
        self._fails = fails

    def write(self, data: bytes) -> None:
        if self._fails:
            raise RuntimeError("the handler is closed")
        self.writes.append(data)

    def is_closing(self) -> bool:
        return not self.is_open

    def close(self) -> None:
        self.is_open = False

    abort = close

    def pause_reading(self) -> None: ...

    resume_reading = pause_reading

    def get_extra_info(self, name: str) -> str:
        return name

    def write_eof(self) -> None:
        self.writes.append(b"EOF")


def test_the_writes_of_a_turn_go_out_together_in_their_order() -> None:
    async def main() -> None:
        outbox, wires = Outbox(asyncio.get_running_loop()), [Wire(), Wire()]
        for piece in (b"a", b"b", b"c"):
            for wire in wires:
                outbox.write(wire, piece)
        assert [wire.writes for wire in wires] == [[], []]
        await asyncio.sleep(0)
        assert [wire.writes for wire in wires] == [[b"abc"], [b"abc"]]
        outbox.write(wires[0], b"d")
        await asyncio.sleep(0)
        assert wires[0].writes == [b"abc", b"d"]

    asyncio.run(main())


def test_a_connection_that_is_closing_or_fails_harms_no_other() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        outbox, gone, broken, well = outbox_of(loop), Wire(), Wire(fails=True), Wire()
        unsent = [outbox.write(wire, b"x") for wire in (gone, broken, well)]
        gone.close()
        await asyncio.sleep(0)
        assert (gone.writes, well.writes) == ([], [b"x"])
        assert unsent == [[b"x"], [], []]
        assert not broken.is_open
        assert told == ["the handler is closed"]

    asyncio.run(main())


@given(st.lists(st.sampled_from([b"", b"s" * 10, b"m" * SMALL, b"l" * (SMALL + 1), None]), max_size=20))
def test_a_transport_sends_what_is_written_to_it(steps: list[bytes | None]) -> None:
    """Whatever is small and large, and wherever the turns of the event loop end; None is such an end."""

    async def main() -> None:
        wire = Wire()
        transport = OutboxTransport(wire, Outbox(asyncio.get_running_loop()))  # type: ignore[arg-type]
        for step in steps:
            if step is None:
                await asyncio.sleep(0)
            else:
                transport.write(step)
        transport.close()
        transport.write(b"too late")
        await asyncio.sleep(0)
        assert b"".join(wire.writes) == b"".join(filter(None, steps))
        assert transport.get_extra_info("peername") == "peername"

    asyncio.run(main())


def test_what_is_written_may_be_changed_afterwards_and_the_end_comes_last() -> None:
    async def main() -> None:
        wire, data = Wire(), bytearray(b"one ")
        transport = OutboxTransport(wire, Outbox(asyncio.get_running_loop()))  # type: ignore[arg-type]
        transport.write(memoryview(data))
        data[:] = b"two "
        transport.writelines([data, b"three"])
        data[:] = b"lost"
        transport.write_eof()
        assert wire.writes == [b"one two three", b"EOF"]

    asyncio.run(main())


def test_many_writes_are_scheduled_once() -> None:
    async def main() -> None:
        loop, wire = asyncio.get_running_loop(), Wire()
        scheduled: list[object] = []
        soon = loop.call_soon
        loop.call_soon = lambda *call, **options: scheduled.append(call) or soon(*call, **options)  # type: ignore[assignment,func-returns-value]
        outbox = Outbox(loop)
        for _ in range(10):
            outbox.write(wire, b"x" * 10)
            outbox.flush(wire)
        assert len(scheduled) == 1

    asyncio.run(main())


def test_an_event_loop_is_not_held_by_its_outbox() -> None:
    loop = asyncio.new_event_loop()
    outbox = outbox_of(loop)
    assert outbox_of(loop) is outbox
    loop.close()
    kept = weakref.ref(loop)
    del loop
    gc.collect()
    assert kept() is None
    wire = Wire()
    outbox.write(wire, b"said without a loop")
    outbox.flush(wire)
    assert wire.writes == [b"said without a loop"]


async def _request(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass


def _app(answer: Callable[[Send], Awaitable[None]]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _request(receive)
            await answer(send)

    return app


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


MANY = 64 * 1024
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
PIECES = [b"a" * 10, b"b" * (SMALL + 5), b"c", b"d" * SMALL, b"e" * (3 * SMALL), b"f"]


def test_under_a_server_answers_are_whole_whether_or_not_the_connection_is_kept() -> None:
    """On one connection: two requests at once, then one that ends it."""

    async def answer(send: Send) -> None:
        length = str(len(b"".join(PIECES))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        for place, piece in enumerate(PIECES):
            await send(_body(piece, more=place < len(PIECES) - 1))

    with serving(_app(answer), http=ServerProtocol) as port, socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(2 * GET + GET.removesuffix(b"\r\n") + b"connection: close\r\n\r\n")
        seen = b"".join(iter(lambda: line.recv(65536), b""))
    answers = seen.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [each.partition(b"\r\n\r\n")[2] for each in answers] == [b"".join(PIECES)] * 3


def test_a_client_that_has_said_all_gets_its_answer() -> None:
    """The event loop closes the connection where the client writes no more; what waits must be written before."""

    async def answer(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send(_body(b"ok", more=False))

    with serving(_app(answer), http=ServerProtocol) as port:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as line:
                line.sendall(GET)
                line.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda line=line: line.recv(65536), b"")).endswith(b"\r\n\r\nok")  # type: ignore[misc]


def test_a_client_that_reads_nothing_still_stops_the_application() -> None:
    """Small pieces that wait are few, so the transport comes to say that it has enough."""
    sent = 0

    async def answer(send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(MANY):
            await send(_body(b"x" * 1024, more=True))
            sent += 1

    async def main(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(GET)
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.2)
            assert sent < MANY, "64 MiB lie somewhere"
        writer.close()
        await writer.wait_closed()

    with serving(_app(answer), http=ServerProtocol) as port:
        asyncio.run(main(port))
