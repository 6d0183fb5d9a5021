"""What a contract says to its adapter alone reaches `encode`, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from imagegate.contract import load_contracts, read_document
from imagegate.fitting.fit import fit
from imagegate.protocol.messages import ImageRequest

SHIPPED = """
[models.painter]
wire = { endpoint = "queue", names = ["a", "b"] }
parameters = { prompt = {}, n = { type = "integer", max = 1 } }
[models.painter.edits.references]
forms = ["inline"]
[models.own.edits]
wire = { endpoint = "edit" }
[models.plain]
parameters = { prompt = {} }
"""
OPERATORS = '[models.painter]\nwire = { endpoint = "at once" }'


@pytest.mark.parametrize("policy", ["nearest", "strict", "pass"])
@pytest.mark.parametrize(
    ("model", "operation", "documents", "expected"),
    [
        ("painter", "generations", [SHIPPED], {"endpoint": "queue", "names": ["a", "b"]}),
        ("painter", "edits", [SHIPPED], {"endpoint": "queue", "names": ["a", "b"]}),
        ("painter", "edits", [SHIPPED, OPERATORS], {"endpoint": "at once"}),
        ("own", "generations", [SHIPPED], {}),
        ("own", "edits", [SHIPPED], {"endpoint": "edit"}),
        ("plain", "generations", [SHIPPED], {}),
    ],
)
def test_wire(policy: Any, model: str, operation: Any, documents: list[str], expected: dict[str, Any]) -> None:
    """Edits have what the model has unless they say otherwise; an operator's table is in place of the shipped one."""
    contracts = load_contracts(*map(read_document, documents))
    request = ImageRequest(operation=operation, fields={"model": model}, body=b'{"model": 1}')
    fitted, changes = fit(request, contracts[model], policy=policy)
    assert (fitted.wire, changes) == (expected, ())
    assert (fitted.fields, fitted.body) == (request.fields, request.body)
