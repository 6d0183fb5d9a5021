"""``imagegate spend`` and ``imagegate usage``: what is held, and who has spent what."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from imagegate.errors import ConfigError

if TYPE_CHECKING:
    from imagegate.config.schema import Config
    from imagegate.spending.ledger import Ledger, Reservation

T = TypeVar("T")


def add_parsers(commands: Any, add_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add both commands to the program's."""
    spend = commands.add_parser("spend", help="show and decide what is held because it may have been charged")
    actions = spend.add_subparsers(required=True, metavar="ACTION")
    held = actions.add_parser("held", help="list it")
    held.add_argument("--key", help="of one key only: the id of its principal")
    held.add_argument("--json", action="store_true", help="for programs")
    held.set_defaults(run=_held)
    settle = actions.add_parser("settle", help="the provider has charged it")
    settle.add_argument("id", help="as `spend held` shows it")
    settle.add_argument("--amount", type=_amount, help="what was charged (default: all that is held)")
    settle.set_defaults(run=_settle)
    release = actions.add_parser("release", help="the provider has not charged it")
    release.add_argument("id", help="as `spend held` shows it")
    release.set_defaults(run=_release)
    usage = commands.add_parser("usage", help="show who has spent what")
    usage.add_argument("--period", type=_period, help="2026-11 or 2026-11-05 (default: this month)")
    usage.add_argument("--json", action="store_true", help="for programs")
    usage.set_defaults(run=_usage)
    for parser in (held, settle, release, usage):
        add_config(parser)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of money")
    return value


def _period(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no month or day such as 2026-11 or 2026-11-05")
    return text


def _config(options: argparse.Namespace) -> Config:
    from imagegate.spending.factory import MEMORY
    from imagegate.standalone import CONFIG_VARIABLE, find_config

    if options.config is not None:
        os.environ[CONFIG_VARIABLE] = str(options.config.absolute())
    config = find_config()
    if config.spending.ledger == MEMORY:
        raise ConfigError("spending.ledger: memory:// is inside the gateway's process; name a database")
    return config


def _with_ledger(options: argparse.Namespace, work: Callable[[Ledger], Awaitable[T]]) -> T:
    from imagegate.spending.factory import open_ledger
    from imagegate.spending.ledger import LedgerUnavailable

    async def run() -> T:
        ledger = open_ledger(_config(options))
        try:
            return await work(ledger)
        except LedgerUnavailable:
            raise ConfigError("spending.ledger: the database cannot be used") from None
        finally:
            await ledger.aclose()

    return asyncio.run(run())


def _held(options: argparse.Namespace) -> int:
    from imagegate.spending.accounts import key_account
    from imagegate.spending.money import amount
    from imagegate.spending.report import held_document

    account = key_account(options.key) if options.key else ""
    held = _with_ledger(options, lambda ledger: ledger.list_held(account))
    if options.json:
        print(json.dumps([held_document(each) for each in held], indent=2))
        return 0
    for each in held:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.created))
        print(f"{each.id}  {when}  {amount(each.held):.6g}  {each.model}  {each.accounts[0]}  {each.request_id}")
    print(f"{len(held)} held, {amount(sum(each.held for each in held)):.6g} in all")
    return 0


def _settle(options: argparse.Namespace) -> int:
    return _decide(options, options.amount)


def _release(options: argparse.Namespace) -> int:
    return _decide(options, 0.0)


def _decide(options: argparse.Namespace, charged: float | None) -> int:
    from imagegate.spending.money import amount, nanos

    async def decide(ledger: Ledger) -> Reservation:
        held = {each.id: each for each in await ledger.list_held()}
        if options.id not in held:
            raise ConfigError(f"nothing is held under '{options.id}'; `imagegate spend held` lists what is")
        settled = held[options.id].held if charged is None else nanos(charged)
        decided = await ledger.decide(options.id, settled)
        if decided is None or decided.state == "held":
            raise ConfigError(f"nothing is held under '{options.id}' any more")
        return decided

    decided = _with_ledger(options, decide)
    print(f"{decided.id}: {decided.state}, {amount(decided.settled):.6g} charged")
    return 0


def _usage(options: argparse.Namespace) -> int:
    from imagegate.spending.ledger import day_of
    from imagegate.spending.report import all_figures

    period = options.period or day_of(time.time())[:7]
    rows = all_figures(_with_ledger(options, lambda ledger: ledger.balances([period])), period)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    width = max([len("account"), *(len(row["account"]) for row in rows)])
    print(f"{'account':<{width}}  {'spent':>12} {'held':>12} {'reserved':>12} {'requests':>9} {'images':>9}")
    for row in rows:
        money = " ".join(f"{row[name]:>12.6g}" for name in ("spent", "held", "reserved"))
        print(f"{row['account']:<{width}}  {money} {row['requests']:>9} {row['images']:>9}")
    return 0
