"""Builds what the layers of a gateway share: from the configuration once, and anew for each event loop.

`gateway.py` stacks the layers on it; nothing else puts services together.
"""

from imagegate.wiring.access import browser_guard
from imagegate.wiring.build import build, picture_loader
from imagegate.wiring.loop import loop_services
from imagegate.wiring.services import LoopServices, Services
from imagegate.wiring.upstreams import accounts_of

__all__ = ["LoopServices", "Services", "accounts_of", "browser_guard", "build", "loop_services", "picture_loader"]
