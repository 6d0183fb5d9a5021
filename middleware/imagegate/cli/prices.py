"""What the models of a configuration cost, and where each price is from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from imagegate.config.model_contracts import adapter_of, contracts_of
from imagegate.config.price_table import Price, PriceTable, price_table
from imagegate.config.schema import Config, UpstreamConfig
from imagegate.contracts.contract import Contract, find_contract
from imagegate.protocol.price_units import bounds_of
from imagegate.protocol.prices import ModelPrice

_UNKNOWN: Final = "nothing says what it costs"
_UNITS: Final[Mapping[str, str]] = {
    "image": "an image",
    "megapixel": "a megapixel",
    "step": "a step",
    "megapixel_step": "a step of a megapixel",
}
_REFERENCE_UNITS: Final[Mapping[str, str]] = {"reference_image": "piece", "reference_megapixel": "megapixel"}


def price_list(config: Config) -> list[dict[str, Any]]:
    """Return every model of every upstream with its price; ``from`` is empty where none is known, with the reason.

    A pattern stands for its models where an upstream has no other, or where it has a price or a reason of its own.
    """
    table = price_table(config)
    contracts, listed = contracts_of(config), []
    for upstream in config.upstreams:
        own, name = contracts[upstream.name], upstream.name
        names = dict.fromkeys([model for model in own if "*" not in model])
        names |= dict.fromkeys([*table.models(name), *(model for model in table.unpriced(name) if model in own)])
        for model in names or own:
            found = table.look_up(name, model)
            if found is None:
                listed.append({"upstream": name, "model": model, "from": "", "reason": _reason(upstream, table, model)})
            else:
                most = _most(found.price, find_contract(own, model))
                listed.append(_entry(name, model, table.currency, found, most))
    return listed


def _reason(upstream: UpstreamConfig, table: PriceTable, model: str) -> str:
    """Return why a model has no price."""
    provider = adapter_of(upstream).contracts().provider
    return table.reason(upstream.name, model) or (provider.no_prices if provider else "") or _UNKNOWN


def _most(price: ModelPrice, contract: Contract | None) -> float | None:
    """Return the most that an image costs, whatever the operation; None: that is not known."""
    operations = contract.by_operation.values() if contract is not None else (None,)
    most = [price.most_per_image(bounds_of(own)) for own in operations if own is not None or contract is None]
    return None if None in most else max((each for each in most if each is not None), default=None)


def _entry(upstream: str, model: str, currency: str, found: Price, most: float | None) -> dict[str, Any]:
    members = msgspec.to_builtins(found.price)
    unset = msgspec.to_builtins(type(found.price)())
    price = {name: value for name, value in members.items() if value != unset[name] and name not in ("date", "source")}
    entry = {"upstream": upstream, "model": model, "currency": currency, **price, "most_per_image": most}
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
        return f"no price is known: {entry['reason'].rstrip('.')}"
    amounts = [told] if (told := _rates(entry)) else []
    amounts += [f"{_rates(each) or '0 an image'} where {_when(each['when'])}" for each in entry.get("variants", ())]
    if tokens := entry.get("tokens"):
        kinds = ", ".join(f"{kind} {amount:g}" for kind, amount in tokens.items())
        amounts.append(f"a million tokens: {kinds}")
    references = [f"{entry[name]:g} a {unit}" for name, unit in _REFERENCE_UNITS.items() if name in entry]
    amounts += [f"references: {' and '.join(references)}"] if references else []
    amounts += [f"a megapixel is {entry['megapixel_pixels']} pixels"] if "megapixel_pixels" in entry else []
    amounts += ["parts of a megapixel count as whole ones"] if "round_up" in entry else []
    amounts += [f"{entry['steps']} steps where none are named"] if "steps" in entry else []
    amounts += [f"as the reply says in usage.{entry['usage_cost']}"] if "usage_cost" in entry else []
    most = entry["most_per_image"]
    amounts.append("at most: not known" if most is None else f"at most {most:g} an image")
    origin = f"ours, {entry['date']}, {entry['source']}" if entry["from"] == "adapter" else "yours"
    if most == 0 and len(amounts) == 1:
        return f"free of charge ({origin})"
    return f"{entry['currency']} {'; '.join(amounts)} ({origin})"


def _rates(entry: Mapping[str, Any]) -> str:
    return " and ".join(f"{entry[name]:g} {unit}" for name, unit in _UNITS.items() if entry.get(name))


def _when(when: Mapping[str, Sequence[Any]]) -> str:
    return " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in when.items())
