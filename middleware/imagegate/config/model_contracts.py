"""What a configuration says together with the adapters that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from imagegate.adapter import Adapter
from imagegate.config.routes import address_of
from imagegate.config.schema import AccessConfig, CloudConfig, Config, UpstreamConfig
from imagegate.contracts.contract import Contracts, find_contract
from imagegate.contracts.documents import ContractDocument, load_contracts, read_document
from imagegate.errors import ConfigError
from imagegate.protocol.names import did_you_mean
from imagegate.registry import load_adapter


def adapter_of(upstream: UpstreamConfig) -> Adapter:
    """Return the adapter with the upstream's options. Raises `ConfigError`."""
    return load_adapter(upstream.adapter_name, upstream.options)


def base_url_of(upstream: UpstreamConfig) -> str:
    """Return the configured ``base_url`` in full, or the adapter's own."""
    adapter = adapter_of(upstream)
    return adapter.full_base_url(upstream.base_url) if upstream.base_url else adapter.base_url


def contracts_of(config: Config) -> dict[str, Contracts]:
    """Return upstream -> model -> contract: the adapters' own, with what the configuration adds.

    Raises:
        ConfigError: a file cannot be read, or a contract is none.
    """
    return {upstream.name: contracts_of_upstream(upstream) for upstream in config.upstreams}


def contracts_of_upstream(upstream: UpstreamConfig) -> Contracts:
    """Return the contracts of one upstream. Raises `ConfigError`."""
    adapter = adapter_of(upstream)
    own = adapter.contracts()
    documents = [own if base_url_of(upstream) == adapter.base_url else _in_service(own)]
    if upstream.contracts:
        try:
            documents.append(read_document(Path(upstream.contracts).read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{upstream.contracts} cannot be read") from error
    documents.append(ContractDocument(models=upstream.models))
    return load_contracts(*documents)


def _in_service(document: ContractDocument) -> ContractDocument:
    """Return the contracts without the provider's retirements: at another address models may answer for longer."""
    models = {name: {**table, "retired": False} for name, table in document.models.items()}
    return msgspec.structs.replace(document, models=models)


def warnings_of(
    config: Config, contracts: Mapping[str, Contracts] | None = None, *, has_access: bool = False
) -> list[str]:
    """Return what works, but perhaps not as the operator thinks.

    Args:
        contracts: of all upstreams, where they have been read.
        has_access: whether the application has a function of its own that says who may use the gateway.
    """
    found: list[str] = []
    if (
        not has_access
        and config.access.is_open
        and any(upstream.api_key or upstream.credential for upstream in config.upstreams)
    ):
        found.append(
            "access.keys is not set, nor store or callable: every client that reaches the gateway "
            "spends with the upstreams' keys"
        )
    scheme = config.delivery.store.partition(":")[0]
    if config.delivery.cloud != CloudConfig() and scheme in ("file", "memory"):
        found.append(f"delivery.cloud: does nothing with a {scheme}:// store")
    if config.spending.ledger == "memory://" and _has_budget(config.access):
        found.append(
            "spending.ledger: memory:// forgets what was spent when the process ends, and each counts for itself"
        )
    if scheme == "memory":
        found.append("delivery.store: memory:// loses its pictures when the process ends")
    contracts = contracts_of(config) if contracts is None else contracts
    found += _unknown_models(config, contracts)
    if config.tasks.ttl > config.delivery.link_ttl:
        found.append("tasks.ttl: tasks can be asked for longer than delivery.link_ttl keeps their pictures")
    host = urlsplit(config.delivery.public_url).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        needing = sorted(name for name, each in contracts.items() if _needs_links(each))
        found.append(
            "delivery.public_url is on loopback: only programs on this machine can load links"
            + (f", and these upstreams must load the references of edits: {', '.join(needing)}" if needing else "")
        )
    return found


def _has_budget(access: AccessConfig) -> bool:
    every = (access.limits, *access.groups.values(), *(each.limits for each in access.principals.values()))
    return any(limits.spend_per_day is not None or limits.spend_per_month is not None for limits in every)


def _unknown_models(config: Config, contracts: Mapping[str, Contracts]) -> list[str]:
    """Return what routes and prices name that is in no contract."""
    found: list[str] = []
    for model, entries in config.routes.items():
        for address in map(address_of, entries):
            upstream, _, name = address.partition("/")
            if find_contract(contracts[upstream], name) is None:
                hint = did_you_mean(name, contracts[upstream])
                found.append(
                    f"routes.{model}: no contract of '{upstream}' has '{name}', so its requests pass unchanged.{hint}"
                )
    addresses = {f"{upstream}/{name}" for upstream, each in contracts.items() for name in each}
    known = {*config.routes, *addresses, *(name for each in contracts.values() for name in each)}
    for name in config.prices.models:
        upstream, _, rest = name.partition("/")
        is_address = bool(rest) and upstream in contracts
        contracted = [contracts[upstream]] if is_address else contracts.values()
        if name not in known and not any(find_contract(each, rest if is_address else name) for each in contracted):
            found.append(f"prices.models.{name}: no upstream has this model.{did_you_mean(name, known)}")
    return found


def _needs_links(contracts: Contracts) -> bool:
    """Return whether a model takes references only as links that the gateway must publish."""
    rules = [edits.references for contract in contracts.values() if (edits := contract.edits)]
    return any(rule is not None and "files" not in rule.forms and not rule.upload for rule in rules)
