"""Public names of `imagegate.contracts`: what a model accepts, for adapters and applications."""

from imagegate.contracts.body import BodyRule
from imagegate.contracts.contract import Contract, Contracts, Operation, Retirement
from imagegate.contracts.documents import ContractDocument, ProviderFacts, families, load_contracts, read_document
from imagegate.contracts.parameter import JSONType, Parameter
from imagegate.contracts.reference_rule import ReferenceForm, ReferenceRule

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
