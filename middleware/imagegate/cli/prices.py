"""What the models of a configuration cost, and where each price is from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from imagegate.config.model_contracts import adapter_of, contracts_of
from imagegate.config.price_table import Price, price_table
from imagegate.config.schema import Config


def price_list(config: Config) -> list[dict[str, Any]]:
    """Return every model of every upstream with its price; ``from`` is empty where none is known, with the reason.

    A pattern stands for its models where an upstream has no other.
    """
    table = price_table(config)
    contracts, listed = contracts_of(config), []
    for upstream in config.upstreams:
        provider = adapter_of(upstream).contracts().provider
        names = dict.fromkeys([*(name for name in contracts[upstream.name] if "*" not in name)])
        names |= dict.fromkeys(table.models(upstream.name))
        for model in names or contracts[upstream.name]:
            found = table.look_up(upstream.name, model)
            listed.append(_entry(upstream.name, model, table.currency, found, provider.no_prices if provider else ""))
    return listed


def _entry(upstream: str, model: str, currency: str, found: Price | None, reason: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"upstream": upstream, "model": model}
    if found is None:
        return {**entry, "from": "", **({"reason": reason} if reason else {})}
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
        return f"no price is known: {entry['reason'].rstrip('.')}" if "reason" in entry else "no price is known"
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
