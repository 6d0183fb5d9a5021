"""What the configuration says of its keys, as principals."""

from __future__ import annotations

from imagegate.access.principal import Principal
from imagegate.config.schema import AccessConfig


def principals_of(access: AccessConfig) -> dict[str, Principal]:
    """Return name of a key -> principal, for all keys of the configuration.

    Raises:
        ValueError: one of them is none.
    """
    return {
        name: Principal(
            id=name,
            limits=config.limits,
            groups={group: access.groups[group] for group in config.groups},
            tenant=config.tenant,
            models=config.models,
            sizes=config.sizes,
            operations=config.operations,
            upstream_keys=config.upstream_keys,
            metadata=config.metadata,
        )
        if (config := access.principals.get(name))
        else Principal(id=name)
        for name in access.named_keys()
    }
