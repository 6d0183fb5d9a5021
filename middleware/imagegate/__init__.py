"""imagegate: ASGI middleware that lets any OpenAI Images client talk to any image provider.

`ImageGateway` is the whole of it, as an application or as middleware; each of its layers can be used alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from imagegate.access.principal import Limits, Principal
    from imagegate.adapter import Adapter, OpenAIAdapter
    from imagegate.config.loader import load_config
    from imagegate.config.schema import Config
    from imagegate.contracts.contract import Contract
    from imagegate.contracts.documents import load_contracts
    from imagegate.errors import ConfigError, ImagegateError
    from imagegate.gateway import ImageGateway
    from imagegate.telemetry.hooks import Hook
    from imagegate.telemetry.record import ExchangeRecord

__all__ = [
    "Adapter",
    "Config",
    "ConfigError",
    "Contract",
    "ExchangeRecord",
    "Hook",
    "ImageGateway",
    "ImagegateError",
    "Limits",
    "OpenAIAdapter",
    "Principal",
    "load_config",
    "load_contracts",
]

_HOMES = {
    "Adapter": "imagegate.adapter",
    "Config": "imagegate.config.schema",
    "ConfigError": "imagegate.errors",
    "Contract": "imagegate.contracts.contract",
    "ExchangeRecord": "imagegate.telemetry.record",
    "Hook": "imagegate.telemetry.hooks",
    "ImageGateway": "imagegate.gateway",
    "ImagegateError": "imagegate.errors",
    "Limits": "imagegate.access.principal",
    "OpenAIAdapter": "imagegate.adapter",
    "Principal": "imagegate.access.principal",
    "load_config": "imagegate.config.loader",
    "load_contracts": "imagegate.contracts.documents",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that importing the package costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
