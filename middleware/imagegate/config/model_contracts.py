"""What a configuration says together with the adapters that it names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from imagegate.adapter import Adapter
from imagegate.config.schema import CloudConfig, Config, UpstreamConfig
from imagegate.contracts.contract import ContractDocument, Contracts, load_contracts, read_document
from imagegate.errors import ConfigError
from imagegate.registry import load_adapter


def adapter_of(upstream: UpstreamConfig) -> Adapter:
    """Return the adapter with the upstream's options. Raises `ConfigError`."""
    return load_adapter(upstream.adapter_name, upstream.options)


def base_url_of(upstream: UpstreamConfig) -> str:
    """Return the configured ``base_url``, or the adapter's own."""
    return upstream.base_url or adapter_of(upstream).base_url


def contracts_of(config: Config) -> dict[str, Contracts]:
    """Return upstream -> model -> contract: the adapters' own, with what the configuration adds.

    Raises:
        ConfigError: a file cannot be read, or a contract is none.
    """
    return {upstream.name: contracts_of_upstream(upstream) for upstream in config.upstreams}


def contracts_of_upstream(upstream: UpstreamConfig) -> Contracts:
    """Return the contracts of one upstream. Raises `ConfigError`."""
    documents = [adapter_of(upstream).contracts()]
    if upstream.contracts:
        try:
            documents.append(read_document(Path(upstream.contracts).read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{upstream.contracts} cannot be read") from error
    documents.append(ContractDocument(models=upstream.models))
    return load_contracts(*documents)


def warnings_of(config: Config) -> list[str]:
    """Return what works, but perhaps not as the operator thinks."""
    found: list[str] = []
    if not config.access.keys and any(upstream.api_key or upstream.credential for upstream in config.upstreams):
        found.append("access.keys is not set: whoever reaches the gateway spends the upstreams' keys")
    scheme = config.delivery.store.partition(":")[0]
    if config.delivery.cloud != CloudConfig() and scheme in ("file", "memory"):
        found.append(f"delivery.cloud: does nothing with a {scheme}:// store")
    if scheme == "memory":
        found.append("delivery.store: memory:// loses its pictures when the process ends")
    if config.tasks.ttl > config.delivery.link_ttl:
        found.append("tasks.ttl: tasks can be asked for longer than delivery.link_ttl keeps their pictures")
    host = urlsplit(config.delivery.public_url).hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        needing = sorted(name for name, contracts in contracts_of(config).items() if _needs_links(contracts))
        found.append(
            "delivery.public_url is on loopback: only programs on this machine can load links"
            + (f", and these upstreams must load the references of edits: {', '.join(needing)}" if needing else "")
        )
    return found


def _needs_links(contracts: Contracts) -> bool:
    """Whether a model takes references only as links that the gateway must publish."""
    rules = [edits.references for contract in contracts.values() if (edits := contract.edits)]
    return any(rule is not None and "files" not in rule.forms and not rule.upload for rule in rules)
