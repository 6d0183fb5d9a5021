"""What the models of a configuration cost, and where each price is from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from imagegate.config.model_contracts import contracts_of
from imagegate.config.price_table import Price, price_table
from imagegate.config.schema import Config


def price_list(config: Config) -> list[dict[str, Any]]:
    """Return every model of every upstream with its price; ``from`` is empty where none is known."""
    table = price_table(config)
    return [
        _entry(upstream, model, table.currency, table.look_up(upstream, model))
        for upstream, contracts in contracts_of(config).items()
        for model in dict.fromkeys([*(name for name in contracts if "*" not in name), *table.models(upstream)])
    ]


def _entry(upstream: str, model: str, currency: str, found: Price | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"upstream": upstream, "model": model}
    if found is None:
        return {**entry, "from": ""}
    members = msgspec.to_builtins(found.price)
    price = {name: value for name, value in members.items() if value and name not in ("date", "source")}
    entry |= {"currency": currency, **price, "most_per_image": found.price.most_per_image}
    return entry | (
        {"from": "adapter", "date": found.date, "source": found.source}
        if found.is_shipped
        else {"from": "configuration"}
    )


def price_lines(listed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Return the list as text, a line for each model."""
    names = [f"{entry['upstream']}/{entry['model']}" for entry in listed]
    width = max(map(len, names), default=0)
    for name, entry in zip(names, listed, strict=True):
        yield f"{name:<{width}}  {_told(entry)}"


def _told(entry: Mapping[str, Any]) -> str:
    if not entry["from"]:
        return "no price is known"
    amounts = [f"{entry.get('image', 0):g} an image"] if "image" in entry else []
    amounts += [f"{each['image']:g} an image where {_when(each['when'])}" for each in entry.get("variants", ())]
    if tokens := entry.get("tokens"):
        kinds = ", ".join(f"{kind} {amount:g}" for kind, amount in tokens.items())
        amounts.append(f"a million tokens: {kinds}")
    most = entry["most_per_image"]
    amounts.append("at most: not known" if most is None else f"at most {most:g} an image")
    origin = f"ours, {entry['date']}, {entry['source']}" if entry["from"] == "adapter" else "yours"
    return f"{entry['currency']} {'; '.join(amounts)} ({origin})"


def _when(when: Mapping[str, Sequence[Any]]) -> str:
    return " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in when.items())
