"""Public names of `imagegate.contracts`: what a model accepts, for adapters and applications."""

from imagegate.contracts.body import BodyRule
from imagegate.contracts.contract import (
    Contract,
    ContractDocument,
    Contracts,
    JSONType,
    Operation,
    Parameter,
    ProviderFacts,
    ReferenceForm,
    ReferenceRule,
    Retirement,
    families,
    load_contracts,
    read_document,
)

__all__ = [
    "BodyRule",
    "Contract",
    "ContractDocument",
    "Contracts",
    "JSONType",
    "Operation",
    "Parameter",
    "ProviderFacts",
    "ReferenceForm",
    "ReferenceRule",
    "Retirement",
    "families",
    "load_contracts",
    "read_document",
]
