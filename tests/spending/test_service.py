"""What a task has cost that another process had sent: the provider's word settles what is held."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from imagegate.config.loader import read_config
from imagegate.config.model_contracts import contracts_of
from imagegate.config.price_table import price_table
from imagegate.errors import ModelNotFound
from imagegate.protocol.messages import Exchange, ImageRequest
from imagegate.routing.catalog import Catalog
from imagegate.spending.costs import Outcome
from imagegate.spending.factory import open_spending
from imagegate.spending.ledger import LedgerUnavailable, Reservation, day_of
from imagegate.spending.memory import MemoryLedger
from imagegate.spending.money import nanos
from imagegate.spending.service import Spending
from imagegate.tasks.outcomes import interrupted, not_begun
from imagegate.tasks.records import ProviderTask, TaskRecord
from imagegate.tasks.settlement import settle_task
from imagegate.telemetry.exchange import UpstreamCall
from imagegate.telemetry.hooks import Hooks
from imagegate.telemetry.progress import Progress

PRICES = {
    "flat": {"image": 0.04},
    "edited": {"image": 0.04, "reference_megapixel": 0.01},
    "varied": {"image": 0.04, "variants": [{"when": {"quality": ["high"]}, "image": 0.1}]},
    "token": {"tokens": {"output": 10}, "reserve": 0.2},
    "bound": {"reserve": 0.2},
}


def opened(**spending: Any) -> Spending:
    models = {name: {"family": "gpt-image-2"} for name in (*PRICES, "unpriced")}
    config = read_config(
        {
            "upstreams": [
                {"name": "p", "adapter": "openai", "base_url": "http://p.example", "api_key": "k", "models": models}
            ],
            "prices": {"models": PRICES},
            "access": {"limits": {"spend_per_day": 100.0, "in_flight": 5}},
            "spending": spending,
        }
    )
    catalog = Catalog(contracts_of(config), config.routes)
    return open_spending(
        config, catalog=catalog, prices=price_table(config), pays=lambda upstream: True, hooks=Hooks(())
    )


def record(
    model: str,
    upstream: str = "p",
    *,
    quality: str = "low",
    is_own_key: bool = False,
    references: tuple[int, ...] = (),
    **facts: Any,
) -> TaskRecord:
    provider = ProviderTask(
        upstream=upstream,
        id="theirs",
        model=model,
        fields={"quality": quality},
        references=references,
        is_own_key=is_own_key,
    )
    base: dict[str, Any] = {
        "number": "t",
        "owner": "",
        "created": 1.0,
        "model": model,
        "images": 2,
        "task_id": "task",
        "poll_url": "/",
        "state": "completed",
        "provider": provider,
        "data": ({"url": "a"}, {"url": "b"}),
    }
    return TaskRecord(**{**base, **facts})


MADE = (2, None)
REFUSED = {"imagegate": {"outcome": "rejected"}}
UNCERTAIN = {"imagegate": {"outcome": "uncertain"}}


@pytest.mark.parametrize("had_died", [True, False])
@pytest.mark.parametrize(
    ("task", "made", "settled", "held"),
    [
        (record("flat"), MADE, 0.08, 0),
        (record("varied"), MADE, 0.08, 0),
        (record("varied", quality="high"), MADE, 0.2, 0),
        (record("token"), (2, {"output_tokens": 3000}), 0.03, 0),
        (record("token"), MADE, 0.6, 0),
        (record("edited", references=(500_000, 0)), MADE, 2 * (0.04 + 0.005 + 0.04), 0),
        (record("unpriced"), MADE, 0.6, 0),
        (record("flat", upstream="gone"), MADE, 0.08, 0),
        (record("flat", is_own_key=True), MADE, 0, 0),
        (record("flat", state="failed", error={"code": "content_policy_violation"}), MADE, 0.08, 0),  # withheld
        (record("flat", state="failed", error=REFUSED), None, 0, 0),
        (record("flat", state="failed", error=UNCERTAIN), None, 0, 0.6),
        (record("flat", state="failed", error={"message": "?"}), None, 0, 0.6),
        (record("flat", state="failed").failed(not_begun()), None, 0, 0),
        (record("flat", state="failed").failed(interrupted()), None, 0, 0.6),
        (record("flat", is_own_key=True).failed(interrupted()), None, 0, 0),
        (record("flat", state="queued", provider=None, data=()), None, 0, 0),  # refused before it was sent
    ],
)
def test_a_task_that_was_taken_over(task: TaskRecord, made: Any, settled: float, held: float, had_died: bool) -> None:
    async def scenario() -> None:
        spending = opened(reserve=0.3)
        reserved = Reservation(id="t", accounts=("gateway",), amount=nanos(0.6), images=2, created=time.time())
        await spending.ledger.reserve(reserved, spending.accounts_of(None))
        if had_died:
            await spending.ledger.end("t", Outcome(0, nanos(0.6)))
        for _ in range(2):  # it is said again where the process that said it ended before the task did
            await settle_task(spending, task, Progress("tasks", task_made=made))
        found = (await spending.ledger.balances([reserved.day]))["gateway", reserved.day]
        assert (found.settled, found.held) == (nanos(settled), nanos(held))

    asyncio.run(scenario())


def exchange(model: str, **fields: Any) -> Exchange:
    request = ImageRequest(operation="generations", fields={"model": model, "prompt": "x", **fields})
    return Exchange(request=request, public_model=model, operation="generations")


@pytest.mark.parametrize("member", ["n", "num_images", "batch_size"])
def test_all_pictures_are_reserved_whatever_their_number_is_called(member: str) -> None:
    async def scenario() -> None:
        spending = opened()
        spent = await spending.admit(exchange("flat", **{member: 3}), Progress("generations"))
        assert spent.reservation is not None
        assert (spent.reservation.images, spent.reservation.amount) == (3, nanos(0.12))

    asyncio.run(scenario())


def test_what_is_held_is_what_the_asked_candidate_may_cost() -> None:
    """Another candidate would make more images for the same money: the share is not that of one of them."""

    async def scenario() -> None:
        spending, progress = opened(), Progress("generations")
        spent = await spending.admit(exchange("flat", num_images=3), progress)
        progress.calls.append(UpstreamCall(upstream="p", model="flat", seconds=1, outcome="uncertain", images=1))
        await spending.end(spent, progress)
        assert [each.held for each in await spending.ledger.list_held()] == [nanos(0.12)]

    asyncio.run(scenario())


def test_a_price_that_only_says_the_most_is_settled_by_it() -> None:
    """The budget would never be used up otherwise."""

    async def scenario() -> None:
        spending, progress = opened(), Progress("generations", upstream="p", upstream_model="bound")
        spent = await spending.admit(exchange("bound", n=2), progress)
        progress.calls.append(UpstreamCall(upstream="p", model="bound", seconds=1, outcome="ok", images=2))
        progress.replied(2, None)
        await spending.end(spent, progress)
        day = day_of(time.time())
        assert (await spending.ledger.balances([day]))["gateway", day].settled == nanos(0.4)

    asyncio.run(scenario())


def test_images_of_a_task_that_its_client_asks_for_are_counted_when_it_was_accepted() -> None:
    """Nothing of it is ever seen here again, at least not by this process."""

    async def scenario() -> None:
        spending, progress = opened(), Progress("generations")
        for is_handed_over in (True, False):
            spent = await spending.admit(exchange("flat", n=2), progress)
            progress.calls.append(UpstreamCall(upstream="p", model="flat", seconds=1, outcome="ok", images=2))
            progress.is_handed_over = is_handed_over
            await spending.end(spent, progress)
        day = day_of(time.time())
        found = (await spending.ledger.balances([day]))["gateway", day]
        assert (found.requests, found.images, found.settled) == (2, 2, nanos(0.16))

    asyncio.run(scenario())


def test_a_ledger_that_is_away_lets_nothing_with_a_budget_through(caplog: pytest.LogCaptureFixture) -> None:
    """What was admitted before is not counted as in flight any more."""

    class Away(MemoryLedger):
        async def reserve(self, reservation: Reservation, accounts: Any, *, takes_up: bool = True) -> Reservation:
            raise LedgerUnavailable

        async def note(self, accounts: Any, created: float, settled: int, images: int) -> None:
            raise LedgerUnavailable

    async def scenario() -> None:
        spending = opened()
        spending.ledger = Away()
        with pytest.raises(LedgerUnavailable) as away:
            await spending.admit(exchange("flat"), Progress("generations"))
        assert (away.value.status, away.value.nothing_sent) == (503, True)
        with pytest.raises(ModelNotFound):
            await spending.admit(exchange("p-unknown"), Progress("generations"))
        counts, _ = vars(spending.rates)["_counts"]["gateway"]
        assert counts.in_flight == 0
        spending.gateway = type(spending.gateway)()
        progress = Progress("generations")
        spent = await spending.admit(exchange("flat"), progress)
        await spending.end(spent, progress)
        assert counts.in_flight == 0

    asyncio.run(scenario())
    assert "could not be counted" in caplog.text
