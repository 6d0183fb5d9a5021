"""A configuration with the files that it names: all that is read from a disk before a gateway is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from imagegate.config.loader import read_config
from imagegate.config.model_contracts import contracts_of
from imagegate.config.price_table import PriceTable, price_table
from imagegate.config.schema import Config
from imagegate.contracts.contract import Contracts


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """A checked configuration, and what its adapters and files say."""

    config: Config
    contracts: Mapping[str, Contracts]
    """Upstream -> model -> contract."""
    prices: PriceTable


def load(config: Config | Mapping[str, Any] | str | PathLike[str] | None) -> LoadedConfig:
    """Read and check a configuration, and the files that it names. It waits for disks: call it in a thread.

    Raises:
        ConfigError: it cannot be used.
    """
    found = read_config(config)
    return LoadedConfig(config=found, contracts=contracts_of(found), prices=price_table(found))
