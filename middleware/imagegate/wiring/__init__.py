"""Builds what the layers of a gateway share: from the configuration once, and anew for each event loop.

The layers are stacked on it here, too; `gateway.py` runs them, and nothing else puts services together.
"""

from imagegate.wiring.access import browser_guard
from imagegate.wiring.build import build, picture_loader
from imagegate.wiring.loop import loop_services
from imagegate.wiring.services import LoopServices, Services
from imagegate.wiring.stack import stack_of
from imagegate.wiring.upstreams import accounts_of

__all__ = [
    "LoopServices",
    "Services",
    "accounts_of",
    "browser_guard",
    "build",
    "loop_services",
    "picture_loader",
    "stack_of",
]
