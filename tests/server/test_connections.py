"""Which connections have their turn, and which make room for others."""

from __future__ import annotations

import asyncio
import time

from tests.waiting import async_until

from imagegate.config.schema import LimitsConfig
from imagegate.server.connections import Connections


class Member:
    """A connection that records what it is told."""

    def __init__(self, connections: Connections) -> None:
        self.held = 0
        self.told: list[str] = []
        self._connections = connections
        connections.opened(self)
        connections.waits(self, 60)

    def go_on(self) -> None:
        self.told.append("go on")

    def expire(self) -> None:
        self.told.append("expire")

    def drop(self, reason: str) -> None:
        self.told.append(reason)
        self._connections.forget(self)

    def reads_in_time(self) -> bool:
        return True


def test_a_request_that_waits_for_its_turn_keeps_its_connection() -> None:
    """Those that wait for their clients make room, also where they came later."""

    async def test() -> None:
        connections = Connections(LimitsConfig(connections=30))
        busy = [Member(connections) for _ in range(20)]
        begun = [connections.may_begin(member, is_known=False) for member in busy]
        assert True in begun and False in begun
        waiting = [member for member, has_begun in zip(busy, begun, strict=True) if not has_begun]
        for member in busy:
            if member not in waiting:
                connections.works(member)
        silent = [Member(connections) for _ in range(20)]
        assert [member.told for member in silent[:10]] == [["connections"]] * 10
        assert not connections.opened(silent[0]) or silent[10].told == ["connections"]
        for _ in range(30):
            await asyncio.sleep(0)
        assert [member.told for member in waiting] == [["go on"]] * len(waiting)

    asyncio.run(test())


def test_those_who_were_answered_and_those_who_come_take_turns() -> None:
    """However many there are of one kind, the first of the other is among the next."""

    async def test() -> None:
        connections = Connections(LimitsConfig())
        order: list[bool] = []

        class Counted(Member):
            def __init__(self, *, is_known: bool) -> None:
                super().__init__(connections)
                self.is_known = is_known

            def go_on(self) -> None:
                assert connections.may_begin(self, is_known=self.is_known)
                order.append(self.is_known)

        for is_known in (False, True):
            for member in [Counted(is_known=is_known) for _ in range(40)]:
                connections.may_begin(member, is_known=is_known)
        for _ in range(100):
            await asyncio.sleep(0)
        assert order[:10].count(True) == 5
        assert len(order) >= 60

    asyncio.run(test())


def test_what_can_wait_is_not_forgotten() -> None:
    """It has its turn although others always have something to do."""

    async def test() -> None:
        connections = Connections(LimitsConfig())
        patient = Member(connections)
        connections.later(patient)
        for _ in range(100_000):
            connections.opened(Member(connections))
            await asyncio.sleep(0)
            if patient.told:
                break
        assert patient.told == ["go on"]

    asyncio.run(test())


def test_clients_do_not_pay_for_a_busy_server() -> None:
    """Time in which the event loop did something else is not theirs."""

    async def test() -> None:
        connections = Connections(LimitsConfig(), tick=0.02)
        member = Member(connections)
        connections.waits(member, 0.1)
        time.sleep(0.15)
        await asyncio.sleep(0.03)
        assert member.told == []
        await async_until(lambda: "expire" in member.told)

    asyncio.run(test())
