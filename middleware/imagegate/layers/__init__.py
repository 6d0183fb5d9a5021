"""The layers: each a plain ASGI middleware, usable alone in front of any application.

`ImageGateway` composes them, and `imagegate.wiring.stack` has their order.
"""

from imagegate.layers.admit import Admit
from imagegate.layers.base import ExchangeLayer, Layer
from imagegate.layers.convert import Convert
from imagegate.layers.deliver import Deliver
from imagegate.layers.fit import Fit
from imagegate.layers.idempotency import Idempotency
from imagegate.layers.moderate import Moderate
from imagegate.layers.observe import Observe
from imagegate.layers.read import Read
from imagegate.layers.references import References
from imagegate.layers.route import Route
from imagegate.layers.spend import Spend
from imagegate.layers.tasks import TaskEndpoints, Tasks
from imagegate.layers.upstream import Upstream
from imagegate.layers.usage import Usage

__all__ = [
    "Admit",
    "Convert",
    "Deliver",
    "ExchangeLayer",
    "Fit",
    "Idempotency",
    "Layer",
    "Moderate",
    "Observe",
    "Read",
    "References",
    "Route",
    "Spend",
    "TaskEndpoints",
    "Tasks",
    "Upstream",
    "Usage",
]
